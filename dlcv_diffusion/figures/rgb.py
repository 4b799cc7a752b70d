"""Images as 8-bit RGB pictures, (H, W, 3): one by one, side by side, and as the bytes of a PNG."""

import io
from math import ceil
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import check
from ..images.pixels import to_uint8

WHITE = 255
DTYPES = ("uint8", "float16", "bfloat16", "float32", "float64")


def to_rgb(images: Any) -> np.ndarray:
    """Images as uint8 (N, H, W, 3).

    - images: a tensor or array (N, C, H, W) or (C, H, W), C = 1 or 3; uint8, or float in [−1, 1], clipped.

    Raises `UserError` for another shape or type, and for images that are not finite.

    >>> to_rgb(np.zeros((1, 2, 2), np.float32))[0, 0, 0]
    array([128, 128, 128], dtype=uint8)
    """
    images = images.detach() if isinstance(images, Tensor) else np.ascontiguousarray(images)
    images = images[None] if images.ndim == 3 else images
    shape, dtype = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    fits = len(shape) == 4 and shape[1] in (1, 3) and 0 not in shape
    check(fits, f"images of shape {shape} cannot be shown; give (N, C, H, W) or (C, H, W) with C = 1 or 3")
    check(dtype in DTYPES, f"images of type {dtype} cannot be shown; give uint8, or float in [-1, 1]")
    images = torch.as_tensor(images)
    levels = images if dtype == "uint8" else to_uint8(images)
    return repeat(levels.cpu().numpy(), "n c h w -> n h w (c copies)", copies=3 // shape[1])


def tile(images: Any, columns: int | None = None, *, gap: int = 1, zoom: int = 1) -> np.ndarray:
    """Images, as `to_rgb` takes them, side by side on white: one uint8 (H', W', 3) picture.

    - columns: images a row, all by default. gap: white pixels between them. zoom: the side of a pixel's square.

    >>> tile(np.zeros((4, 3, 8, 8), np.uint8), columns=2, gap=2).shape
    (18, 18, 3)
    """
    images = repeat(to_rgb(images), "n h w c -> n (h down) (w across) c", down=zoom, across=zoom)
    count, height, width, _ = images.shape
    columns = columns or count
    cells = np.full((ceil(count / columns) * columns, height + gap, width + gap, 3), WHITE, np.uint8)
    cells[:count, :height, :width] = images
    picture = rearrange(cells, "(rows columns) h w c -> (rows h) (columns w) c", columns=columns)
    return picture[: len(picture) - gap, : picture.shape[1] - gap]


def enlarged(picture: np.ndarray, zoom: int) -> np.ndarray:
    """A uint8 (H, W, 3) picture `zoom` times as large, without edges between its pixels.

    >>> enlarged(np.zeros((2, 3, 3), np.uint8), 4).shape
    (8, 12, 3)
    """
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((zoom * width, zoom * height), Image.Resampling.BICUBIC))


def png_bytes(
    picture: np.ndarray, text: dict[str, str] | None = None, *, dpi: int | None = None, level: int = 6
) -> bytes:
    """A uint8 (H, W, 3) picture as the bytes of a PNG, with `text` in its metadata; without colours as a grey one.

    - dpi: pixels an inch, from which programs that print take its size.
    - level: of compression; 1 takes a quarter of the time that 6 does, and a quarter more bytes.
    """
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    pixels = picture[..., 0] if (picture == picture[..., :1]).all() else picture
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "PNG", compress_level=level, pnginfo=info, **({"dpi": (dpi, dpi)} if dpi else {})
    )
    return buffer.getvalue()


def png_size(png: bytes, density: int = 1) -> dict[str, int]:
    """Width and height at which a browser should show a PNG of `density` pixels a unit."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return {"width": width // density, "height": height // density}
