"""How good are digit samples? Read by the judge (are they the digit that was asked for?), compared with held-out images
(are they as varied?), and looked up among the training images (are they copies?).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..evaluation.accuracy import Accuracy, accuracy_of, class_labels
from ..evaluation.encoder import checked_images
from ..evaluation.neighbours import Nearest, nearest_training
from ..evaluation.realism import Realism, realism
from .course import HALF_FOLDERS
from .judge import SHAPE, Judge, default_judge

DRAWS = 20  # random draws of real images that a Fréchet distance is the median of
FEWEST = 100  # with fewer images than this a covariance in 48 dimensions says nothing


@dataclass(frozen=True, kw_only=True)
class HalfReport(Realism, Accuracy):
    """`Accuracy` by the judge's reading, `Realism` in its features, and distances to the training images, if given."""

    nearest: Nearest | None = None


@dataclass(frozen=True)
class DigitsReport:
    """What `evaluate_digits` found, by half ("mnistm", "svhn"); print it for a table."""

    halves: dict[str, HalfReport] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Mean of the halves' accuracies: the course's score."""
        return sum(half.accuracy for half in self.halves.values()) / len(self.halves)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Plain JSON, for results files."""
        return {name: half.as_dict() for name, half in self.halves.items()}

    def __str__(self) -> str:
        columns = f"{'Fréchet':>9}{'real':>7}{'ratio':>7}{'recall':>8}{'real':>7}"
        lines = [f"{'':8}{'images':>7}{'accuracy':>10}{columns}   a digit, 0 … 9 (%)"]
        for name, half in self.halves.items():
            distance = f"{half.frechet:9.2f}{half.frechet_real:7.2f}{half.frechet_ratio:7.2f}"
            lines.append(table_line(name, half, f"{distance}{half.recall:8.2f}{half.recall_real:7.2f}"))
        near = {name: half.nearest for name, half in self.halves.items() if half.nearest is not None}
        return "\n".join([*lines, *(f"nearest training image, {name}: {near[name]}" for name in near)])


def table_line(name: str, half: Accuracy, columns: str = "") -> str:
    """A half's line in a report or grade: its folder's name, images, accuracy, more columns, each digit's accuracy.

    >>> table_line("svhn", accuracy_of(torch.tensor([3]), torch.tensor([3]), 10))
    'svhn          1    100.0%     –   –   – 100   –   –   –   –   –   –'
    """
    digits = " ".join(f"{100 * share:3.0f}" for share in half.per_class)
    return f"{name:8}{half.count:7}{100 * half.accuracy:9.1f}%{columns}   {digits}".replace("nan", "  –")


def judge_accuracy(images: Tensor, labels: Sequence[int] | Tensor, judge: Judge | None = None) -> dict[str, Accuracy]:
    """How well the judge reads images as the digits they should be, for each half that occurs.

    - images: uint8 (N, 3, 28, 28); labels: (N,) integers 0-19, digit + 10 · half.
    - judge: the package's own by default.

    Raises `UserError` for images of another kind, or labels that do not go with them.

    >>> judge_accuracy(images, labels)["mnistm"].accuracy   # doctest: +SKIP
    0.984
    """
    judge = judge or default_judge()
    halves = ((HALF_FOLDERS[half], half, *rows) for half, rows in by_half(images, labels).items())
    return {name: accuracy_of(judge.read(images, half)[0], digits, 10) for name, half, images, digits in halves}


def against_held_out(features: Tensor, digits: Tensor, half: int, judge: Judge, *, seed: int = 0) -> Realism:
    """`Realism` of samples beside held-out images with the same labels, in the judge's features.

    - features: (n, D) from `Judge.read`; digits: (n,) 0-9, what they should be.
    - half: 0 or 1; seed: which held-out images are drawn.

    For each digit as many images are drawn of either kind: all there are, up to half of the judge's reference (50 a
    digit), since two sets of real images that do not overlap are needed. All numbers are medians over 20 draws. NaN for
    fewer than 100 images.

    >>> against_held_out(features, digits, 0, load_judge()).frechet_ratio   # doctest: +SKIP
    1.83
    """
    draws = list(_draws(features, digits, judge.reference[half].cpu(), seed))
    return realism(draws) if len(draws[0][0]) >= FEWEST else Realism()


def _draws(features: Tensor, digits: Tensor, reference: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features of samples, of as many held-out images of the same digits, and of as many others of these."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(DRAWS):
        sets = []
        for digit, real in enumerate(reference):
            rows = (digits == digit).nonzero().flatten()
            n = min(len(rows), len(real) // 2)
            chosen = rows[torch.randperm(len(rows), generator=generator)[:n]]
            order = torch.randperm(len(real), generator=generator)
            sets.append((features[chosen], real[order[:n]], real[order[n : 2 * n]]))
        yield tuple(torch.cat(parts) for parts in zip(*sets, strict=True))


def evaluate_digits(
    images: Tensor,
    labels: Sequence[int] | Tensor,
    *,
    judge: Judge | None = None,
    training: tuple[Tensor, Tensor] | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> DigitsReport:
    """Everything at once about digit samples: accuracy, confusion, Fréchet distance, recall and, on request, copies.

    - images: uint8 (N, 3, 28, 28); labels: (N,) integers 0-19, digit + 10 · half.
    - judge: the package's own by default. seed: which held-out images are drawn to compare with.
    - training, held_out: (images, labels) of the real data; with both, the nearest training images are looked up.

    Raises `UserError` for images of another kind, or labels that do not go with them.

    >>> print(evaluate_digits(images, labels))   # doctest: +SKIP
            images  accuracy  Fréchet   real  ratio  recall   real   a digit, 0 … 9 (%)
    mnistm     500     99.2%     0.16   0.09   1.83    0.71   0.80   100 100  98  98 100 100 100 100  98  98
    svhn       500    100.0%     0.11   0.04   2.47    0.66   0.79   100 100 100 100 100 100 100 100 100 100
    """
    judge = judge or default_judge()
    real = [by_half(*data) for data in (training, held_out) if data is not None]
    halves = {}
    for half, (samples, digits) in by_half(images, labels).items():
        read, features = judge.read(samples, half)
        of_half = [data[half][0] for data in real if half in data]
        halves[HALF_FOLDERS[half]] = HalfReport(
            **asdict(accuracy_of(read, digits, classes=10)),
            **asdict(against_held_out(features, digits, half, judge, seed=seed)),
            nearest=nearest_training(samples, *of_half) if len(of_half) == 2 else None,
        )
    return DigitsReport(halves)


def by_half(images: Tensor, labels: Sequence[int] | Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """The images and their digits 0-9 of each half that occurs; `UserError` for what does not go together.

    >>> list(by_half(torch.zeros(2, 3, 28, 28, dtype=torch.uint8), [3, 4]))
    [0]
    """
    images = checked_images(images, SHAPE).cpu()
    halves = (labels := class_labels(labels, len(images), 10 * len(HALF_FOLDERS))) // 10
    return {half: (images[halves == half], labels[halves == half] % 10) for half in halves.unique().tolist()}
