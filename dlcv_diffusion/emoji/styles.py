"""Styles: functions of a scene that paint it anew. Each is unmistakable, and leaves the thing recognisable."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .drawings import blueprint, chalk, line_drawing, neon, woodcut
from .paintings import embroidery, old_photograph, pixel_art, pop_art, stained_glass, watercolour

Paint = Callable[[np.ndarray, np.ndarray, Generator], np.ndarray]
"""(picture (64, 64, 3) on white in [0, 1], cover (64, 64) in [0, 1], rng) to a picture (64, 64, 3) in [0, 1]."""


@dataclass(frozen=True)
class Style:
    """A style: its name, what a caption calls it, such as "a blueprint", and the function that paints."""

    name: str
    phrase: str
    paint: Paint


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
        Style("stained glass", "stained glass", stained_glass),
        Style("embroidery", "an embroidery", embroidery),
        Style("old photograph", "an old photograph", old_photograph),
        Style("woodcut", "a woodcut", woodcut),
    )
}
"""The styles by their names."""
