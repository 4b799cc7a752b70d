"""What several styles are made of: lines around and inside a thing, at twice the size; paper's noise."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter
from scipy import ndimage

from .sprites import SIDE

LARGE = 2 * SIDE
"""Lines are drawn at twice the size and made small again, so that they are fine and smooth."""

DISC = np.hypot(*np.mgrid[-2:3, -2:3])[..., None] < 2.5
"""Five pixels across: a drawing's own black lines are thinner."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def enlarged(plane: np.ndarray) -> np.ndarray:
    """(64, 64) to (128, 128), between the pixels linearly.

    >>> enlarged(np.ones((64, 64), np.float32)).shape
    (128, 128)
    """
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((LARGE, LARGE), Image.Resampling.BICUBIC))


def reduced(plane: np.ndarray) -> np.ndarray:
    """(128, 128, …) to (64, 64, …), the mean of four.

    >>> reduced(np.ones((128, 128, 3))).shape
    (64, 64, 3)
    """
    return (plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]) / 4


def outlines(picture: np.ndarray, cover: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Lines (128, 128) in [0, 1] along the thing's rim and where its colours meet.

    A black line of the drawing itself is one line, not two edges: it is taken out by a closing, and put back as it is.

    >>> float(outlines(np.ones((64, 64, 3)), np.zeros((64, 64))).max())
    0.0
    """
    closed = ndimage.grey_closing(picture, footprint=DISC)
    drawn = np.clip(2.2 * (closed - picture) @ LUMA - 0.25, 0, 1)
    strength = np.zeros((LARGE, LARGE), np.float32)
    for plane, weight in ((cover, 0.8), *((closed[..., channel], 1.0) for channel in range(3))):
        soft = enlarged(ndimage.gaussian_filter(plane, width / 2))
        across, down = soft[1:-1, 2:] - soft[1:-1, :-2], soft[2:, 1:-1] - soft[:-2, 1:-1]
        strength[1:-1, 1:-1] += weight * (across**2 + down**2)
    strength = np.sqrt(strength) * width
    return np.maximum(np.clip(3.0 * strength - 0.32, 0, 1), enlarged(drawn).clip(0, 1))


def flat(picture: np.ndarray) -> np.ndarray:
    """Areas of one colour, without the half-tones between them: the median of nine, (64, 64, 3).

    >>> float(flat(np.ones((64, 64, 3))).min())
    1.0
    """
    image = Image.fromarray(np.uint8(picture * 255 + 0.5)).filter(ImageFilter.MedianFilter(3))
    return np.asarray(image).astype(np.float32) / 255


def noise(rng: Generator, cells: int, rows: int | None = None) -> np.ndarray:
    """Smooth noise (64, 64) of about mean 0 and deviation 1, with so many cells from side to side.

    >>> noise(np.random.default_rng(0), 8).shape
    (64, 64)
    """
    coarse = rng.standard_normal(((rows or cells) + 1, cells + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) * 1.25


def blend(below: np.ndarray, above: np.ndarray | float, alpha: np.ndarray) -> np.ndarray:
    """above over below, both (…, 3) or of one colour, by alpha (…).

    >>> blend(np.zeros((1, 3)), 1.0, np.array([0.5])).tolist()
    [[0.5, 0.5, 0.5]]
    """
    alpha = alpha[..., None]
    return below * (1 - alpha) + above * alpha


def saturated(picture: np.ndarray, factor: float) -> np.ndarray:
    """Colours further from grey (factor > 1) or nearer to it, (…, 3).

    >>> saturated(np.array([[0.4, 0.4, 0.4]]), 3).round(2).tolist()
    [[0.4, 0.4, 0.4]]
    """
    grey = (picture @ LUMA)[..., None]
    return np.clip(grey + factor * (picture - grey), 0, 1)
