"""Styles that draw lines: ink, blueprint, neon, chalk, woodcut.

Each paints (picture (64, 64, 3) on white in [0, 1], cover (64, 64) in [0, 1], rng) as (64, 64, 3) in [0, 1].
"""

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from .ink import LARGE, LUMA, blend, enlarged, noise, outlines, reduced, saturated
from .sprites import SIDE

ROW, COLUMN = (plane.astype(np.float32) for plane in np.mgrid[:SIDE, :SIDE])
FINE_ROW, FINE_COLUMN = (plane.astype(np.float32) / 2 for plane in np.mgrid[:LARGE, :LARGE])


def line_drawing(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Black ink on white paper; what is black is inked, and the shadows are washed in a light grey.

    >>> bool(line_drawing(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).min() > 0.9)
    True
    """
    dark = 1 - picture @ LUMA
    ink = np.maximum(reduced(outlines(picture, cover, 0.9)), np.clip(8 * (dark - 0.78), 0, 1))
    paper = np.array([0.99, 0.985, 0.97]) - 0.16 * ndimage.gaussian_filter(dark, 1.0)[..., None]
    return blend(paper, 0.08, ink)


def blueprint(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """White lines on blue paper with a fine grid; the thing is hatched where it is dark.

    >>> int(blueprint(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).argmax(-1).min())
    2
    """
    paper = np.array([0.09, 0.27, 0.60]) + 0.012 * noise(rng, 6)[..., None]
    offset = rng.integers(8, size=2)
    grid = ((ROW + offset[0]) % 8 == 0) | ((COLUMN + offset[1]) % 8 == 0)
    page = blend(paper, np.array([0.45, 0.62, 0.90]), 0.35 * grid * (1 - 0.7 * cover))
    page = blend(page, np.array([0.55, 0.72, 0.98]), 0.28 * cover * (picture @ LUMA))
    return blend(page, np.array([0.96, 0.98, 1.0]), reduced(outlines(picture, cover, 0.9)))


def neon(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Glowing tubes along the lines, in the thing's own colours, on a wall at night.

    >>> bool(neon(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).max() < 0.3)
    True
    """
    tubes = reduced(outlines(picture, cover, 1.0))
    near = cover[..., None] * picture
    colour = ndimage.gaussian_filter(near, (2, 2, 0)) / (ndimage.gaussian_filter(cover, 2)[..., None] + 1e-3)
    colour = saturated(colour / (colour.max(-1, keepdims=True) + 0.05), 2.2)
    grey = 1 - np.clip(4 * np.ptp(colour, axis=-1), 0, 1)
    colour = np.clip(blend(colour, np.array([0.35, 0.85, 1.0]), 0.85 * grey) + 0.06, 0, 1)
    light = tubes[..., None] * colour
    halo = 0.6 * ndimage.gaussian_filter(light, (1.2, 1.2, 0)) + 0.9 * ndimage.gaussian_filter(light, (3.5, 3.5, 0))
    crowded = 1 + 2.5 * ndimage.gaussian_filter(tubes, 3)[..., None] ** 2
    wall = np.array([0.045, 0.03, 0.10]) + 0.008 * noise(rng, 12)[..., None]
    core = np.clip(1.5 * tubes - 0.7, 0, 1)
    return np.clip(blend(wall + light + halo / crowded, 1.0, 0.7 * core), 0, 1)


def chalk(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """White chalk lines and coloured chalk, rubbed on a blackboard that was wiped before.

    >>> bool(chalk(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).mean() < 0.4)
    True
    """
    board = np.array([0.13, 0.22, 0.18]) + (0.018 * noise(rng, 5) + 0.012 * noise(rng, 10, 3))[..., None]
    grain = rng.random((SIDE, SIDE))
    strokes = 0.5 + 0.5 * np.sin((ROW + COLUMN) * 1.9 + 0.8 * noise(rng, 7))
    rubbed = cover * np.clip(0.60 + 0.40 * strokes - 0.65 * grain, 0, 1)
    pastel = 0.10 + 0.80 * saturated(picture, 1.4)
    page = blend(board, pastel, 0.85 * rubbed)
    lines = reduced(outlines(picture, cover, 1.1)) * np.clip(1.6 - grain, 0.5, 1)
    return blend(page, np.array([0.96, 0.96, 0.92]), 0.95 * lines)


def woodcut(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Black ink on cream paper from a carved block: the darker the thing, the broader its hatching, and black is black.

    >>> bool(woodcut(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).mean() > 0.8)
    True
    """
    shade = 1 - picture @ LUMA
    dark, inside = enlarged(shade), enlarged(cover)
    curve = 1.5 * enlarged(noise(rng, 4)) + 3.0 * enlarged(ndimage.gaussian_filter(shade, 3))
    wave = 0.5 + 0.5 * np.sin((FINE_ROW + 0.45 * FINE_COLUMN + curve) * 2 * np.pi / 3.2)
    cuts = np.clip(5 * (wave - 1.0 + 1.1 * (dark - 0.05)), 0, 1)
    lines = outlines(picture, cover, 1.1)
    free = np.clip(1.15 - 1.9 * ndimage.gaussian_filter(lines, 2.0), 0, 1)  # along the lines the paper shows
    solid = np.clip(8 * (dark - 0.74), 0, 1)
    ink = reduced(np.maximum(inside * np.maximum(cuts * free, solid), lines))
    paper = np.array([0.95, 0.90, 0.79]) + 0.012 * noise(rng, 20)[..., None]
    return blend(paper, np.array([0.12, 0.09, 0.07]), ink * (0.94 + 0.05 * noise(rng, 30)).clip(0, 1))
