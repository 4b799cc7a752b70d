"""Perturbed-attention guidance (Ahn et al., arXiv 2403.17377): guidance for a network that knows no classes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import check
from .unet import SelfAttention


class PerturbedAttention(Denoiser):
    """The denoiser ε̃ = ε(x_t) + s (ε(x_t) − ε̂(x_t)), two forward passes (arXiv 2403.17377, sec. 4).

    ε̂ is the same network with the identity in the place of every attention matrix, so that no place knows of another:
    it draws parts, but not where they belong. The step from ε̂ to ε, taken on by s, puts them in place.

    - denoiser: of a network of ours that has self-attention; it is not changed.
    - s: guidance scale, 0 or more; 0: the denoiser alone, one pass.

    Raises `UserError` for a negative s, and for a network without such attention.

    >>> denoise = PerturbedAttention(load_denoiser("faces"), s=0.5)   # doctest: +SKIP
    """

    def __init__(self, denoiser: Denoiser, s: float = 0.5):
        super().__init__(
            denoiser.model,
            denoiser.schedule,
            denoiser.prediction,
            shape=denoiser.shape,
            null=denoiser.null,
            name=denoiser.name,
            facts=denoiser.facts,
        )
        check(s >= 0, f"the guidance scale is {s}; it must be 0 or more")
        there = any(isinstance(module, SelfAttention) for module in self.model.modules())
        check(there, f"the network '{self.name or type(self.model).__name__}' has no self-attention to guide it by")
        self.s = float(s)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """ε̃, (B, C, H, W); arguments as of `Denoiser`."""
        eps = super().forward(x, t, condition)
        if not self.s:
            return eps
        with attending_alone(self.model):
            perturbed = super().forward(x, t, condition)
        return eps + self.s * (eps - perturbed)


@contextmanager
def attending_alone(model: nn.Module) -> Iterator[None]:
    """Within it, every place in a `SelfAttention` of the model attends to itself alone; restored afterwards.

    >>> attention = SelfAttention(8)
    >>> with attending_alone(attention):
    ...     attention.alone
    True
    >>> attention.alone
    False
    """
    changed = [module for module in model.modules() if isinstance(module, SelfAttention) and not module.alone]
    for module in changed:
        module.alone = True
    try:
        yield
    finally:
        for module in changed:
            module.alone = False
