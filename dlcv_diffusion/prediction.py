"""What a network's output stands for, ε, v or x0, and how each becomes the ε that the samplers ask for.

All three say the same of x_t = √ᾱ_t x0 + √(1 − ᾱ_t) ε, since x_t is known; they differ in where a network's errors do
harm. An error in ε is multiplied by √((1 − ᾱ_t)/ᾱ_t) in x̂0, which is 157 at the first of the DDPM paper's thousand
steps; the velocity v of Salimans and Ho (arXiv 2202.00512, sec. 4) leaves it below 1 everywhere:

    v = √ᾱ_t ε − √(1 − ᾱ_t) x0,     x̂0 = √ᾱ_t x_t − √(1 − ᾱ_t) v,     ε = √(1 − ᾱ_t) x_t + √ᾱ_t v
"""

from collections.abc import Callable

from torch import Tensor

from .errors import UserError
from .schedule import NoiseSchedule

PREDICTIONS = ("eps", "v", "x0")


def training_target(x0: Tensor, eps: Tensor, t: Tensor | int, schedule: NoiseSchedule, prediction: str) -> Tensor:
    """What the network is to give for x_t: ε, v = √ᾱ_t ε − √(1 − ᾱ_t) x0, or x0; of the shape of x0, (B, …).

    Raises `UserError` for an unknown prediction.

    >>> import torch
    >>> training_target(torch.ones(1), torch.zeros(1), 0, NoiseSchedule.linear(350), "v")
    tensor([-0.0100])
    """
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    _check(prediction)
    signal, noise = schedule.signal_and_noise(t, x0)
    return (signal * eps - noise * x0).to(x0.dtype)


def to_eps(output: Tensor, x: Tensor, t: Tensor | int, schedule: NoiseSchedule, prediction: str) -> Tensor:
    """ε, (B, …), from what a network gave for x_t: the inverse of `training_target`.

    From v it is √(1 − ᾱ_t) x_t + √ᾱ_t v (arXiv 2202.00512, appendix D). Raises `UserError` for an unknown prediction.

    >>> import torch
    >>> to_eps(torch.zeros(1), torch.ones(1), 0, NoiseSchedule.linear(350), "v")
    tensor([0.0100])
    """
    if prediction == "eps":
        return output
    if prediction == "x0":
        return schedule.predict_eps(x, output, t)
    _check(prediction)
    signal, noise = schedule.signal_and_noise(t, x)
    return (noise * x + signal * output).to(x.dtype)


class EpsDenoiser:
    """A network `model(x, t)` that gives ε, v or x0, as a denoiser with all that a sampler needs beside it.

    - model: the network, where samplers find it to put it into eval mode; schedule: what it was trained with.
    - prediction: "eps", "v" or "x0".
    - image_size: (C, H, W) of its images, None where any will do; name: what figures call its weights.

    Raises `UserError` for an unknown prediction.

    >>> denoise = EpsDenoiser(model, NoiseSchedule.linear(1000), "v")       # doctest: +SKIP
    >>> image = last(ddim(denoise, x_T, denoise.schedule)).x                # doctest: +SKIP
    """

    def __init__(
        self,
        model: Callable[[Tensor, Tensor], Tensor],
        schedule: NoiseSchedule,
        prediction: str = "eps",
        *,
        image_size: tuple[int, int, int] | None = None,
        name: str = "",
    ):
        _check(prediction)
        self.model, self.schedule, self.prediction = model, schedule, prediction
        self.image_size, self.name = image_size, name

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """ε, (B, C, H, W), for x (B, C, H, W) and t (B,) int64."""
        return to_eps(self.model(x, t).to(x.dtype), x, t, self.schedule, self.prediction)


def _check(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise UserError(f"unknown prediction '{prediction}'; choose one of {', '.join(PREDICTIONS)}")
