"""Guidance by worse networks: what the good one has and the worse one has not is taken further."""

import math

import torch
from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import check

GUIDANCE = ("attention_guidance", "attention_guidance_null", "autoguidance", "autoguidance_null", "weaker_step")
"""What facts call the scales, and the step of weaker weights."""


class GuidedByWorse(Denoiser):
    """The denoiser ε̃ = ε(x_t) + Σ_i s_i (ε(x_t) − ε_i(x_t)), one forward pass more for each worse ε_i whose s_i > 0.

    - denoiser: a plain one, such as `load_denoiser` gives, or one that is guided so in another way: the terms add up.
    - worse: ε_i, with the same schedule, images and ∅. s: s_i, 0 or more. s_null: s_i where the condition is ∅, for
      networks with labels; as s by default.
    - facts: of this guidance, and what it is called in the facts of the weights; the first is its s.

    Raises `UserError` for another s, for s_null without labels, for a denoiser that is guided already, otherwise or in
    the same way, and for a worse one that does not fit.

    >>> GuidedByWorse(load_denoiser("faces"), weaker, 0.5, {"autoguidance": 0.5})   # doctest: +SKIP
    """

    def __init__(
        self, denoiser: Denoiser, worse: Denoiser, s: float, facts: dict[str, float | None], s_null: float | None = None
    ):
        check_denoiser(denoiser)
        before = denoiser if isinstance(denoiser, GuidedByWorse) else None
        again = before and facts.keys() & before.guidance.keys()
        check(not again, "the denoiser is guided in this way already; give a plain one, such as load_denoiser gives")
        alike = denoiser.schedule.config == worse.schedule.config and denoiser.shape == worse.shape
        alike = alike and str(denoiser.null) == str(worse.null)
        said = f"the worse denoiser '{worse.name}' has other images, labels, or another noise schedule; train it alike"
        check(alike, said)
        s_null = s if s_null is None else s_null
        for scale in (s, s_null):
            check(0 <= scale < math.inf, f"the guidance scale is {scale}; it must be a number from 0 on")
        labelled = isinstance(denoiser.null, int) or s == s_null
        check(labelled, "a guidance scale of its own for no label needs a network with labels; leave out s_null")
        super().__init__(
            denoiser.model,
            denoiser.schedule,
            denoiser.prediction,
            shape=denoiser.shape,
            null=denoiser.null,
            name=denoiser.name,
            facts={**denoiser.facts, **facts},
        )
        self.guidance = {**(before.guidance if before else {}), **facts}
        self.worse = nn.ModuleList([*(before.worse if before else ()), worse])
        self.scales = [*(before.scales if before else ()), (float(s), float(s_null))]

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """ε̃, (B, C, H, W); arguments as of `Denoiser`."""
        eps, terms = super().forward(x, t, condition), []
        for worse, (s, s_null) in zip(self.worse, self.scales, strict=True):
            if s or s_null:
                scale = s if s == s_null else _scales(s, s_null, x, condition, self.null)  # labels, see __init__
                terms.append(scale * (eps - worse(x, t, condition)))
        return sum(terms, eps)


def check_denoiser(denoiser: Denoiser) -> None:
    """Raise `UserError` unless it is a `Denoiser`, plain or guided by worse ones."""
    fits = type(denoiser) is Denoiser or isinstance(denoiser, GuidedByWorse)
    check(fits, "this guidance takes a plain denoiser, such as load_denoiser gives, or one guided in another way")


def _scales(s: float, s_null: float, x: Tensor, condition: Tensor | None, null: int) -> Tensor:
    """(B, 1, 1, 1): s_null where the label is ∅, or none was given."""
    none = torch.ones(len(x), dtype=torch.bool) if condition is None else condition == null
    return torch.where(none.to(x.device), s_null, s).to(x.dtype)[:, None, None, None]
