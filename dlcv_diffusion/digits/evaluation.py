"""How good are digit samples? Read by the judge (are they the digit that was asked for?), compared with held-out images
by the Fréchet distance (are they as varied?), and looked up among the training images (are they copies?).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from ..errors import UserError
from .course import HALVES
from .judge import Judge, check_images, default_judge

HALF_NAMES = {"mnistm": "MNIST-M", "svhn": "street digits"}
FRECHET_DRAWS = 20  # random draws of real images that a Fréchet distance is the median of
FRECHET_LEAST = 100  # with fewer images than this a covariance in 48 dimensions says nothing


@dataclass(frozen=True)
class HalfAccuracy:
    """How many of `count` images of one half the judge reads as their label says.

    - accuracy: the share of them; per_digit: the share for each digit, NaN where there was no image of it.
    - confusion: (10, 10) counts, row: the digit asked for, column: the digit read.
    """

    count: int
    accuracy: float
    per_digit: list[float]
    confusion: list[list[int]]


@dataclass(frozen=True)
class Nearest:
    """Distances to the nearest training image, root mean square over all values, in grey levels of 255.

    - median, smallest: of the samples; real_median, real_smallest: of held-out images, the yardstick.

    A model that copies has samples much nearer to the training images than real images that it was not trained on.
    """

    median: float
    smallest: float
    real_median: float
    real_smallest: float


@dataclass(frozen=True)
class HalfReport(HalfAccuracy):
    """`HalfAccuracy`, and how far the samples are from real images.

    - frechet: Fréchet distance between the samples and held-out images, in the judge's features.
    - frechet_real: the same between two sets of held-out images of the same size and labels. It is not zero: this is
      what a set of so few images differs by chance.
    - nearest: distances to the training images, where these were given.
    """

    frechet: float = math.nan
    frechet_real: float = math.nan
    nearest: Nearest | None = None

    @property
    def frechet_ratio(self) -> float:
        """1: not to be told from another draw of real images; the higher, the less varied, or the more wrong."""
        return self.frechet / self.frechet_real


@dataclass(frozen=True)
class DigitsReport:
    """What `evaluate_digits` found, by half ("mnistm", "svhn"); print it for a table."""

    halves: dict[str, HalfReport] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Mean of the halves' accuracies: the course's score."""
        return sum(half.accuracy for half in self.halves.values()) / len(self.halves)

    def as_dict(self) -> dict[str, dict]:
        """Plain JSON, for results files."""
        return {name: {**asdict(half), "frechet_ratio": half.frechet_ratio} for name, half in self.halves.items()}

    def __str__(self) -> str:
        lines = [f"{'':15}{'images':>7}{'accuracy':>10}{'Fréchet':>9}{'real':>7}{'ratio':>7}   a digit, 0 … 9 (%)"]
        for name, half in self.halves.items():
            digits = " ".join("  –" if math.isnan(share) else f"{100 * share:3.0f}" for share in half.per_digit)
            lines.append(
                f"{HALF_NAMES[name]:15}{half.count:7}{100 * half.accuracy:9.1f}%{_number(half.frechet):>9}"
                f"{_number(half.frechet_real):>7}{_number(half.frechet_ratio):>7}   {digits}"
            )
        for name, half in self.halves.items():
            if half.nearest is not None:
                near = half.nearest
                lines.append(
                    f"nearest training image, {HALF_NAMES[name]}: {near.median:.1f} grey levels away in the median, "
                    f"{near.smallest:.1f} at least (held-out images: {near.real_median:.1f}, {near.real_smallest:.1f})"
                )
        return "\n".join(lines)


def judge_accuracy(
    images: Tensor, labels: Sequence[int] | Tensor, judge: Judge | None = None
) -> dict[str, HalfAccuracy]:
    """How well the judge reads images as the digits they should be, for each half that occurs.

    - images: uint8 (N, 3, 28, 28); labels: (N,) integers 0-19, digit + 10 · half.
    - judge: the package's own by default.

    Raises `UserError` for images of another kind, or labels that do not go with them.

    >>> judge_accuracy(images, labels)["mnistm"].accuracy   # doctest: +SKIP
    0.984
    """
    judge = judge or default_judge()
    images, labels = _checked(images, labels)
    found = {}
    for half, rows in _rows_of_halves(labels):
        read, _ = judge.read(images[rows], half)
        found[HALVES[half]] = accuracy_of_reading(read, labels[rows] % 10)
    return found


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance between two sets of features (n, D) and (m, D), each taken for a Gaussian.

        d² = |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)

    (Dowson and Landau 1982; with Inception features it is the FID of Heusel et al., arXiv 1706.08500, eq. 6, which
    is this d², not its root). In float64. With few features the covariances are noisy and d² is too large by about the
    same amount for any two sets of the same sizes: compare it only with a d² of the same sizes.

    Raises `UserError` for sets of fewer than two features, or of different D.

    >>> a = torch.tensor([[-1.0], [1.0]])
    >>> frechet_distance(a, a + 3)
    9.0
    """
    gaussians = []
    for features in (features_a, features_b):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != features_a.shape[1]:
            raise UserError(
                f"a Fréchet distance needs two sets of at least two features, (n, D) and (m, D), "
                f"not {tuple(features_a.shape)} and {tuple(features_b.shape)}"
            )
        features = features.detach().cpu().double()
        gaussians.append((features.mean(0), features.T.cov()))
    return gaussian_frechet_distance(*gaussians[0], *gaussians[1])


def gaussian_frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """d² of `frechet_distance` for two Gaussians, means (D,) and covariances (D, D) in float64.

    tr (Σ_a Σ_b)^½ = tr (Σ_a^½ Σ_b Σ_a^½)^½, whose matrices are symmetric: no complex square root is needed.

    >>> one = torch.eye(3, dtype=torch.float64)
    >>> gaussian_frechet_distance(torch.zeros(3), one, torch.zeros(3), 4 * one)
    3.0
    """
    cov_a, cov_b = cov_a.reshape(len(mean_a), -1), cov_b.reshape(len(mean_b), -1)  # `cov` of one row is a number
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    trace_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_root
    return max(0.0, distance.item())


def frechet_to_held_out(
    features: Tensor, digits: Tensor, half: int, judge: Judge | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """(d² of features to held-out images, d² of held-out images to others of them), sets of the same size and labels.

    - features: (n, D) from `Judge.read`; digits: (n,) 0-9, what they should be.
    - half: 0 or 1; seed: which held-out images are drawn.

    For each digit as many images are drawn from either side: all there are, up to half of the judge's reference (50 a
    digit), since two sets of real images that do not overlap are needed. Both numbers are medians over 20 draws, and
    in both the small sets add the same bias. NaN for fewer than 100 images.

    >>> to_real, between_real = frechet_to_held_out(features, digits, half=0)   # doctest: +SKIP
    """
    reference = (judge or default_judge()).reference[half].float().cpu()
    generator = torch.Generator().manual_seed(seed)
    to_real, between_real = [], []
    for _ in range(FRECHET_DRAWS):
        sampled, real, others = [], [], []
        for digit in range(10):
            rows = (digits == digit).nonzero().flatten()
            n = min(len(rows), reference.shape[1] // 2)
            sampled.append(features[rows[torch.randperm(len(rows), generator=generator)[:n]]])
            order = torch.randperm(reference.shape[1], generator=generator)
            real.append(reference[digit, order[:n]])
            others.append(reference[digit, order[n : 2 * n]])
        sampled, real, others = torch.cat(sampled), torch.cat(real), torch.cat(others)
        if len(sampled) < FRECHET_LEAST:
            return math.nan, math.nan
        to_real.append(frechet_distance(sampled, real))
        between_real.append(frechet_distance(real, others))
    return _median(to_real), _median(between_real)


def nearest_neighbours(
    samples: Tensor, reference: Tensor, k: int = 1, *, batch_size: int = 20_000
) -> tuple[Tensor, Tensor]:
    """For each sample the k nearest of the reference images, pixel by pixel: was something copied?

    - samples: uint8 (N, C, H, W); reference: uint8 (M, C, H, W), M ≥ k.
    - Returns indices (N, k) int64 into the reference, nearest first, and distances (N, k) float32: root mean square
      over the C·H·W values, in grey levels of 255. 0 is an exact copy.

    Raises `UserError` for images of different shapes, or fewer than k of them.

    >>> images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    >>> nearest_neighbours(images[:1], images, k=2)
    (tensor([[0, 1]]), tensor([[0., 1.]]))
    """
    if samples.dtype != torch.uint8 or reference.dtype != torch.uint8 or samples.shape[1:] != reference.shape[1:]:
        raise UserError(
            f"neighbours are looked for among uint8 images of one shape (N, C, H, W), not {tuple(samples.shape)} "
            f"and {tuple(reference.shape)}"
        )
    if not 1 <= k <= len(reference):
        raise UserError(f"cannot find {k} neighbours among {len(reference)} images")
    a = samples.flatten(1).float() - 127.5  # centred: the sums of squares stay small enough for float32
    best = torch.full((len(a), 0), math.inf)
    rows = torch.empty((len(a), 0), dtype=torch.int64)
    for first in range(0, len(reference), batch_size):
        b = reference[first : first + batch_size].flatten(1).float() - 127.5
        # |a − b|² = |a|² + |b|² − 2 a·b, of which |a|² is the same for all
        squares = torch.addmm(b.square().sum(1), a, b.T, alpha=-2)
        near = squares.topk(min(k, len(b)), largest=False)
        best, rows = torch.cat([best, near.values], 1), torch.cat([rows, near.indices + first], 1)
        keep = best.topk(min(k, best.shape[1]), largest=False).indices
        best, rows = best.gather(1, keep), rows.gather(1, keep)
    # once more without the rounding of that sum, so that a copy is at 0
    chosen = reference.flatten(1)[rows].float()
    distances = (samples.flatten(1).float()[:, None] - chosen).square().mean(-1).sqrt()
    distances, order = distances.sort(dim=1)
    return rows.gather(1, order), distances


def nearest_training(samples: Tensor, training: Tensor, held_out: Tensor) -> Nearest:
    """Distances of samples, and of held-out images, to the nearest training image; all uint8 (N, C, H, W).

    >>> nearest_training(samples, training.images, held_out.images)   # doctest: +SKIP
    Nearest(median=31.2, smallest=9.8, real_median=30.4, real_smallest=8.1)
    """
    (_, sampled), (_, real) = nearest_neighbours(samples, training), nearest_neighbours(held_out, training)
    return Nearest(sampled.median().item(), sampled.min().item(), real.median().item(), real.min().item())


def evaluate_digits(
    images: Tensor,
    labels: Sequence[int] | Tensor,
    *,
    judge: Judge | None = None,
    training: tuple[Tensor, Tensor] | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> DigitsReport:
    """Everything at once about digit samples: accuracy, confusion, Fréchet distance and, on request, copies.

    - images: uint8 (N, 3, 28, 28); labels: (N,) integers 0-19, digit + 10 · half.
    - judge: the package's own by default. seed: which held-out images the Fréchet distance draws.
    - training, held_out: (images, labels) of the real data; with both, the nearest training images are looked up.

    Raises `UserError` for images of another kind, or labels that do not go with them.

    >>> print(evaluate_digits(images, labels))   # doctest: +SKIP
                    images  accuracy  Fréchet   real  ratio   a digit, 0 … 9 (%)
    MNIST-M            500     98.4%     3.51   0.91   3.86    98 100  98  96 100  98 100  98  96 100
    street digits      500     99.8%     2.02   0.85   2.38   100 100 100 100 100 100 100 100  98 100
    """
    judge = judge or default_judge()
    images, labels = _checked(images, labels)
    halves = {}
    for half, rows in _rows_of_halves(labels):
        digits = labels[rows] % 10
        read, features = judge.read(images[rows], half)
        frechet, real = frechet_to_held_out(features, digits, half, judge, seed=seed)
        nearest = None
        if training is not None and held_out is not None:
            of_half = [data[0][torch.as_tensor(data[1]) // 10 == half] for data in (training, held_out)]
            if all(len(data) for data in of_half):
                nearest = nearest_training(images[rows], *of_half)
        accuracy = accuracy_of_reading(read, digits)
        halves[HALVES[half]] = HalfReport(**asdict(accuracy), frechet=frechet, frechet_real=real, nearest=nearest)
    return DigitsReport(halves)


def accuracy_of_reading(read: Tensor, digits: Tensor) -> HalfAccuracy:
    """`HalfAccuracy` from the digits read and the digits asked for, both (N,) int64 0-9.

    >>> accuracy_of_reading(torch.tensor([1, 7, 7]), torch.tensor([1, 1, 7])).per_digit[1]
    0.5
    """
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    confusion.index_put_((digits, read), torch.ones_like(digits), accumulate=True)
    counts, right = confusion.sum(1), confusion.diagonal()
    per_digit = (right / counts).tolist()
    return HalfAccuracy(len(digits), (right.sum() / counts.sum()).item(), per_digit, confusion.tolist())


def _rows_of_halves(labels: Tensor) -> list[tuple[int, Tensor]]:
    rows = [(half, (labels // 10 == half).nonzero().flatten()) for half in range(len(HALVES))]
    return [(half, found) for half, found in rows if len(found)]


def _checked(images: Tensor, labels: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
    images, labels = check_images(images), torch.as_tensor(labels)
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.min() < 0 or labels.max() > 19:
        raise UserError(
            f"{len(images)} images need as many labels, whole numbers from 0 to 19 (digit, plus 10 for the second half)"
        )
    return images.cpu(), labels.to(torch.int64).cpu()


def _median(values: list[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
