"""Classifier-free guidance (Ho, Salimans, arXiv 2207.12598): a model with labels becomes a denoiser."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import UserError


def guided(
    model: Callable[..., Tensor],
    labels: Sequence[int] | Tensor,
    w: float = 2.0,
    *,
    interval: tuple[int, int] | None = None,
) -> "Guided":
    """Return the denoiser ε̃ = (1 + w) ε(x_t, c) − w ε(x_t, ∅) (Ho, Salimans, eq. 6), one forward pass of 2B.

    - model: `model(x, t, labels) -> eps`, with the null class ∅ = `model.num_classes`.
    - labels: (B,) integers in [0, num_classes]; ∅ itself is allowed.
    - w: guidance weight. w = 0 is the plain conditional model, in one forward pass of B. The other
      convention, u + s (c − u) with the `guidance_scale` s of Stable Diffusion, is s = 1 + w: see
      `guidance_weight`.
    - interval: (lo, hi), timesteps both included, outside of which guidance is switched off and one forward
      pass of B is enough (Kynkäänniemi et al., arXiv 2404.07724). From noise levels:
      `schedule.interval(sigma_lo, sigma_hi)`.
    - Returns a `Guided`: call it as `denoise(x, t)`; its `.model` is the model, for samplers to put into
      eval mode.

    Raises `UserError` for labels that are not whole numbers in that range, or an interval that runs
    backwards.

    >>> denoise = guided(model, labels=[3, 13], w=2.0)          # doctest: +SKIP
    >>> for step in ddim(denoise, x_T, schedule, steps=50): ... # doctest: +SKIP
    """
    return Guided(model, labels, w, interval)


def guidance_weight(guidance_scale: float) -> float:
    """w of the `guidance_scale` s: u + s (c − u) = (1 + w) c − w u for s = 1 + w; converted here only.

    >>> guidance_weight(7.5)
    6.5
    """
    return guidance_scale - 1


class Guided:
    """The denoiser that `guided` returns; `model`, `labels`, `w` and `interval` are what it was given."""

    def __init__(self, model: Any, labels: Sequence[int] | Tensor, w: float, interval: tuple[int, int] | None):
        self.model, self.w, self.interval = model, float(w), interval
        self.null = _null_class(model)
        self.labels = _checked(labels, self.null)
        if interval is not None and interval[0] > interval[1]:
            raise UserError(f"guidance interval {tuple(interval)} runs backwards; give (lo, hi) in timesteps")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """ε̃, (B, C, H, W), for x (B, C, H, W) and t (B,). Raises `UserError` unless B labels were given."""
        if len(x) != len(self.labels):
            raise UserError(f"{len(self.labels)} labels for {len(x)} images; give one label for each image")
        self.labels = labels = self.labels.to(x.device)
        w: float | Tensor = self.w
        if w and self.interval is not None:
            inside = (t >= self.interval[0]) & (t <= self.interval[1])
            w = w * inside.reshape(-1, *[1] * (x.ndim - 1)) if inside.any() else 0.0
        if isinstance(w, float) and w == 0:
            return self.model(x, t, labels)
        null = torch.full_like(labels, self.null)
        eps = self.model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null]))
        eps_c, eps_u = eps.to(x.dtype).chunk(2)  # before the sum: w would multiply the rounding of bfloat16
        return (1 + w) * eps_c - w * eps_u


def drop_labels(labels: Tensor, p: float, null: int, generator: torch.Generator) -> Tensor:
    """Replace each label by the null class ∅ with probability p, each on its own (Ho, Salimans, algorithm 1).

    - labels: (B,) int64; null: the number of the null class, `model.num_classes`.
    - generator: where the chance comes from; it may live on the CPU while labels live on a GPU.
    - Returns a new (B,) int64 tensor on the device of labels.

    Raises `UserError` for p outside [0, 1].

    >>> drop_labels(torch.tensor([3, 13]), p=1.0, null=20, generator=torch.Generator())
    tensor([20, 20])
    """
    if not 0 <= p <= 1:
        raise UserError(f"the probability of dropping a label is {p}; it must be between 0 and 1")
    dropped = torch.rand(labels.shape, generator=generator, device=generator.device) < p
    return labels.masked_fill(dropped.to(labels.device), null)


def _null_class(model: Any) -> int:
    null = getattr(model, "num_classes", None)
    if not null:
        raise UserError("this model takes no labels (it has no num_classes); use it as a denoiser without guided(…)")
    return int(null)


def _checked(labels: Sequence[int] | Tensor, null: int) -> Tensor:
    labels = torch.as_tensor(labels)
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError("labels must be a list of whole numbers, one for each image")
    for label in labels[(labels < 0) | (labels > null)].tolist():
        raise UserError(f"label {label} is out of range; labels run from 0 to {null - 1} ({null} stands for no label)")
    return labels.to(torch.int64)
