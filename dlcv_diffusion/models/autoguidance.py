"""Autoguidance (Karras et al., arXiv 2406.02507): a network is guided by a bad version of itself."""

import math

from torch import Tensor

from ..denoiser import Denoiser
from ..errors import check


class AutoGuidance(Denoiser):
    """The denoiser ε̃ = ε(x_t) + s (ε(x_t) − ε₀(x_t)), two forward passes (arXiv 2406.02507, eq. 3, with w = 1 + s).

    ε₀ is the same kind of network, trained on the same data, only less. Both make the same mistakes, and ε₀ makes them
    worse: what lies between the two, taken on by s, leads away from them, and, unlike guidance by a class or by
    perturbed attention, not away from what is rare.

    - denoiser: of any network. weaker: of another with the same schedule and images, such as an earlier checkpoint.
    - s: guidance scale, 0 or more.

    Raises `UserError` for another s, for a denoiser that is guided already, and for a weaker one that does not fit.

    >>> denoise = AutoGuidance(load_denoiser("runs/faces/model.safetensors"), weaker, s=1.0)   # doctest: +SKIP
    """

    def __init__(self, denoiser: Denoiser, weaker: Denoiser, s: float = 1.0):
        plain = type(denoiser) is Denoiser and type(weaker) is Denoiser
        check(plain, "autoguidance takes two plain denoisers, such as load_denoiser gives")
        alike = denoiser.schedule.config == weaker.schedule.config and denoiser.shape == weaker.shape
        check(alike, f"the weaker denoiser '{weaker.name}' has other images, or another noise schedule; train it alike")
        check(0 <= s < math.inf, f"the guidance scale is {s}; it must be a number from 0 on")
        super().__init__(
            denoiser.model,
            denoiser.schedule,
            denoiser.prediction,
            shape=denoiser.shape,
            null=denoiser.null,
            name=denoiser.name,
            facts={**denoiser.facts, "autoguidance": float(s), "weaker_step": weaker.facts.get("step")},
        )
        self.s, self.weaker = float(s), weaker

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """ε̃, (B, C, H, W); arguments as of `Denoiser`."""
        eps = super().forward(x, t, condition)
        return eps + self.s * (eps - self.weaker(x, t, condition)) if self.s else eps
