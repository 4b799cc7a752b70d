"""How good are face samples? Compared with held-out faces in the principal components of their pixels (are they as
varied, and in place?), and looked up among the training faces (are they copies?).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..evaluation.encoder import Encoder, PixelComponents, checked_images, encode
from ..evaluation.neighbours import Nearest, nearest_neighbours, nearest_training
from ..evaluation.realism import Realism, realism

DRAWS = 5  # random draws of training faces that the yardstick is the median of


@dataclass(frozen=True, kw_only=True)
class FacesReport(Realism):
    """What `evaluate_faces` found: `Realism` beside held-out faces, whose yardstick are as many training faces.

    - nearest: distances to the nearest training face or its mirror image, beside those of held-out faces.
    - sharpness: mean squared difference of neighbouring pixels, as a multiple of held-out faces'.
    - soft_median: the median distance to the nearest training face of held-out faces that were blurred until they are
      as soft as the samples. A soft picture is nearer to all others; samples that copy nobody come to this.
    """

    count: int
    nearest: Nearest
    sharpness: float
    soft_median: float

    def __str__(self) -> str:
        return (
            f"{self.count} faces: Fréchet distance {self.frechet:.2f}, {self.frechet_ratio:.1f} times that of two real "
            f"sets; recall {self.recall:.2f}, {self.recall_real:.2f} between real sets\n"
            f"nearest training face {self.nearest}; held-out images made as soft as the samples, with "
            f"{self.sharpness:.2f} of their sharpness: {self.soft_median:.1f}"
        )


def evaluate_faces(
    samples: Tensor, training: Tensor, held_out: Tensor, *, encoder: Encoder | None = None, seed: int = 0
) -> FacesReport:
    """The Fréchet distance of samples from real faces in an encoder's features, recall, and copies.

    - samples, training, held_out: uint8 (N, C, H, W). As many held-out and training faces as there are samples are
      compared; where fewer are held out, only so many samples are.
    - encoder: by default `PixelComponents.of(training)`, the first 100. seed: which training faces make the yardstick,
      the median over 5 draws of the distance between as many training and held-out faces.

    Raises `UserError` for images of different sizes, or too few of them.

    >>> print(evaluate_faces(samples, training.images, held_out.images))   # doctest: +SKIP
    """
    samples, training, held_out = (checked_images(images) for images in (samples, training, held_out))
    count = min(len(samples), len(held_out), len(training))
    samples, held_out, mirrored = samples[:count], held_out[:count], torch.cat([training, training.flip(-1)])
    encoder = encoder or PixelComponents.of(training)
    soft = softened(held_out, sharpness(samples))
    return FacesReport(
        **vars(evaluate_realism(samples, training, held_out, encoder, seed=seed)),
        count=count,
        nearest=nearest_training(samples, mirrored, held_out),
        sharpness=sharpness(samples) / sharpness(held_out),
        soft_median=nearest_neighbours(soft, mirrored)[1].median().item(),
    )


def evaluate_realism(
    samples: Tensor, training: Tensor, held_out: Tensor, encoder: Encoder, *, seed: int = 0
) -> Realism:
    """Fréchet distance and recall alone, in an encoder's features; arguments and errors as of `evaluate_faces`.

    >>> print(evaluate_realism(samples, training, held_out, load_face_encoder()))   # doctest: +SKIP
    """
    count = min(len(samples), len(held_out), len(training))
    drawn, real, others = (encode(encoder, images) for images in (samples[:count], held_out[:count], training))
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(training), generator=generator)[:count] for _ in range(DRAWS)]
    return realism((drawn, real, others[order]) for order in orders)


def radial_spectrum(images: Tensor) -> Tensor:
    """Mean power at each spatial frequency, (min(H, W) // 2,) float64, of images uint8 (N, C, H, W), in grey levels².

    Entry k − 1 is the mean of |F|² / (H W) over frequencies within ½ of k cycles a side, F each image's Fourier
    transform. Of white noise it is flat: its variance. Divided by that of photographs, below 1 where images are softer.

    >>> radial_spectrum(torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8)).shape
    torch.Size([8])
    """
    images = checked_images(images).double()
    height, width = images.shape[-2:]
    power = torch.fft.fft2(images).abs().square().mean((0, 1)) / (height * width)
    down, across = torch.fft.fftfreq(height, 1 / height), torch.fft.fftfreq(width, 1 / width)
    cycles = (down[:, None].square() + across.square()).sqrt().round().long()
    return torch.stack([power[cycles == k].mean() for k in range(1, min(height, width) // 2 + 1)])


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
