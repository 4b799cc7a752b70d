"""Classifier-free guidance (Ho, Salimans, arXiv 2207.12598): a denoiser and a condition become a denoiser."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .arguments import as_tensor, is_whole
from .errors import UserError, check

ONE_LABEL = "labels are a list of whole numbers, one for each image"


def guided(
    denoiser: Callable[..., Tensor],
    condition: Sequence[int] | Tensor,
    w: float = 2.0,
    *,
    null: int | Tensor | None = None,
    interval: tuple[int, int] | None = None,
) -> "Guided":
    """The denoiser ε̃ = (1 + w) ε(x_t, c) − w ε(x_t, ∅) (Ho, Salimans, eq. 6), one forward pass of 2B.

    - denoiser: a `Denoiser` with a ∅, or any `denoise(x, t, condition) -> eps`, with `null`.
    - condition: one for each image: labels (B,), whole numbers from 0 to ∅, or embeddings (B, …).
    - w: guidance weight; 0: the conditional model alone, one forward pass of B. See `guidance_weight`.
    - null: ∅, a class number or an embedding, (…) or (B, …); by default the denoiser's own.
    - interval: timesteps (lo, hi) outside of which there is no guidance (arXiv 2404.07724), see `schedule.interval`.

    Raises `UserError` for a denoiser without ∅, a condition that does not fit it, or another interval.

    >>> denoise = guided(load_denoiser("digits"), [3, 13], w=2.0)   # doctest: +SKIP
    """
    return Guided(denoiser, condition, w, null, interval)


def guidance_weight(guidance_scale: float) -> float:
    """w = s − 1 of Stable Diffusion's `guidance_scale` s: u + s (c − u) = (1 + w) c − w u.

    >>> guidance_weight(7.5)
    6.5
    """
    return guidance_scale - 1


class Guided:
    """The denoiser that `guided` returns, with what it was given and what its `model` knows."""

    def __init__(
        self,
        model: Any,
        condition: Sequence[int] | Tensor,
        w: float,
        null: int | Tensor | None,
        interval: tuple[int, int] | None,
    ):
        self.model, self.w, self.interval = model, float(w), interval
        self.schedule, self.shape = getattr(model, "schedule", None), getattr(model, "shape", None)
        self.name = getattr(model, "name", "")
        null = getattr(model, "null", None) if null is None else null
        wanted = "load it with load_denoiser(…), give null=…, or sample without guided(…) if it takes no condition"
        check(null is not None, f"this network does not say what stands for no condition; {wanted}")
        ends = (0, 0) if interval is None else tuple(interval)
        fits = len(ends) == 2 and all(isinstance(t, Integral) and abs(t) < 2**31 for t in ends) and ends[0] <= ends[1]
        advice = "give whole timesteps (lo, hi); schedule.interval(…) makes them of noise levels"
        check(fits, f"the guidance interval is {interval}; {advice}")
        null, wanted = torch.as_tensor(null), "a condition is a tensor (B, …), one embedding for each image, not words"
        numbered = null.numel() == 1 and is_whole(null)
        self.condition = labels(condition, int(null)) if numbered else as_tensor(condition, wanted)
        check(self.condition.ndim, wanted)
        self.null = null if null.ndim == self.condition.ndim else null.expand(len(self.condition), *null.shape)
        given, empty = tuple(self.condition.shape), tuple(self.null.shape)
        alike = given[1:] == empty[1:] and empty[0] in (1, given[0])
        check(alike, f"the condition is {given} and ∅ is {empty}; they must be alike")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """ε̃, (B, C, H, W), for x (B, C, H, W) and t (B,). Raises `UserError` unless B conditions were given."""
        count = len(self.condition)
        check(len(x) == count, f"{count} labels or embeddings for {len(x)} images; give one for each image")
        self.condition, self.null = c, null = self.condition.to(x.device), self.null.to(x.device)
        w: float | Tensor = self.w
        if w and self.interval is not None:
            inside = (t >= self.interval[0]) & (t <= self.interval[1])
            w = w * inside.reshape(-1, *[1] * (x.ndim - 1)) if inside.any() else 0.0
        if isinstance(w, float) and w == 0:
            return self.model(x, t, c)
        both = self.model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([c, null.expand_as(c)]))
        eps_c, eps_u = both.to(x.dtype).chunk(2)  # before the sum: w would multiply the rounding of bfloat16
        return (1 + w) * eps_c - w * eps_u


def labels(given: Sequence[int] | Tensor, null: int) -> Tensor:
    """Class labels as (B,) int64. Raises `UserError` unless they are whole numbers from 0 to `null`.

    >>> labels([3, 20], null=20)
    tensor([ 3, 20])
    """
    found = as_tensor(given, ONE_LABEL)
    check(found.ndim == 1 and is_whole(found), ONE_LABEL)
    if len(wrong := found[(found < 0) | (found > null)]):
        raise UserError(f"label {wrong[0]} is out of range; labels run from 0 to {null - 1} ({null} means no label)")
    return found.to(torch.int64)


def drop_labels(labels: Tensor, p: float, null: int, generator: torch.Generator) -> Tensor:
    """Replace each label, (B,) int64, by `null`, ∅, with probability p (Ho, Salimans, algorithm 1).

    The generator may be on the CPU. Raises `UserError` for p outside [0, 1].

    >>> drop_labels(torch.tensor([3, 13]), p=1.0, null=20, generator=torch.Generator())
    tensor([20, 20])
    """
    check(0 <= p <= 1, f"the probability of dropping a label is {p}; it must be between 0 and 1")
    dropped = torch.rand(labels.shape, generator=generator, device=generator.device) < p
    return labels.masked_fill(dropped.to(labels.device), null)
