"""How good are face samples? Compared with held-out faces by the Fréchet distance in the first principal components of
their pixels (are they as varied, and in place?), and looked up among the training faces (are they copies?).
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..digits.evaluation import Nearest, frechet_distance, nearest_neighbours, nearest_training
from ..errors import UserError

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
        if not 1 <= count < min(len(pixels), pixels.shape[1] + 1):
            raise UserError(f"{len(images)} images have no {count} principal components; give more, or ask for fewer")
        mean = pixels.mean(0)
        centred = pixels - mean
        if len(pixels) >= pixels.shape[1]:
            _, vectors = torch.linalg.eigh(centred.T @ centred)
            return cls(mean, vectors.flip(1)[:, :count].T.contiguous())
        # fewer images than pixels: XXᵀ is the smaller matrix, and Xᵀu is an eigenvector of XᵀX for each u of its own
        _, vectors = torch.linalg.eigh(centred @ centred.T)
        basis = vectors.flip(1)[:, :count].T @ centred
        return cls(mean, basis / basis.norm(dim=1, keepdim=True))

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
    - sharpness: mean squared difference of neighbouring pixels, as a multiple of held-out faces'.
    - soft_median: of held-out faces that were blurred until they are as soft as the samples, the median distance to the
      nearest training face. A soft picture is nearer to all others; so this is what samples that are nobody's copies
      come to.
    """

    count: int
    frechet: float
    frechet_real: float
    nearest: Nearest
    sharpness: float
    soft_median: float

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
            f"(held-out faces: {near.real_median:.1f}, {near.real_smallest:.1f}; made as soft as the samples, with "
            f"{self.sharpness:.2f} of their sharpness: {self.soft_median:.1f})"
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
    samples, held_out, training = samples[:count], held_out[:count], torch.cat([training, training.flip(-1)])
    soft = softened(held_out, sharpness(samples))
    return FacesReport(
        count,
        frechet_distance(components(samples), real),
        torch.tensor(draws, dtype=torch.float64).quantile(0.5).item(),
        nearest_training(samples, training, held_out),
        sharpness(samples) / sharpness(held_out),
        nearest_neighbours(soft, training)[1].median().item(),
    )


def sharpness(images: Tensor) -> float:
    """Mean squared difference of pixels beside and below each other, of images uint8 (N, C, H, W), in grey levels².

    >>> sharpness(torch.tensor([[[[0, 10], [0, 10]]]], dtype=torch.uint8))
    50.0
    """
    pixels = images.float()
    return (pixels.diff(dim=-1).square().mean() + pixels.diff(dim=-2).square().mean()).item() / 2


def softened(images: Tensor, wanted: float) -> Tensor:
    """Images uint8 (N, C, H, W), all blurred by the one Gaussian that leaves them with the sharpness `wanted`.

    Images that have no more than that come back as they are.

    >>> images = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    >>> abs(sharpness(softened(images, 500.0)) / 500 - 1) < 0.05
    True
    """
    from torchvision.transforms.functional import gaussian_blur

    if sharpness(images) <= wanted:
        return images
    least, most, blurred = 0.0, images.shape[-1] / 4, images
    for _ in range(12):
        sigma = (least + most) / 2
        size = min(2 * math.ceil(3 * sigma) + 1, 2 * (min(images.shape[-2:]) // 2) - 1)
        blurred = gaussian_blur(images.float(), [size, size], [sigma, sigma]).round().to(torch.uint8)
        least, most = (sigma, most) if sharpness(blurred) > wanted else (least, sigma)
    return blurred


def _pixels(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise UserError(f"faces are compared as uint8 images (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
    return images.flatten(1).double() / 255
