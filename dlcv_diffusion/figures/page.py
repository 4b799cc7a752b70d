"""The page of every figure: its style, its caption, the facts that would make it again."""

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path, PurePath
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from .. import __version__
from ..declared import validated
from ..errors import UserError, check
from ..files import atomic_write
from .rgb import png_bytes, png_size

DPI = 100  # one unit of every layout here is 1/100 inch: a pixel on an ordinary screen
DENSITY = 2  # pictures are drawn at twice that, so that they are sharp on a fine screen and in print
PAGE = 760  # the width of a page, in units
MARGIN = 8

Facts = Mapping[str, Any]


@contextmanager
def style() -> Iterator[None]:
    """The package's style sheet, for as long as the `with` lasts."""
    with as_file(files(__package__) / "dlcv.mplstyle") as sheet, matplotlib.style.context(["default", sheet]):
        yield


class ReportFigure(Figure):
    """A matplotlib figure with a caption and the facts that made it, without pyplot.

    - width, height: in units of 1/100 inch, without the caption below.

    >>> fig = ReportFigure(300, 200, caption="An empty page", facts={"seed": 0})
    >>> axes = fig.place(20, 20, 260, 160)
    """

    def __init__(
        self, width: int, height: int, *, caption: str = "", facts: Facts | None = None, **options: Any
    ) -> None:
        # the quarter of a unit keeps floats off the edge: the drawing is exactly width · density pixels wide
        super().__init__(figsize=((width + 0.25) / DPI, (height + 0.25) / DPI), dpi=DPI, **options)
        FigureCanvasAgg(self)
        self.width, self.height = width, height
        self.caption = caption
        self.facts = dict(facts or {})

    def place(self, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
        """Axes at an exact place, in units from the top left corner."""
        bottom = self.height - top - height
        across, up = self.width + 0.25, self.height + 0.25
        return self.add_axes((left / across, bottom / up, width / across, height / up), **options)

    def write(self, x: float, y: float, words: str, **options: Any) -> None:
        """Text at an exact place, in units from the top left corner. `$…$` is mathematics."""
        options.setdefault("parse_math", words.count("$") >= 2)
        self.text(x / (self.width + 0.25), (self.height - y) / (self.height + 0.25), words, **options)

    def to_png(self, density: int = DENSITY) -> bytes:
        """The figure and its caption as a PNG with the facts in its metadata. `density` 1 is 100 dpi."""
        return _render(self, self.caption, self.facts, density)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        png = self.to_png()
        words = _in_one_line(self.caption, self.facts)
        return {"image/png": png, "text/plain": f"<figure: {words}>"}, {"image/png": png_size(png, DENSITY)}


def describe(facts: Facts) -> str:
    """Facts as the line that stands below a figure.

    >>> describe({"seeds": range(4), "steps": 350, "w": 2.0})
    'seeds = 0…3, steps = 350, w = 2'
    """
    return ", ".join(f"{name} = {_in_words(value)}" for name, value in facts.items())


def save_figure(fig: Figure, path: str | Path, facts: Facts | None = None, *, density: int = DENSITY) -> Path:
    """Write a figure as PNG, with the facts that would make it again below it and in its metadata; returns the path.

    - fig: any matplotlib figure. path: see `figures_folder`.
    - facts: seeds, steps, η, w, weights …, added to the figure's own; in the PNG's text they are JSON under `Facts`.

    Raises `UserError` for a path that is no PNG or cannot be written, and where there are no facts.

    >>> save_figure(fig, figures_folder() / "digits.png", {"seeds": range(10), "w": 2.0})  # doctest: +SKIP
    """
    path = Path(path)
    is_png = path.suffix.lower() == ".png"
    check(is_png, f"cannot write a figure to '{path}': its facts travel in a PNG; give a name that ends in .png")
    facts = {**getattr(fig, "facts", {}), **(facts or {})}
    check(facts, f"the figure for '{path.name}' has no facts; give the numbers that made it, as seeds, steps, w")
    png = _render(fig, getattr(fig, "caption", ""), facts, density)
    with atomic_write(path) as temporary:
        temporary.write_bytes(png)
    return path


def read_facts(path: str | Path) -> dict[str, Any]:
    """The facts that a figure was saved with; `{}` for a picture without any.

    Raises `UserError` where there is no such file, it is no picture, or its facts are damaged.

    >>> read_facts("figures/digits_mnistm_grid.png")["w"]   # doctest: +SKIP
    2.0
    """
    try:
        with Image.open(path) as image:
            facts = json.loads(image.info.get("Facts", "{}"))
    except (OSError, ValueError, SyntaxError, RecursionError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or "not a picture with facts in JSON"
        raise UserError(f"cannot read the facts of '{path}': {why}; give a figure of this package") from error
    return validated(dict[str, Any], facts, f"the facts of '{path}'")


def figures_folder() -> Path:
    """`$DLCV_FIGURES`, else `figures/` beside the notebooks, or here."""
    if folder := os.environ.get("DLCV_FIGURES"):
        return Path(folder)
    here = Path.cwd()
    return (here.parent if here.name == "notebooks" else here) / "figures"


@lru_cache(maxsize=1024)
def text_width(words: str, size: float, weight: str = "normal") -> float:
    """Width of one line of text in units, at `size` points; `$…$` is mathematics."""
    font = FontProperties(family="DejaVu Sans", weight=weight, size=size)
    return text_to_path.get_text_width_height_descent(words, font, ismath=words.count("$") >= 2)[0] * DPI / 72


def _render(fig: Figure, caption: str, facts: Facts, density: int) -> bytes:
    words = _in_one_line(caption, facts)
    with style():
        body = _rasterise(fig, density)
        picture = np.concatenate([body, _caption(words, body.shape[1], density)]) if words else body
    text = {
        "Description": words,
        "Facts": json.dumps(facts, default=_plain),
        "Software": f"dlcv_diffusion {__version__}",
    }
    return png_bytes(picture, text)


def _rasterise(fig: Figure, density: int) -> np.ndarray:
    own_dpi = fig.dpi
    canvas = FigureCanvasAgg(fig)
    try:
        fig.dpi = DPI * density
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]
    finally:
        fig.dpi = own_dpi


def _caption(words: str, pixels: int, density: int, size: float = 8, line_height: int = 15) -> np.ndarray:
    width = pixels // density
    lines = textwrap.wrap(words, int((width - 2 * MARGIN) / (0.8 * size)))  # of letters as wide as ours are
    fig = ReportFigure(width, len(lines) * line_height + MARGIN)
    for number, line in enumerate(lines):
        fig.write(MARGIN, (number + 0.5) * line_height, line, size=size, color="#444444", va="center")
    strip = _rasterise(fig, density)
    return np.pad(strip, ((0, 0), (0, pixels - strip.shape[1]), (0, 0)), constant_values=255)


def _in_one_line(caption: str, facts: Facts) -> str:
    return ". ".join(part for part in (caption.rstrip(". "), describe(facts)) if part)


def _in_words(value: Any) -> str:
    value = value if isinstance(value, str | int | float | None) else _plain(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        if len(value) > 2 and all(type(v) is int for v in value) and set(np.diff(value)) == {1}:
            return f"{value[0]}…{value[-1]}"
        words = ", ".join(map(_in_words, value))
        return words if len(value) == 1 else f"({words})"
    return str(value)


def _plain(value: Any) -> Any:
    """What JSON can hold; of an absolute path only the name."""
    if isinstance(value, PurePath):
        return value.name if value.is_absolute() else value.as_posix()
    if isinstance(value, range | set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars too
        return value.tolist()
    return value if isinstance(value, list | tuple | dict) else str(value)
