"""Pictures from files as uint8 arrays, with a clear sentence for each that does not fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import UserError

SIDES = (28, 32)
"""Accepted sides of a digit's picture: MNIST's and the course's 28, SVHN's 32 (made smaller to 28)."""


def open_picture(
    file: str | Path | BinaryIO,
    advice: str,
    name: str | Path | None = None,
    *,
    mode: str = "RGB",
    upright: bool = False,
) -> Image.Image:
    """A picture of any size, read whole; grey becomes RGB or the reverse, transparency is lost.

    - file: a path, or an open file whose `name` stands in the sentence of the error.
    - advice: what to do with a file that cannot be read, the end of that sentence.
    - mode: "RGB" or "L" (grey). upright: turn it as its EXIF tag says, as a camera's photographs want it.

    Raises `UserError` for a file that is no picture, or a damaged one; `FileNotFoundError` where there is none.

    >>> open_picture("me.jpg", "give another", upright=True).size   # doctest: +SKIP
    (3024, 4032)
    """
    try:
        with Image.open(file) as image:
            return (ImageOps.exif_transpose(image) if upright else image).convert(mode)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"'{name or file}' is not a picture that can be read; {advice}") from error


def read_rgb(file: str | Path | BinaryIO, advice: str, name: str | Path | None = None) -> np.ndarray:
    """The pixels of `open_picture` as (H, W, 3) uint8; it raises as that does.

    >>> read_rgb("hw2_data/digits/svhn/data/00000.png", "replace it").shape   # doctest: +SKIP
    (28, 28, 3)
    """
    return np.asarray(open_picture(file, advice, name))


def fit_square(picture: Image.Image, size: int) -> np.ndarray:
    """The middle square of a picture, resized (Lanczos, antialiased), as (C, size, size) uint8.

    >>> fit_square(Image.new("RGB", (300, 200)), 64).shape
    (3, 64, 64)
    """
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(size, size, -1).transpose(2, 0, 1).copy()


def read_digit(path: Path) -> np.ndarray:
    """One picture as (3, 28, 28) uint8; grey becomes RGB, 32×32 is made smaller with antialiasing.

    Raises `UserError` where the file is missing, is no picture, or has another size.

    >>> read_digit(Path("hw2_data/digits/svhn/data/00000.png")).shape   # doctest: +SKIP
    (3, 28, 28)
    """
    try:
        rgb = read_rgb(path, "replace it, or take it out")
    except FileNotFoundError as error:
        raise UserError(f"no such picture: '{path}'; put it there, or take it out of the list") from error
    if rgb.shape[:2] not in {(side, side) for side in SIDES}:
        height, width = rgb.shape[:2]
        raise UserError(f"'{path}' is {width}×{height}; a digit must be 28×28, or 32×32 as SVHN's are")
    pixels = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None]
    return shrink(pixels)[0].numpy()


def read_digits(paths: Sequence[Path]) -> Tensor:
    """Pictures (N, 3, 28, 28) uint8 in the order of their paths."""
    images = np.empty((len(paths), 3, 28, 28), np.uint8)
    for row, path in enumerate(paths):
        images[row] = read_digit(path)
    return torch.from_numpy(images)


def shrink(images: Tensor, side: int = 28) -> Tensor:
    """(N, C, H, W) uint8 to (N, C, side, side): bilinear with antialiasing, as torchvision's `Resize` does it.

    >>> shrink(torch.full((1, 3, 32, 32), 9, dtype=torch.uint8)).unique()
    tensor([9], dtype=torch.uint8)
    """
    if images.shape[-2:] == (side, side):
        return images
    parts = []
    for part in images.split(4096):  # as float32 all of SVHN at once would take a gigabyte
        small = F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True)
        parts.append(small.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)
