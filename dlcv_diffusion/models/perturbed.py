"""Perturbed-attention guidance (Ahn et al., arXiv 2403.17377): guidance also for networks without classes."""

import math
from copy import deepcopy

from torch import Tensor

from ..denoiser import Denoiser
from ..errors import check
from .unet import SelfAttention


class PerturbedAttention(Denoiser):
    """The denoiser ε̃ = ε(x_t) + s (ε(x_t) − ε̂(x_t)), two forward passes (arXiv 2403.17377, sec. 4.1).

    ε̂ is the same network with the identity in the place of the attention matrices (sec. 4.2): of all of them, where the
    paper chooses some layers, so that s is smaller here. What is left to join places are convolutions: parts stay, and
    their arrangement suffers. The step from ε̂ to ε, taken on by s, puts them in place.

    - denoiser: of a network of ours that has self-attention; its weights are shared, and it is not changed.
    - s: guidance scale, 0 or more; 0: the denoiser alone, one pass.

    Raises `UserError` for another s, for a network without such attention, and for a denoiser that is guided already.

    >>> denoise = PerturbedAttention(load_denoiser("faces"), s=0.5)   # doctest: +SKIP
    """

    def __init__(self, denoiser: Denoiser, s: float = 0.5):
        check(type(denoiser) is Denoiser, "attention guidance takes a plain denoiser, such as load_denoiser gives")
        super().__init__(
            denoiser.model,
            denoiser.schedule,
            denoiser.prediction,
            shape=denoiser.shape,
            null=denoiser.null,
            name=denoiser.name,
            facts={**denoiser.facts, "attention_guidance": float(s)},
        )
        check(0 <= s < math.inf, f"the guidance scale is {s}; it must be a number from 0 on")
        self.s, self.perturbed = float(s), attending_alone(denoiser)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """ε̃, (B, C, H, W); arguments as of `Denoiser`."""
        eps = super().forward(x, t, condition)
        return eps + self.s * (eps - self.perturbed(x, t, condition)) if self.s else eps


def attending_alone(denoiser: Denoiser) -> Denoiser:
    """ε̂: a second denoiser with the same weights, in which every place attends to itself alone.

    Raises `UserError` for a network without self-attention of ours (`models.unet.SelfAttention`).

    >>> spoilt = attending_alone(load_denoiser("faces"))   # doctest: +SKIP
    """
    weights = {id(tensor): tensor for tensor in (*denoiser.model.parameters(), *denoiser.model.buffers())}
    model = deepcopy(denoiser.model, weights)  # what the memo names is shared
    attentions = [module for module in model.modules() if isinstance(module, SelfAttention)]
    name = denoiser.name or type(denoiser.model).__name__
    check(
        attentions, f"the network '{name}' has none of our self-attention to guide it by; take a UNet of this package"
    )
    for attention in attentions:
        attention.alone = True
    return Denoiser(model, denoiser.schedule, denoiser.prediction, shape=denoiser.shape, null=denoiser.null, name=name)
