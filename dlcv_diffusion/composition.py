"""One picture told by several sentences, each of them everywhere or in its own place."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import check


def composed(
    denoiser: Callable[..., Tensor],
    conditions: Sequence[Tensor],
    scales: float | Sequence[float] = 3.0,
    *,
    masks: Sequence[Tensor] | None = None,
    null: Tensor | None = None,
) -> "Composed":
    """The denoiser ε̃ = ε(x_t, ∅) + Σ_i s_i M_i ⊙ (ε(x_t, c_i) − ε(x_t, ∅)), one forward pass of (n + 1)B.

    With M_i = 1 it is Liu et al.'s conjunction (arXiv 2206.01714, eq. 11): the picture is to fit each sentence. With
    masks whose sum is 1 each sentence tells its own part of the picture, as in MultiDiffusion (Bar-Tal et al., arXiv
    2302.08113, eq. 5) with one window. Of one condition it is `guided` with w = s − 1.

    - denoiser: a `Denoiser` that takes embeddings, or any `denoise(x, t, condition) -> eps`, with `null`.
    - conditions: embeddings (B, …), for each sentence those of all B pictures. scales: s, of all or of each.
    - masks: for each sentence (H, W) or (B, 1, H, W), see `halves`; 1 by default.

    Raises `UserError` for no condition, for other numbers of scales or masks, for masks of another size, and for a
    denoiser whose ∅ is no embedding.

    >>> fox, owl = (sd.encode_prompts([said] * 4) for said in ("a fox", "an owl"))   # doctest: +SKIP
    >>> denoise = composed(sd, [fox, owl], masks=halves(*sd.shape[1:]))              # doctest: +SKIP
    """
    return Composed(denoiser, conditions, scales, masks, null)


class Composed:
    """The denoiser that `composed` returns, with what its `model` knows."""

    def __init__(
        self,
        model: Any,
        conditions: Sequence[Tensor],
        scales: float | Sequence[float],
        masks: Sequence[Tensor] | None,
        null: Tensor | None,
    ):
        count = len(conditions)
        check(count, "there is no condition to compose; give one or more")
        self.scales = [float(scales)] * count if isinstance(scales, int | float) else [float(s) for s in scales]
        self.masks = [1.0] * count if masks is None else list(masks)
        fits = len(self.scales) == len(self.masks) == count
        check(fits, f"{count} conditions, {len(self.scales)} scales and {len(self.masks)} masks; give as many of each")
        self.model, self.schedule, self.shape = model, getattr(model, "schedule", None), getattr(model, "shape", None)
        self.name = getattr(model, "name", "")
        null = getattr(model, "null", None) if null is None else null
        check(isinstance(null, Tensor), "no embedding is known that stands for no condition; give null=…")
        first = conditions[0]
        alike = all(each.shape == first.shape for each in conditions) and null.shape in (first.shape, first.shape[1:])
        shapes = ", ".join(str(tuple(each.shape)) for each in conditions)
        check(alike, f"the conditions are {shapes}, and ∅ is {tuple(null.shape)}; they must be alike")
        self.conditions = torch.cat([null.to(first).expand_as(first), *conditions])

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """ε̃, (B, C, H, W), for x (B, C, H, W) and t (B,). Raises `UserError` unless B conditions were given."""
        times = len(self.scales) + 1
        given = len(self.conditions) // times
        check(len(x) == given, f"{given} embeddings a sentence for {len(x)} images; give one for each image")
        for mask in (each for each in self.masks if isinstance(each, Tensor)):
            fits = mask.shape in (x.shape[2:], (len(x), 1, *x.shape[2:]))
            wanted = f"{tuple(x.shape[2:])}, or {(len(x), 1, *x.shape[2:])}"
            check(fits, f"a mask is {tuple(mask.shape)}, and the images are {tuple(x.shape)}; make it {wanted}")
        self.conditions = self.conditions.to(x.device)
        eps = self.model(torch.cat([x] * times), torch.cat([t] * times), self.conditions).to(x.dtype)
        nothing, *told = eps.chunk(times)
        moved = nothing
        for each, scale, mask in zip(told, self.scales, self.masks, strict=True):
            part = mask.to(x) if isinstance(mask, Tensor) else mask
            moved = moved + scale * part * (each - nothing)
        return moved


def halves(height: int, width: int, soft: float = 2.0) -> tuple[Tensor, Tensor]:
    """Masks (H, W) of the left and the right half, whose sum is 1: a ramp `soft` columns wide between them.

    >>> halves(1, 4, soft=2.0)[0]
    tensor([[1.0000, 0.7500, 0.2500, 0.0000]])
    """
    check(soft > 0, f"the ramp between the halves is {soft:g} columns wide; give more than 0")
    columns = torch.arange(width) + 0.5
    left = (0.5 - (columns - width / 2) / soft).clamp(0, 1).expand(height, width)
    return left, 1 - left
