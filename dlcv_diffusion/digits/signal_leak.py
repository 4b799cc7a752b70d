"""Starting where training left off: x_T with the trace of a mean colour that a short schedule leaves in it.

At T = 350 the last training image still holds √ᾱ_T = 17 % of its picture (see `NoiseSchedule`), so that what is sampled
from N(0, I) comes out half bright. The cure is to start as training did (Everaert et al., arXiv 2309.15842):

    x_T = √ᾱ_T c + √(1 − ᾱ_T) ε,   c ~ N(μ, Σ),   ε ~ N(0, I)

where c is one colour for the whole image, and μ and Σ are measured on the training images of each half.
"""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..declared import declared
from ..errors import check
from ..schedule import NoiseSchedule


@declared
class SignalLeak:
    """Mean colours of training images: for each group of `classes` labels in a row, N(mean, covariance).

    - mean: a list of C numbers a group, in [−1, 1]; covariance: a list of C × C numbers a group. Plain JSON, to be
      saved with the weights.

    >>> leak = SignalLeak(classes=10, mean=[[0.1] * 3, [0.0] * 3], covariance=[np.eye(3).tolist()] * 2)
    >>> leak.colours(labels=[3, 13], seeds=[0, 0]).shape
    torch.Size([2, 3])
    """

    classes: Annotated[int, Field(ge=1)]
    mean: Annotated[list[list[float]], Field(min_length=1)]
    covariance: list[list[list[float]]]

    def __post_init__(self) -> None:
        C, groups = len(self.mean[0]), len(self.mean) == len(self.covariance)
        sizes = {len(part) for group in zip(self.mean, self.covariance, strict=False) for part in (*group, *group[1])}
        fits = groups and sizes == {C} and C > 0 and np.linalg.eigvalsh(self.covariance).min() > -1e-4
        check(fits, "mean colours are C numbers a group, and their covariances C × C numbers, none of them negative")

    @classmethod
    def measure(cls, images: Tensor, labels: Tensor, classes: int = 10) -> "SignalLeak":
        """From uint8 images (N, C, H, W) and their labels (N,); `classes` labels in a row share their statistics.

        Raises `UserError` where a group has fewer than two images.
        """
        mean, covariance = [], []
        for group in range(int(labels.max()) // classes + 1):
            chosen = images[labels // classes == group]
            check(len(chosen) >= 2, f"labels {group * classes} and up have {len(chosen)} images; mean colours need two")
            colours = chosen.double().mean((2, 3)) / 127.5 - 1
            mean.append([round(value, 4) for value in colours.mean(0).tolist()])
            covariance.append(
                [[round(value, 5) for value in row] for row in colours.T.cov().reshape(-1, len(mean[0])).tolist()]
            )
        return cls(classes, mean, covariance)

    def colours(self, labels: Iterable[int] | Tensor, seeds: Iterable[int]) -> Tensor:
        """c, (B, C) float32 on the CPU: one colour for each image, which depends on its seed and label alone."""
        rows = []
        for label, seed in zip(torch.as_tensor(list(labels)).tolist(), seeds, strict=True):
            # an image without a label takes the colours of a group that is chosen at random
            random = np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=(2,)))
            z, any_group = random.standard_normal(len(self.mean[0])), random.integers(len(self.mean))
            group = label // self.classes if label < self.classes * len(self.mean) else any_group
            covariance = np.array(self.covariance[group])  # rounded: its least eigenvalue may lie below 0
            lift = 1e-9 - min(0.0, np.linalg.eigvalsh(covariance)[0])
            factor = np.linalg.cholesky(covariance + lift * np.eye(len(z)))
            rows.append(np.array(self.mean[group]) + factor @ z)
        return torch.tensor(np.array(rows), dtype=torch.float32).clamp(-1, 1)

    def start(
        self, eps: Tensor, labels: Iterable[int] | Tensor, seeds: Iterable[int], schedule: NoiseSchedule
    ) -> Tensor:
        """x_T, (B, C, H, W), from eps ~ N(0, I): `schedule.add_noise(colour, eps, T − 1)` on the device of eps.

        >>> x_T = leak.start(seeded_noise((2, 3, 28, 28), [0, 1]), [3, 13], [0, 1], schedule)   # doctest: +SKIP
        """
        channels = len(self.mean[0])
        check(channels == eps.shape[1], f"mean colours of {channels} channels do not fit images of {eps.shape[1]}")
        colours = self.colours(labels, seeds)[:, :, None, None].to(eps)
        return schedule.add_noise(colours.expand_as(eps), eps, schedule.T - 1)
