"""Perturbed-attention guidance (Ahn et al., arXiv 2403.17377): guidance also for networks without classes."""

from copy import deepcopy

from ..denoiser import Denoiser
from ..errors import check
from .guiding import GuidedByWorse, check_denoiser
from .unet import SelfAttention


class PerturbedAttention(GuidedByWorse):
    """The denoiser ε̃ = ε(x_t) + s (ε(x_t) − ε̂(x_t)), two forward passes (arXiv 2403.17377, sec. 4.1).

    ε̂ is the same network with the identity in the place of the attention matrices (sec. 4.2): of all of them, where the
    paper chooses some layers, so that s is smaller here. What is left to join places are convolutions: parts stay, and
    their arrangement suffers. The step from ε̂ to ε, taken on by s, puts them in place.

    - denoiser: of a network of ours that has self-attention; its weights are shared, and it is not changed.
    - s: guidance scale, 0 or more; 0: the denoiser alone, one pass.
    - s_null: s where the condition is the label ∅; as s by default. Classifier-free guidance by w takes (1 + w) times
      what ε(c) was guided by, and w times less what ε(∅) was. With s_null = (1 + w)/w · s the two cancel, as far as
      they are alike: at that w the pictures stay as varied as without s.

    Raises `UserError` for another s, for a network without such attention, and one that is guided so already.

    >>> denoise = PerturbedAttention(load_denoiser("faces"), s=0.5)   # doctest: +SKIP
    """

    def __init__(self, denoiser: Denoiser, s: float = 0.5, *, s_null: float | None = None):
        check_denoiser(denoiser)
        facts = {"attention_guidance": float(s)}
        facts |= {} if s_null is None else {"attention_guidance_null": float(s_null)}
        super().__init__(denoiser, attending_alone(denoiser), s, facts, s_null)


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
