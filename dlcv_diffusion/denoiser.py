"""Everything we sample from is a denoiser, `denoise(x, t) -> eps`; a `Denoiser` is a network that knows what it is.

A network gives ε, v or x0, each of which follows from the others, since x_t is known (arXiv 2202.00512, sec. 4):

    v = √ᾱ_t ε − √(1 − ᾱ_t) x0,     x̂0 = √ᾱ_t x_t − √(1 − ᾱ_t) v,     ε = √(1 − ᾱ_t) x_t + √ᾱ_t v
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import check
from .schedule import NoiseSchedule

PREDICTIONS = ("eps", "v", "x0")


class Denoiser(nn.Module):
    """A network, and what has to be known to sample from it.

    - model: the network, `model(x, t)`, or `model(x, t, condition)` where it has a `null`.
    - schedule: the noise schedule it was trained with.
    - prediction: what it gives, "eps", "v" or "x0".
    - shape: (C, H, W) of one image or latent, None where any will do.
    - null: ∅, the condition that stands for none: a class number, or an embedding. None: there are no conditions.
    - name: what figures call its weights; facts: plain JSON that was saved with them.

    `denoise(x, t)` or `denoise(x, t, condition)` answers in ε, in the dtype of x. Raises `UserError` for an unknown
    prediction and, when called, for a network whose output is not like x.

    >>> denoise = Denoiser(network, NoiseSchedule.linear(1000), "v", shape=(3, 32, 32))   # doctest: +SKIP
    >>> image = last(ddim(denoise, seeded_noise((1, *denoise.shape), [0]))).x             # doctest: +SKIP
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        schedule: NoiseSchedule,
        prediction: str = "eps",
        *,
        shape: tuple[int, int, int] | None = None,
        null: int | Tensor | None = None,
        name: str = "",
        facts: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        check_prediction(prediction)
        sizes = shape is None or (isinstance(shape, Sequence) and len(shape) == 3 and min(shape) >= 1)
        check(sizes, f"the shape of one image is (C, H, W), not {shape}")
        self.model, self.schedule, self.prediction = model, schedule, prediction
        self.shape, self.null, self.name, self.facts = shape and tuple(shape), null, name, dict(facts or {})

    @property
    def device(self) -> torch.device:
        """Where the network's weights are; the CPU where it has none."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """ε, (B, C, H, W), for x (B, C, H, W), t (B,) int64 and, where the network takes one, a condition (B, …)."""
        if condition is None and self.null is not None:
            condition = expanded(self.null, len(x), x.device)
        dtype = next((weight.dtype for weight in self.parameters() if weight.is_floating_point()), x.dtype)
        if condition is not None and condition.is_floating_point():
            condition = condition.to(dtype)
        output = self.model(x.to(dtype), t, *(() if condition is None else (condition,)))
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        name, wanted = self.name or type(self.model).__name__, tuple(x.shape)
        check(given == wanted, f"the network '{name}' gave {given} for images {wanted}; they must be alike")
        return to_eps(output.to(x.dtype), x, t, self.schedule, self.prediction)


def expanded(condition: int | Tensor, count: int, device: torch.device) -> Tensor:
    """One condition, a class number or an embedding (…), for `count` images: (count, …)."""
    condition = torch.as_tensor(condition, device=device)
    return condition.expand(count, *condition.shape)


def check_prediction(prediction: str) -> None:
    """Raise `UserError` unless it is "eps", "v" or "x0"."""
    check(prediction in PREDICTIONS, f"unknown prediction '{prediction}'; choose one of {', '.join(PREDICTIONS)}")


def training_target(x0: Tensor, eps: Tensor, t: Tensor | int, schedule: NoiseSchedule, prediction: str) -> Tensor:
    """What the network is to give for x_t: ε, v = √ᾱ_t ε − √(1 − ᾱ_t) x0, or x0; of the shape of x0, (B, …).

    >>> training_target(torch.ones(1), torch.zeros(1), 0, NoiseSchedule.linear(350), "v")
    tensor([-0.0100])
    """
    check_prediction(prediction)
    if prediction == "v":
        signal, noise = schedule.signal_and_noise(t, x0)
        return (signal * eps - noise * x0).to(x0.dtype)
    return {"eps": eps, "x0": x0}[prediction]


def to_eps(output: Tensor, x: Tensor, t: Tensor | int, schedule: NoiseSchedule, prediction: str) -> Tensor:
    """ε, (B, …), from what a network gave for x_t: the inverse of `training_target` (arXiv 2202.00512, appendix D).

    >>> to_eps(torch.zeros(1), torch.ones(1), 0, NoiseSchedule.linear(350), "v")
    tensor([0.0100])
    """
    check_prediction(prediction)
    check(output.shape == x.shape, f"the network gave {tuple(output.shape)} for images {tuple(x.shape)}")
    if prediction == "eps":
        return output
    if prediction == "x0":
        return schedule.predict_eps(x, output, t)
    signal, noise = schedule.signal_and_noise(t, x)
    return (noise * x + signal * output).to(x.dtype)


def load_denoiser(
    name_or_path: str | Path, *, unet_py: str | Path | None = None, device: torch.device | str | None = None
) -> Denoiser:
    """The denoiser of any weights, in eval mode and float32, on its device, with all that sampling has to know.

    - name_or_path: shipped weights by name, "digits" or "faces"; a .safetensors file; the course's `UNet.pt`, with
      `unet_py`, its `UNet.py`, which is run; a diffusers `UNet2DModel`, as a folder or a name on the hub.
    - device: the best there is by default.

    Raises `UserError` for weights that are missing, damaged, foreign or newer, and for a device that is not here.

    >>> load_denoiser("faces").shape
    (1, 64, 64)
    """
    from .models.loading import load

    return load(name_or_path, unet_py=unet_py, device=device)
