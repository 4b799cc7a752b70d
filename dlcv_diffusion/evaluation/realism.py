"""How far samples are from real images, beside how far two sets of real images are from each other."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from torch import Tensor

from .frechet import frechet_distance
from .neighbours import share_within


@dataclass(frozen=True, kw_only=True)
class Realism:
    """Samples beside held-out images, in an encoder's features; the `_real` ones: two real sets of the same size.

    - frechet, frechet_real: Fréchet distances. The latter is not zero: so much do sets of so few differ by chance.
    - recall, recall_real: the share of held-out images that lie among the samples, or among other real images.
    """

    frechet: float = math.nan
    frechet_real: float = math.nan
    recall: float = math.nan
    recall_real: float = math.nan

    @property
    def frechet_ratio(self) -> float:
        """1: not to be told from other real images; the higher, the less varied, or the more wrong."""
        return self.frechet / self.frechet_real if self.frechet_real else math.inf

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for results files: null for what could not be measured."""
        found = {**asdict(self), "frechet_ratio": self.frechet_ratio}
        return {name: None if value != value else value for name, value in found.items()}


def realism(draws: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Realism:
    """Medians over random draws of (samples, held-out images, other real images), features (n, D) of equal sizes.

    >>> realism([(samples, held_out, other)])   # doctest: +SKIP
    Realism(frechet=0.5, frechet_real=0.25, recall=0.62, recall_real=0.71)
    """
    found = [
        (frechet_distance(a, b), frechet_distance(b, c), share_within(b, a), share_within(b, c)) for a, b, c in draws
    ]
    names = ("frechet", "frechet_real", "recall", "recall_real")
    return Realism(**dict(zip(names, map(median, zip(*found, strict=True)), strict=True)))
