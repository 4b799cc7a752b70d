"""Images as pixels: what the samplers return, made ready to be shown. Needs numpy and Pillow only."""

import io
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import UserError

WHITE = 255


def to_rgb(images: Any) -> np.ndarray:
    """Images of any origin as uint8 (N, H, W, 3).

    `images` is a tensor or an array (N, C, H, W) or (C, H, W) with one or three channels: uint8 as it is,
    or float in [-1, 1], which is clipped and mapped to 0 … 255. Noise reaches beyond [-1, 1]; its tails are
    clipped, and no image is stretched to its own minimum and maximum, so that one value is one grey
    everywhere.

    Raises `UserError` for any other shape or type.

    >>> to_rgb(np.zeros((1, 2, 2), np.float32))[0, 0, 0]
    array([128, 128, 128], dtype=uint8)
    """
    if hasattr(images, "detach"):
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(
            f"images of shape {images.shape} cannot be shown; give (N, C, H, W) or (C, H, W) with C = 1 or 3"
        )
    if np.issubdtype(images.dtype, np.floating):
        images = ((np.nan_to_num(images).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    elif images.dtype != np.uint8:
        raise UserError(f"images of type {images.dtype} cannot be shown; give uint8, or float in [-1, 1]")
    return np.repeat(images.transpose(0, 2, 3, 1), 3 // images.shape[1], axis=-1)


def tile(images: Any, columns: int | None = None, *, gap: int = 1, zoom: int = 1) -> np.ndarray:
    """Images side by side on white, row by row, as one uint8 (H', W', 3) picture.

    Each pixel becomes a `zoom` × `zoom` square (nearest neighbour); `gap` pixels of white lie between the
    images. Without `columns` there is one row. The last row is filled up with white.

    >>> tile(np.zeros((4, 3, 8, 8), np.uint8), columns=2, gap=2).shape
    (18, 18, 3)
    """
    images = to_rgb(images)
    count, height, width, _ = images.shape
    columns = columns or count
    rows = -(-count // columns)
    canvas = np.full((rows * (height * zoom + gap) - gap, columns * (width * zoom + gap) - gap, 3), WHITE, np.uint8)
    for index, image in enumerate(images.repeat(zoom, axis=1).repeat(zoom, axis=2)):
        top = index // columns * (height * zoom + gap)
        left = index % columns * (width * zoom + gap)
        canvas[top : top + height * zoom, left : left + width * zoom] = image
    return canvas


def png_bytes(picture: np.ndarray, text: dict[str, str] | None = None) -> bytes:
    """A uint8 (H, W, 3) picture as the bytes of a PNG, with `text` in its metadata."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=6, pnginfo=info)
    return buffer.getvalue()


def png_size(png: bytes, density: int = 1) -> dict[str, int]:
    """Width and height at which a browser should show a PNG of `density` pixels a unit."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return {"width": width // density, "height": height // density}
