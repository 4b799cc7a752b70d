"""Autoguidance (Karras et al., arXiv 2406.02507): a network is guided by a bad version of itself."""

from ..denoiser import Denoiser
from ..errors import check
from .guiding import GuidedByWorse


class AutoGuidance(GuidedByWorse):
    """The denoiser ε̃ = ε(x_t) + s (ε(x_t) − ε₀(x_t)), two forward passes (arXiv 2406.02507, eq. 3, with w = 1 + s).

    ε₀ is the same kind of network, trained on the same data, only less. Both make the same mistakes, and ε₀ makes them
    worse: what lies between the two, taken on by s, leads away from them, and, unlike guidance by a class or by
    perturbed attention, not away from what is rare.

    - denoiser: of any network, plain or guided by perturbed attention. weaker: of another with the same schedule and
      images, such as an earlier checkpoint.
    - s: guidance scale, 0 or more. s_null: s where the condition is the label ∅; as s by default.

    Raises `UserError` for another s, for another s_null without labels, for a denoiser that is guided so already, and
    for a weaker one that does not fit.

    >>> denoise = AutoGuidance(load_denoiser("runs/faces/model.safetensors"), weaker, s=1.0)   # doctest: +SKIP
    """

    def __init__(self, denoiser: Denoiser, weaker: Denoiser, s: float = 1.0, *, s_null: float | None = None):
        check(type(weaker) is Denoiser, "the weaker denoiser is a plain one, such as load_denoiser gives")
        steps = weaker.facts.get("step", weaker.facts.get("train", {}).get("steps"))  # of a run that ended, all of them
        facts = {"autoguidance": float(s), "weaker_step": steps}
        facts |= {} if s_null is None else {"autoguidance_null": float(s_null)}
        super().__init__(denoiser, weaker, s, facts, s_null)
