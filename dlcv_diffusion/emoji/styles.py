"""Styles: functions of a scene that paint it anew. Each is unmistakable, and leaves the thing recognisable."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import ndimage

Paint = Callable[[np.ndarray, np.ndarray, Generator], np.ndarray]
"""(picture (64, 64, 3) on white in [0, 1], cover (64, 64) in [0, 1], rng) to a picture (64, 64, 3) in [0, 1]."""


@dataclass(frozen=True)
class Style:
    """A style: its name, what a caption calls it, such as "a blueprint", and the function that paints."""

    name: str
    phrase: str
    paint: Paint


def _edges(picture, cover, sigma=1.0):
    stack = np.dstack([picture, cover])
    s = ndimage.gaussian_filter(stack, (sigma, sigma, 0))
    gx, gy = ndimage.sobel(s, 1), ndimage.sobel(s, 0)
    return np.sqrt((gx**2 + gy**2).sum(-1))


def pixel_art(picture, cover, rng):
    small = Image.fromarray(np.uint8(picture * 255)).resize((16, 16), Image.Resampling.BOX)
    return np.asarray(small.resize((64, 64), Image.Resampling.NEAREST)) / 255


def line_drawing(picture, cover, rng):
    e = np.clip(_edges(picture, cover) * 1.2 - 0.3, 0, 1)[..., None]
    return 1 - 0.9 * e * np.ones(3)


def blueprint(picture, cover, rng):
    e = np.clip(_edges(picture, cover) * 1.2 - 0.3, 0, 1)[..., None]
    return np.array([0.1, 0.28, 0.6]) * (1 - e) + e


def neon(picture, cover, rng):
    e = np.clip(_edges(picture, cover) * 1.2 - 0.3, 0, 1)[..., None]
    return np.clip(e * picture * 1.5 + 0.04, 0, 1)


def chalk(picture, cover, rng):
    e = np.clip(_edges(picture, cover) - 0.3, 0, 1)[..., None] * rng.uniform(0.4, 1, (64, 64, 1))
    return np.array([0.15, 0.25, 0.2]) * (1 - e) + e


def watercolour(picture, cover, rng):
    return 0.35 + 0.65 * ndimage.gaussian_filter(picture, (1.5, 1.5, 0))


def pop_art(picture, cover, rng):
    return np.round(picture * 2) / 2


def mosaic(picture, cover, rng):
    return np.asarray(picture)


def cross_stitch(picture, cover, rng):
    return np.asarray(picture)


def old_photograph(picture, cover, rng):
    return (picture @ np.array([0.3, 0.6, 0.1]))[..., None] * np.array([0.95, 0.82, 0.62])


def woodcut(picture, cover, rng):
    e = np.clip(_edges(picture, cover) * 1.2 - 0.3, 0, 1)[..., None]
    return np.array([0.95, 0.9, 0.8]) * (1 - e) + 0.2 * e


STYLES = {
    style.name: style
    for style in (
        Style("pixel art", "pixel art", pixel_art),
        Style("line drawing", "a line drawing", line_drawing),
        Style("blueprint", "a blueprint", blueprint),
        Style("neon", "a neon sign", neon),
        Style("chalk", "a chalk drawing", chalk),
        Style("watercolour", "a watercolour", watercolour),
        Style("pop art", "pop art", pop_art),
        Style("mosaic", "a mosaic", mosaic),
        Style("cross-stitch", "a cross-stitch", cross_stitch),
        Style("old photograph", "an old photograph", old_photograph),
        Style("woodcut", "a woodcut", woodcut),
    )
}
"""The styles by their names."""
