"""MNIST-M: MNIST's digits blended with crops of photographs (Ganin et al. 2016, arXiv 1505.07818)."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import check
from ..images.folders import picture_names, read_pictures
from ..images.pictures import REPLACE, open_picture


def blend(photo: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """|p − d| of two uint8 arrays that broadcast, as uint8: where the digit is ink, the photograph is inverted.

    >>> blend(np.array([10, 200], np.uint8), np.array([255, 0], np.uint8))
    array([245, 200], dtype=uint8)
    """
    return np.abs(photo.astype(np.int16) - digit.astype(np.int16)).astype(np.uint8)


def mnist_m(digits: np.ndarray, photos: Sequence[np.ndarray], seed: int, *, start: int = 0) -> np.ndarray:
    """MNIST-M images (N, 3, H, W) uint8 from MNIST images (N, H, W) uint8 and photographs (H', W', 3) uint8.

    Each digit gets a crop of its own size from a random photograph; which, depends on (seed, start + row) alone.
    Raises `UserError` where there is no photograph, or one is smaller than a digit.

    >>> mnist_m(np.zeros((5, 28, 28), np.uint8), [np.full((40, 40, 3), 7, np.uint8)], seed=0).shape
    (5, 3, 28, 28)
    """
    count, height, width = digits.shape
    check(len(photos), "MNIST-M needs photographs for its backgrounds; give a folder or zip of pictures")
    large = all(photo.shape[0] >= height and photo.shape[1] >= width for photo in photos)
    check(large, f"a photograph is smaller than the {height}×{width} digits; leave it out")
    images = np.empty((count, 3, height, width), np.uint8)
    for row, digit in enumerate(digits):
        rng = np.random.default_rng([seed, start + row])
        photo = photos[rng.integers(len(photos))]
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        images[row] = blend(photo[top : top + height, left : left + width].transpose(2, 0, 1), digit)
    return images


def load_photos(source: str | Path, under: str = "", *, least: int = 28) -> list[np.ndarray]:
    """Every picture below a folder, or inside a zip, as (H, W, 3) uint8 arrays in the order of their names.

    `under` keeps those whose path inside it starts so (`"train/"`). Raises `UserError` for a missing or broken source,
    and a photograph with a side of fewer pixels than `least`.

    >>> photos = load_photos("bsds300.zip", under="train/")   # doctest: +SKIP
    """
    names = picture_names(source, under)
    contents = read_pictures(source, names)
    opened = [open_picture(io.BytesIO(c), REPLACE, f"{source}/{n}") for n, c in zip(names, contents, strict=True)]
    for name, photo in zip(names, opened, strict=True):
        small = f"is {photo.width}×{photo.height}, smaller than {least}×{least} pixels; {REPLACE}"
        check(min(photo.size) >= least, f"the photograph '{source}/{name}' {small}")
    return [np.asarray(photo) for photo in opened]
