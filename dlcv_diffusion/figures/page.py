"""The page of every figure: its style, its caption, the facts that would make it again."""

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
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
from matplotlib.transforms import Bbox
from PIL import Image

from .. import __version__
from ..declared import validated
from ..errors import UserError, check
from ..files import atomic_write
from .rgb import png_bytes, png_size
from .words import describe

DPI = 100  # one unit of every layout here is 1/100 inch: a pixel on an ordinary screen
DENSITY = 2  # pictures are drawn at twice that, so that they are sharp on a fine screen and in print
PAGE = 760  # the width of a page, in units
MARGIN = 8
CAPTION, CAPTION_LINE = 8.0, 15  # points of its letters, units from line to line

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """What a figure is laid out for.

    - width: in units of 1/100 inch. density: device pixels a unit. format: of the file that `save_figure` writes.
    - caption: whether it is part of the figure. print: whether the caption is in words, for a report.
    - captions: of the figures that were saved, by the names of their files.
    """

    width: int = PAGE
    density: int = DENSITY
    format: str = "png"
    caption: bool = True
    print: bool = False
    captions: dict[str, str] = field(default_factory=dict)

    @property
    def narrow(self) -> bool:
        """Whether there is no room for two panels, or two columns of cases, beside each other."""
        return self.width < 500


PRINTED = {"column": 330, "page": 700}
"""Widths in a report: a column of two is 3.3 inches wide, a page 7."""
FORMATS = ("png", "pdf", "svg")
SMALLEST = 7.0
"""Points of the smallest letters."""

SCREEN = Layout()
_layout: ContextVar[Layout] = ContextVar("layout")


def layout() -> Layout:
    """What figures are laid out for here: the screen, unless `printed` says otherwise."""
    return _layout.get(SCREEN)


@contextmanager
def printed(width: str = "page", *, format: str = "png", caption: bool = True) -> Iterator[dict[str, str]]:
    """Lay out the figures made inside for print, in the size in which they are to stand there: no letter below 7 pt.

    - width: "column" (3.3 inches) or "page" (7.0), at most. caption: whether it is drawn below the figure.
    - format: "png" (300 dpi), "pdf" or "svg", in which text is text.
    - Yields the captions of the figures that are saved inside, by the names of their files.

    Raises `UserError` for others.

    >>> with printed("column", format="pdf"):   # doctest: +SKIP
    ...     save_figure(eta_figure(load_denoiser("faces")), "eta.pdf")
    """
    check(width in PRINTED, f"no such width: '{width}'; there are {', '.join(PRINTED)}")
    check(format in FORMATS, f"no such format: '{format}'; there are {', '.join(FORMATS)}")
    captions: dict[str, str] = {}
    token = _layout.set(Layout(PRINTED[width], 3, format, caption, True, captions))
    try:
        yield captions
    finally:
        _layout.reset(token)


def wrapped(words: str, room: float, size: float, weight: str = "normal") -> list[str]:
    """Words in lines of at most so many units, as far as spaces allow."""
    lines: list[str] = []
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


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
        written = ", ".join(text.get_text() for text in self.texts[:12] if text.get_text().strip())
        alt = ". ".join(part for part in (written, words) if part) or "a figure"
        metadata = {"image/png": {**png_size(png, DENSITY), "alt": alt}}  # which pages made by nbconvert have
        return {"image/png": png, "text/plain": f"<figure: {words}>"}, metadata


def save_figure(fig: Figure, path: str | Path, facts: Facts | None = None, *, density: int | None = None) -> Path:
    """Write a figure, with the facts that would make it again below it and in its metadata; returns the path.

    - fig: any matplotlib figure. path: see `figures_folder`; a PNG, or inside `printed` in the format given there,
      whatever the name ends in.
    - facts: seeds, steps, η, w, weights …, added to the figure's own; in the PNG's text they are JSON under `Facts`.

    Raises `UserError` for a path that is no PNG or cannot be written, and where there are no facts.

    >>> save_figure(fig, figures_folder() / "digits.png", {"seeds": range(10), "w": 2.0})  # doctest: +SKIP
    """
    path, how = Path(path), layout()
    is_png = path.suffix.lower() in (".png", f".{how.format}")
    check(is_png, f"cannot write a figure to '{path}': its facts travel in a PNG; give a name that ends in .png")
    facts = {**getattr(fig, "facts", {}), **(facts or {})}
    check(facts, f"the figure for '{path.name}' has no facts; give the numbers that made it, as seeds, steps, w")
    caption, path = getattr(fig, "caption", ""), path.with_suffix(f".{how.format}")
    png = _render(fig, caption, facts, density or how.density) if how.format == "png" else b""
    with atomic_write(path) as temporary:
        if png:
            temporary.write_bytes(png)
        else:
            _write_vectors(fig, temporary, caption, facts, how)
    if how.print:
        how.captions[path.name] = _in_one_line(caption, facts)
    return path


def _write_vectors(fig: Figure, path: Path, caption: str, facts: Facts, how: Layout) -> None:
    """A PDF or SVG in which text is text; the caption is drawn below the figure, beyond its lower edge."""
    words = _in_one_line(caption, facts)
    (width, height), below, drawn = fig.get_size_inches(), 0.0, []
    if words and how.caption:
        lines = wrapped(words, width * DPI - 2 * MARGIN, CAPTION)
        below = (len(lines) * CAPTION_LINE + MARGIN) / DPI
        for number, line in enumerate(lines):
            y = -(number + 0.5) * CAPTION_LINE / DPI / height
            options = {"size": CAPTION, "color": "#444444", "va": "center", "parse_math": line.count("$") >= 2}
            drawn.append(fig.text(MARGIN / DPI / width, y, line, **options))
    said = json.dumps(facts, default=_plain)
    about = {"Subject": words, "Keywords": said} if how.format == "pdf" else {"Description": words, "Keywords": [said]}
    settings = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "dlcv_diffusion"}
    try:
        with style(), matplotlib.rc_context(settings):
            edges = Bbox([[0, -below], [width, height]])
            about |= {"CreationDate" if how.format == "pdf" else "Date": None}  # equal figures, equal files
            fig.savefig(path, format=how.format, dpi=DPI * how.density, bbox_inches=edges, metadata=about)
    finally:
        for text in drawn:
            text.remove()


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
        strip = [_caption(words, body.shape[1], density)] if words and layout().caption else []
        picture = np.concatenate([body, *strip])
    text = {
        "Description": words,
        "Facts": json.dumps(facts, default=_plain),
        "Software": f"dlcv_diffusion {__version__}",
    }
    return png_bytes(picture, text, dpi=DPI * density)


def _rasterise(fig: Figure, density: int) -> np.ndarray:
    own_dpi = fig.dpi
    canvas = FigureCanvasAgg(fig)
    try:
        fig.dpi = DPI * density
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]
    finally:
        fig.dpi = own_dpi


def _caption(words: str, pixels: int, density: int) -> np.ndarray:
    width = pixels // density
    lines = textwrap.wrap(words, int((width - 2 * MARGIN) / (0.8 * CAPTION)))  # of letters as wide as ours are
    lines = wrapped(words, width - 2 * MARGIN, CAPTION) if layout().print else lines
    fig = ReportFigure(width, len(lines) * CAPTION_LINE + MARGIN)
    for number, line in enumerate(lines):
        fig.write(MARGIN, (number + 0.5) * CAPTION_LINE, line, size=CAPTION, color="#444444", va="center")
    strip = _rasterise(fig, density)
    return np.pad(strip, ((0, 0), (0, pixels - strip.shape[1]), (0, 0)), constant_values=255)


def _in_one_line(caption: str, facts: Facts) -> str:
    said = describe(facts)
    return ". ".join(part for part in (caption.rstrip(". "), said) if part)


def _plain(value: Any) -> Any:
    """What JSON can hold; of an absolute path only the name."""
    if isinstance(value, PurePath):
        return value.name if value.is_absolute() else value.as_posix()
    if isinstance(value, range | set | frozenset):
        return sorted(value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars too
        return value.tolist()
    return value if isinstance(value, list | tuple | dict) else str(value)
