"""How good are face samples? Compared with held-out faces by the Fréchet distance in the first principal components of
their pixels (are they as varied, and in place?), and looked up among the training faces (are they copies?).
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..errors import UserError
from .digits import Nearest, frechet_distance, nearest_training

COMPONENTS = 100
FRECHET_DRAWS = 5  # random draws of training faces that the yardstick is the median of


@dataclass(frozen=True)
class PixelComponents:
    """The first principal components of real faces' pixels ("eigenfaces", Turk and Pentland 1991).

    - mean: (D,); basis: (K, D) orthonormal rows, the widest direction first; D = C · H · W, pixels 0 … 1.

    >>> components = PixelComponents.of(torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8), count=10)
    >>> components(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([3, 10])
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def of(cls, images: Tensor, count: int = COMPONENTS) -> "PixelComponents":
        """The first `count` components of images uint8 (N, C, H, W), which no random number decides.

        Raises `UserError` for fewer than `count` + 1 images, or images of fewer values than that.
        """
        pixels = _pixels(images)
        if count < 1 or count >= min(len(pixels) + 1, pixels.shape[1] + 1) or len(pixels) <= count:
            raise UserError(f"{len(images)} images have no {count} principal components; give more, or ask for fewer")
        mean = pixels.mean(0)
        _, vectors = torch.linalg.eigh((pixels - mean).T @ (pixels - mean))
        return cls(mean, vectors.flip(1)[:, :count].T.contiguous())

    def __call__(self, images: Tensor) -> Tensor:
        """Coordinates (N, K) of images uint8 (N, C, H, W). Raises `UserError` for images of another size."""
        pixels = _pixels(images)
        if pixels.shape[1] != len(self.mean):
            raise UserError(
                f"these components are of images with {len(self.mean)} values, not {tuple(images.shape[1:])}"
            )
        return (pixels - self.mean) @ self.basis.T


@dataclass(frozen=True)
class FacesReport:
    """What `evaluate_faces` found.

    - frechet: distance of the samples to held-out faces; frechet_real: of as many training faces to the held-out ones,
      which is not zero, since small sets differ by chance.
    - nearest: distances to the nearest training face or its mirror image, beside those of held-out faces.
    """

    count: int
    frechet: float
    frechet_real: float
    nearest: Nearest

    @property
    def frechet_ratio(self) -> float:
        """1: not to be told from another set of real faces; the higher, the less like them."""
        return self.frechet / self.frechet_real if self.frechet_real else math.inf

    def as_dict(self) -> dict:
        """Plain JSON, for results files."""
        return {**asdict(self), "frechet_ratio": self.frechet_ratio}

    def __str__(self) -> str:
        near = self.nearest
        return (
            f"{self.count} faces: Fréchet distance {self.frechet:.2f}, "
            f"{self.frechet_ratio:.1f} times that of two real sets\n"
            f"nearest training face {near.median:.1f} grey levels away in the median, {near.smallest:.1f} at least "
            f"(held-out faces: {near.real_median:.1f}, {near.real_smallest:.1f})"
        )


def evaluate_faces(
    samples: Tensor,
    training: Tensor,
    held_out: Tensor,
    *,
    components: PixelComponents | None = None,
    seed: int = 0,
) -> FacesReport:
    """The Fréchet distance of samples from real faces in the first principal components of pixels, and copies.

    - samples, training, held_out: uint8 (N, C, H, W). As many held-out and training faces as there are samples are
      compared; where fewer are held out, only so many samples are.
    - components: of the training faces, by default their first 100. seed: which training faces make the yardstick, the
      median over 5 draws of the distance between as many training and held-out faces.

    Raises `UserError` for images of different sizes, or too few of them.

    >>> print(evaluate_faces(samples, training.images, held_out.images))   # doctest: +SKIP
    """
    components = components or PixelComponents.of(training)
    count = min(len(samples), len(held_out), len(training))
    real = components(held_out[:count])
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(FRECHET_DRAWS):
        rows = torch.randperm(len(training), generator=generator)[:count]
        draws.append(frechet_distance(components(training[rows]), real))
    return FacesReport(
        count,
        frechet_distance(components(samples[:count]), real),
        torch.tensor(draws, dtype=torch.float64).quantile(0.5).item(),
        nearest_training(samples[:count], torch.cat([training, training.flip(-1)]), held_out[:count]),
    )


def _pixels(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(f"faces are compared as uint8 images (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
    return images.flatten(1).double() / 255
