"""What house numbers hang on: colours and surfaces as (S, S, 3) float32 pictures in [0, 1]."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

SMALLEST_CROP = 32
"""Pixels a side of the smallest piece of a photograph that becomes a wall."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Rec. 601 luma of (…, 3) colours."""
    return rgb @ LUMA


def colour(rng: np.random.Generator, luma: float, greys: float = 0.35) -> np.ndarray:
    """A (3,) colour of about the given luma from what streets are full of: greys, blues, browns, beiges, seldom others.

    `greys` is the share of greys, white and black among them.
    """
    others = (1 - greys) * np.array([0.44, 0.27, 0.19, 0.05, 0.05])
    hue, saturation = (
        (rng.uniform(), rng.uniform(0.0, 0.06)),  # grey, white, black
        (rng.normal(0.610, 0.025), rng.uniform(0.08, 0.55)),  # blue
        (rng.normal(0.065, 0.02), rng.uniform(0.12, 0.55)),  # brown, brick
        (rng.normal(0.110, 0.015), rng.uniform(0.08, 0.38)),  # beige, yellow
        (rng.normal(0.38, 0.05), rng.uniform(0.08, 0.32)),  # green
        (rng.normal(0.99, 0.02), rng.uniform(0.25, 0.65)),  # red
    )[rng.choice(6, p=[greys, *others])]
    rgb = np.array(colorsys.hsv_to_rgb(hue % 1, saturation, 1), np.float32)
    scaled = rgb * (luma / max(luminance(rgb), 1e-3))
    top = scaled.max()
    if top > 1:  # too bright for this saturation: mix with white
        mix = (luma - luminance(rgb)) / max(1 - luminance(rgb), 1e-3)
        scaled = rgb + np.clip(mix, 0, 1) * (1 - rgb)
    return np.clip(scaled, 0, 1)


def field(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Smooth noise (size, size) of mean 0 and deviation about 1: rows × columns random values, interpolated."""
    coarse = rng.standard_normal((rows + 1, columns + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)) * 1.3


def painted(rng: np.random.Generator, size: int, base: np.ndarray) -> np.ndarray:
    """A plain wall, a little uneven."""
    return base + rng.uniform(0, 0.02) * field(rng, size, 3, 3)[..., None]


def plaster(rng: np.random.Generator, size: int, base: np.ndarray) -> np.ndarray:
    """Noise of several scales."""
    noise = sum(field(rng, size, n, n) * weight for n, weight in ((5, 0.4), (12, 0.4), (30, 0.5), (60, 0.4)))
    return base * (1 + rng.uniform(0.04, 0.14) * noise[..., None])


def brick(rng: np.random.Generator, size: int, base: np.ndarray) -> np.ndarray:
    """Courses of bricks, each of its own shade, with mortar between."""
    height, mortar = rng.uniform(0.22, 0.5) * size, rng.uniform(0.02, 0.05) * size
    width = height * rng.uniform(2.0, 3.2)
    y, x = np.mgrid[:size, :size].astype(np.float32) + rng.uniform(0, 2 * size, 2)[:, None, None]
    course = np.floor(y / height).astype(int)
    x = x + (course % 2) * width / 2
    shade = rng.normal(1, 0.12, (64, 64))[course % 64, np.floor(x / width).astype(int) % 64]
    gap = ((y % height) < mortar) | ((x % width) < mortar)
    wall = base * shade[..., None] * (1 + 0.06 * field(rng, size, 40, 40)[..., None])
    joint = colour(rng, float(np.clip(luminance(base) + rng.choice([-1, 1]) * rng.uniform(0.08, 0.2), 0.05, 0.95)))
    return np.where(gap[..., None], joint, wall)


def wood(rng: np.random.Generator, size: int, base: np.ndarray) -> np.ndarray:
    """Grain along one direction, with the joints of boards or of siding."""
    grain = 0.6 * field(rng, size, 40, 3) + 0.5 * field(rng, size, 12, 2)
    wall = base * (1 + rng.uniform(0.03, 0.10) * grain[..., None])
    if rng.random() < 0.7:
        board = rng.uniform(0.3, 0.9) * size
        y = (np.arange(size) + rng.uniform(0, board)) % board / board
        wall = wall * (1 - 0.35 * np.exp(-((y / 0.05) ** 2)) + 0.08 * y)[:, None, None]
    return wall if rng.random() < 0.6 else wall.transpose(1, 0, 2)


def metal(rng: np.random.Generator, size: int, base: np.ndarray) -> np.ndarray:
    """A brushed or shining sheet."""
    shine = 0.5 * field(rng, size, 1, 2) + 0.25 * field(rng, size, 60, 2)
    return base * (1 + rng.uniform(0.06, 0.18) * (shine if rng.random() < 0.5 else shine.T)[..., None])


def photograph(rng: np.random.Generator, size: int, base: np.ndarray, photos: Sequence[np.ndarray]) -> np.ndarray:
    """A crop of a photograph, heavily blurred, moved part of the way to the base colour."""
    photo = photos[rng.integers(len(photos))]
    side = int(rng.integers(SMALLEST_CROP, max(SMALLEST_CROP + 1, min(180, *photo.shape[:2]))))
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
    crop = Image.fromarray(photo[top : top + side, left : left + side]).resize((size, size), Image.Resampling.BILINEAR)
    crop = np.asarray(crop, np.float32) / 255
    crop = ndimage.gaussian_filter(crop, (s := rng.uniform(0.02, 0.10) * size, s, 0))
    mean = crop.mean((0, 1))
    # The hue may stay the photograph's own or become the palette's; the luma is always the one asked for.
    target = base if rng.random() < 0.5 else np.clip(mean * luminance(base) / max(luminance(mean), 0.05), 0, 1)
    return target + rng.uniform(0.4, 0.9) * (crop - mean)


def wall(rng: np.random.Generator, size: int, luma: float, photos: Sequence[np.ndarray] = ()) -> np.ndarray:
    """A random surface (size, size, 3) whose mean luma is near `luma`. Values may leave [0, 1] a little."""
    base = colour(rng, luma)
    kinds = (painted, plaster, brick, wood, metal, photograph)
    kind = kinds[rng.choice(6, p=[0.36, 0.17, 0.06, 0.09, 0.06, 0.26])]
    if kind is photograph:
        return photograph(rng, size, base, photos) if len(photos) else plaster(rng, size, base)
    return kind(rng, size, base)
