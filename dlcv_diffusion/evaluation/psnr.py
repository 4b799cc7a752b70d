"""How near a picture comes to another, pixel by pixel: the peak signal-to-noise ratio."""

import torch
from torch import Tensor

from ..errors import check


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """10 log10(255² / mean squared error) in decibels, (B,) float32, of uint8 images (B, C, H, W); ∞ for equal ones.

    Raises `UserError` for images that are not uint8 or not alike.

    >>> psnr(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 51, dtype=torch.uint8))
    tensor([13.9794])
    """
    alike = images.shape == others.shape and images.ndim == 4 and images.dtype == others.dtype == torch.uint8
    check(alike, f"to compare pictures give uint8 (B, C, H, W) twice, not {_said(images)} and {_said(others)}")
    squares = (images.float() - others.float()).square().mean((1, 2, 3))
    return 10 * torch.log10(255**2 / squares)


def _said(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
