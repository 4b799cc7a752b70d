"""Pictures from files as uint8 arrays, with a clear sentence for each that does not fit."""

import io
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import check
from ..reading import reading
from .folders import read_pictures

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it logs about damaged files is said in a sentence

MAX_SIDE = 4096
"""The largest side in pixels that a picture is resized to."""

REPLACE = "replace it, or take it out"


def open_picture(
    file: str | Path | BinaryIO,
    advice: str,
    name: str | Path | None = None,
    *,
    mode: str = "RGB",
    upright: bool = False,
) -> Image.Image:
    """A picture of any size, read whole, in 8 bits; grey becomes RGB or the reverse.

    What is transparent shows white. 16 bits are scaled to 8: 65535 becomes 255. The suffix does not matter.

    - file: a path, or an open file whose `name` stands in the sentence of the error.
    - advice: what to do with a file that cannot be read, the end of that sentence.
    - mode: "RGB" or "L" (grey). upright: turn it as its EXIF tag says, as a camera's photographs want it.

    Raises `UserError` for a file that is missing, no picture, a damaged or a huge one, or one of 32-bit or fractional
    numbers, which do not say what is white.

    >>> open_picture("me.jpg", "give another", upright=True).size   # doctest: +SKIP
    (3024, 4032)
    """
    name = name or file
    picture, unread = None, reading(name, "is not a picture that can be read", advice)
    with unread, suppress(Image.DecompressionBombError), Image.open(file) as image:
        picture = _in_8_bits(ImageOps.exif_transpose(image) if upright else image, image)
        check(picture, f"'{name}' holds 32-bit or fractional numbers, whose white is not known; save it with 8 bits")
        picture = picture.convert(mode)
    check(picture, f"'{name}' has more than {2 * Image.MAX_IMAGE_PIXELS} pixels; make it smaller")
    return picture


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture that is open already as RGB in 8 bits, as `open_picture` makes it: what is transparent shows white.

    Raises `UserError` for one of 32-bit or fractional numbers.

    >>> as_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    found = _in_8_bits(picture, picture)
    check(found, "a picture holds 32-bit or fractional numbers, whose white is not known; give it with 8 bits")
    return found.convert("RGB")


def _in_8_bits(image: Image.Image, opened: Image.Image) -> Image.Image | None:
    """The picture without transparency and in 8 bits; None where the file does not tell which number is white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and opened.format in ("PNG", "PPM")):
        # Pillow's own way to 8 bits turns everything over 255 white
        values, tags = np.asarray(image).astype(np.int64), getattr(opened, "tag_v2", {})
        white = 2 ** tags.get(258, (16,))[0] - 1  # a TIFF's BitsPerSample: 12 or 16
        values[values == opened.info.get("transparency")] = white
        values = white - values if tags.get(262) == 0 else values  # its PhotometricInterpretation: white is zero
        return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return None if image.mode[0] in "IF" else image


def fit_square(picture: Image.Image, size: int) -> np.ndarray:
    """The middle square of a picture, resized (Lanczos, antialiased), as (C, size, size) uint8.

    >>> fit_square(Image.new("RGB", (300, 200)), 64).shape
    (3, 64, 64)
    """
    if picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(size, size, -1).transpose(2, 0, 1).copy()


def read_digits(source: str | Path, names: Sequence[str]) -> Tensor:
    """Pictures of a folder or a zip as (N, 3, 28, 28) uint8, in the order of their names; 32×32 is made smaller.

    Raises `UserError` where one is missing, is no picture, or has another size.

    >>> read_digits("hw2_data/digits/svhn/data", ["00000.png"]).shape   # doctest: +SKIP
    torch.Size([1, 3, 28, 28])
    """
    images = torch.empty((len(names), 3, 28, 28), dtype=torch.uint8)
    for row, content in enumerate(read_pictures(source, names, REPLACE)):
        picture = open_picture(io.BytesIO(content), REPLACE, f"{source}/{names[row]}")
        (width, height), square = picture.size, picture.size in ((28, 28), (32, 32))
        check(square, f"'{source}/{names[row]}' is {width}×{height}; a digit must be 28×28, or 32×32 as SVHN's are")
        images[row] = shrink(torch.from_numpy(fit_square(picture, width))[None])[0]
    return images


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
