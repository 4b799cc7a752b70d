"""Everything we measure with is an encoder: `encode(images) -> features`, uint8 (B, C, H, W) to float32 (B, D).

Pixels, their principal components, a digit judge and CLIP are encoders. A distance between images is one between their
features, and means what the encoder sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..arguments import as_tensor
from ..errors import check

Encoder = Callable[[Tensor], Tensor]

BATCH = 500  # images encoded at a time


def encode(encoder: Encoder, images: Tensor) -> Tensor:
    """Features (N, D) float32 on the CPU of images uint8 (N, C, H, W), batch by batch and without gradients.

    Raises `UserError` for images of another kind, and for an encoder whose features are not (N, D) or not finite.

    >>> encode(pixels, torch.full((2, 1, 1, 3), 7, dtype=torch.uint8))
    tensor([[7., 7., 7.],
            [7., 7., 7.]])
    """
    images = checked_images(images)
    parts = images.split(BATCH)
    with torch.no_grad():
        features = [encoder(part).float().cpu() for part in parts]
    fits = all(f.ndim == 2 and len(f) == len(part) for f, part in zip(features, parts, strict=True))
    check(fits, "an encoder must give N images features (N, D)")
    return finite(torch.cat(features), "the encoder's features")


def pixels(images: Tensor) -> Tensor:
    """The plainest encoder: an image's own values, 0 … 255.

    >>> pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[  0., 255.]])
    """
    return images.flatten(1).float()


@dataclass(frozen=True)
class PixelComponents:
    """The encoder of principal components: coordinates along the widest directions of real images' pixels.

    Of faces these are "eigenfaces" (Turk and Pentland 1991).

    - mean: (D,); basis: (K, D) orthonormal rows, the widest direction first; float64, D = C · H · W, pixels 0 … 1.

    >>> components = PixelComponents.of(torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8), count=10)
    >>> components(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).shape
    torch.Size([3, 10])
    """

    mean: Tensor
    basis: Tensor

    @classmethod
    def of(cls, images: Tensor, count: int = 100) -> "PixelComponents":
        """The first `count` components of images uint8 (N, C, H, W).

        Raises `UserError` for fewer than `count` + 1 images, or images of fewer than `count` values.
        """
        values = checked_images(images).flatten(1).double() / 255
        fits = 1 <= count < min(len(values), values.shape[1] + 1)
        check(fits, f"{len(images)} images have no {count} principal components; give more, or ask for fewer")
        mean = values.mean(0)
        centred = values - mean
        # XXᵀ and XᵀX have the same eigenvalues: the smaller is solved, and Xᵀu is an eigenvector of XᵀX for each u
        small = len(values) < values.shape[1]
        product = centred @ centred.T if small else centred.T @ centred
        widest = torch.linalg.eigh(product).eigenvectors.flip(1)[:, :count].T
        basis = widest @ centred if small else widest
        return cls(mean, basis / basis.norm(dim=1, keepdim=True))

    def __call__(self, images: Tensor) -> Tensor:
        """Coordinates (N, K) float32 of images uint8 (N, C, H, W). Raises `UserError` for images of another size."""
        values = checked_images(images).flatten(1).double() / 255
        D = values.shape[1]
        check(len(self.mean) == D, f"these components are of images with {len(self.mean)} values, not {D}")
        return ((values - self.mean) @ self.basis.T).float()


def checked_images(images: Any, shape: tuple[int, int, int] | None = None) -> Tensor:
    """The images as a tensor. Raises `UserError` unless they are uint8 (N, C, H, W), N ≥ 1, and of this shape.

    >>> checked_images(torch.zeros(2, 3, 28, 28, dtype=torch.uint8), (3, 28, 28)).shape
    torch.Size([2, 3, 28, 28])
    """
    size = "C, H, W" if shape is None else ", ".join(map(str, shape))
    wanted = f"images are measured as uint8 (N, {size}), one or more"
    images = as_tensor(images, wanted)
    fits = images.ndim == 4 and images.numel() > 0 and shape in (None, tuple(images.shape[1:]))
    given = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    check(fits and images.dtype == torch.uint8, f"{wanted}, not {given}; images.pixels.to_uint8 makes them of samples")
    return images


def finite(values: Tensor, what: str) -> Tensor:
    """The same values. Raises `UserError`, "`what` hold NaN …", where one of them is not finite.

    >>> finite(torch.tensor([1.0]), "the encoder's features")
    tensor([1.])
    """
    check(values.isfinite().all(), f"{what} hold NaN or infinite numbers; are its weights damaged?")
    return values
