"""Zero-shot in pictures: what resembles what, and cases with their most probable classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import check
from ..figures.page import MARGIN, SMALLEST, Facts, ReportFigure, layout, style, wrapped
from .classify import above_zero
from .pictures import Pictures
from .result import Case

RIGHT, WRONG, UNKNOWN, OTHER = "#0072B2", "#D55E00", "#CC79A7", "#BBBBBB"
"""Of bars: the true class, the class that was read and is not it, the class that was read where the true one is not
known, the rest. The colour-blind tell them apart."""

PALE = 0.55
"""How opaque bars are, so that words can be read on them."""

CASES_CAPTION = "Blue: the true class. Orange: predicted instead"
MOST_BARS = 10

SIDE, NARROW_SIDE, NAME = 84, 56, 24
"""Units of a picture's side, the same in a narrow figure, and what its name takes above it."""
LEGEND = 106
"""What the axis and the scale of grey take of a similarity figure's width."""


def similarity_figure(
    matrices: Mapping[str, Tensor], title: str = "", caption: str = "", *, facts: Facts | None = None
) -> ReportFigure:
    """Similarity matrices beside each other, rows pictures, columns texts; own pairs on the diagonal.

    - matrices: cosines (N, M) by name, such as {"before": …, "after": …}; one scale of grey for all.

    Raises `UserError` for none.

    >>> fig = similarity_figure({"after": images @ texts.T}, facts={"seed": 0})   # doctest: +SKIP
    """
    check(matrices, "there is no similarity matrix to show; give one by name")
    values = {name: np.asarray(matrix.detach().cpu().float()) for name, matrix in matrices.items()}
    low, high = min(matrix.min() for matrix in values.values()), max(matrix.max() for matrix in values.values())
    side, top = min(320, (layout().width - LEGEND) // len(values) - 30), _below_title(title, 42)
    with style():
        fig = ReportFigure(LEGEND + len(values) * (side + 30), top + side + 30, caption=caption, facts=facts)
        for number, (name, matrix) in enumerate(values.items()):
            axes = fig.place(48 + number * (side + 30), top, side, side)
            shown = axes.imshow(matrix, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            axes.set(title=name, xlabel="texts", xticks=[], yticks=[], ylabel="" if number else "pictures")
        bar = fig.place(48 + len(values) * (side + 30) - 18, top, 10, side)
        fig.colorbar(shown, cax=bar, label="cosine")
        _write_title(fig, title)
    return fig


def cases_figure(
    cases: Sequence[Case],
    pictures: Pictures,
    title: str = "",
    caption: str = CASES_CAPTION,
    *,
    columns: int = 2,
    per_column: int | None = None,
    heads: Sequence[str] = (),
    facts: Facts | None = None,
) -> ReportFigure:
    """Pictures, each with the bars of its most probable classes, their probabilities, and above it the file's name and
    the true class.

    - cases: of `ZeroShotResult.cases`, down the columns; pictures: those that were classified.
    - columns: how many, filled from the left, each with `per_column` cases, or with as many as fit; heads: what stands
      above each column.

    Raises `UserError` for no case, and for one that is not among the pictures.

    >>> fig = cases_figure(found.cases(5, 5), pictures, facts={"model": "emoji", "seed": 0})   # doctest: +SKIP
    """
    check(cases, "there is no case to show; ask for at least one right or wrong")
    places = {name: row for row, name in enumerate(pictures.files)}
    unknown = next((case.file for case in cases if case.file not in places), None)
    check(unknown is None, f"'{unknown}' is not among the pictures; give those that were classified")
    rows, side = per_column or -(-len(cases) // columns), NARROW_SIDE if layout().narrow else SIDE
    start = _below_title(title) + (18 if heads else 0)
    block = rows * (side + NAME) + (18 if heads else 0)  # in a narrow figure the columns stand below each other
    across = layout().width if layout().narrow else layout().width // columns
    count = -(-len(cases) // rows)
    size = (across, start + count * block) if layout().narrow else (across * columns, start + rows * (side + NAME))
    with style():
        fig = ReportFigure(size[0], size[1] + MARGIN, caption=caption, facts=facts)
        _write_title(fig, title)
        corners = [(0, start + n * block) if layout().narrow else (n * across, start) for n in range(count)]
        for (left, top), name in zip(corners, heads, strict=False):
            fig.write(left + MARGIN, top - 9, name, size=9, va="center", parse_math=False)
        for number, case in enumerate(cases):
            left, top = corners[number // rows]
            left, above = left + MARGIN, top + number % rows * (side + NAME)
            _picture(fig, pictures.read(places[case.file]), f"{case.file}: {case.true}", left, above + 16, side)
            names, values = zip(*case.top, strict=True)
            bars = zip(names, values, bar_colours(names, values, case.true), strict=True)
            _bars(fig, list(bars), left + side + 6, above + 16, across - side - 3 * MARGIN, side)
    return fig


def temperatures_figure(
    pictures: Sequence[tuple[str, Image.Image]],
    words: Sequence[str],
    cosines: Tensor,
    temperatures: Sequence[tuple[str, float]],
    title: str = "",
    caption: str = "",
    *,
    true: Sequence[str | None] | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """A row for each picture: softmax(cos / τ) over the same words, at one temperature τ beside the other.

    - pictures: N pairs of what is written above a picture, and the picture; true: which of the words is meant in each,
      None where none is.
    - cosines: (N, K), of N pictures and K words; of many words only `shown` ones have a bar.
    - temperatures: pairs of what is written above a column, and its τ > 0.

    Raises `UserError` where there are no pictures or temperatures, a temperature is not above 0, or there are not N × K
    cosines.

    >>> import torch
    >>> picture = [("a fox", Image.new("RGB", (64, 64)))]
    >>> taus = [("τ = 0.01", 0.01), ("τ = 0.1", 0.1)]
    >>> fig = temperatures_figure(picture, ["fox", "owl"], torch.tensor([[0.3, 0.28]]), taus, facts={"model": "none"})
    """
    check(pictures and temperatures, "give a picture and a temperature, one or more of each")
    fits = tuple(cosines.shape) == (len(pictures), len(words))
    taus = [above_zero(temperature) for _, temperature in temperatures]
    check(fits, f"cosines of shape {tuple(cosines.shape)} for {len(pictures)} pictures and {len(words)} words")
    high, top = max(SIDE, 13 * min(len(words), MOST_BARS)), _below_title(title) + 18
    first, row = 2 * MARGIN + SIDE, high + 24
    across = (layout().width - first) / len(temperatures)
    with style():
        fig = ReportFigure(layout().width, top + len(pictures) * row, caption=caption, facts=facts)
        _write_title(fig, title)
        for column, (name, _) in enumerate(temperatures):
            fig.write(first + column * across, top - 9, name, size=9, va="center", parse_math=False)
        for number, (name, picture) in enumerate(pictures):
            above = top + number * row + 16
            _picture(fig, picture, name, MARGIN, above, SIDE)
            for column, temperature in enumerate(taus):
                values = (cosines[number].double() / temperature).softmax(0).tolist()
                colours = bar_colours(words, values, true[number] if true else None)
                bars = [(words[place], values[place], colours[place]) for place in shown(cosines[number].tolist())]
                _bars(fig, bars, first + column * across, above, across - 2 * MARGIN, high)
    return fig


def shown(values: Sequence[float], most: int = MOST_BARS) -> list[int]:
    """The places of the bars to draw: all as they come, so that bars stay where they are; of many the highest, sorted.

    >>> shown([0.1, 0.7, 0.2]), shown([0.1, 0.7, 0.2], most=2)
    ([0, 1, 2], [1, 2])
    """
    places = range(len(values))
    return list(places) if len(values) <= most else sorted(places, key=lambda place: -values[place])[:most]


def bar_colours(words: Sequence[str], values: Sequence[float], true: str | None) -> list[str]:
    """A colour for each bar; true is None where it is not known.

    >>> bar_colours(["fox", "owl", "cat"], [0.2, 0.7, 0.1], "fox") == [RIGHT, WRONG, OTHER]
    True
    """
    top = words[max(range(len(words)), key=values.__getitem__)]
    first = UNKNOWN if true is None else WRONG
    return [RIGHT if word == true else first if word == top else OTHER for word in words]


def percent(share: float, digits: int = 1) -> str:
    """A probability as it is written: a softmax gives neither 0 nor 1.

    >>> percent(0.5), percent(0.99999), percent(1e-7), percent(0.995, 0)
    ('50.0 %', '> 99.9 %', '< 0.1 %', '> 99 %')
    """
    least = 10.0**-digits
    if least / 2 <= 100 * share < 100 - least / 2:
        return f"{100 * share:.{digits}f} %"
    return f"< {least:g} %" if share < 0.5 else f"> {100 - least:g} %"


def _title_lines(title: str) -> list[str]:
    return wrapped(title, layout().width - 2 * MARGIN, 10, "bold") if title else []


def _below_title(title: str, first: int = 16) -> int:
    """Where a figure's content begins, in units from the top, below a title of one line or more."""
    return first + 18 * len(_title_lines(title)) if title else max(MARGIN, first - MARGIN)


def _write_title(fig: ReportFigure, title: str) -> None:
    for number, line in enumerate(_title_lines(title)):
        fig.write(MARGIN, 16 + 18 * number, line, size=10, weight="bold", va="center")


def _picture(fig: ReportFigure, picture: Image.Image, name: str, left: float, top: float, side: int) -> None:
    """A picture in a square, with a name above it."""
    small = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC, reducing_gap=2)
    axes = fig.place(left, top, side, side)
    axes.imshow(np.asarray(small), aspect="auto")
    axes.set_axis_off()
    fig.write(left, top - 8, name, size=7.5, va="center", parse_math=False)


def _bars(
    fig: ReportFigure, bars: Sequence[tuple[str, float, str]], left: float, top: float, width: float, height: float
) -> None:
    """Bars of words, probabilities and colours, from the top down."""
    step = height / len(bars)
    axes = fig.place(left, top, width, height)
    for number, (name, value, colour) in enumerate(bars):
        axes.barh(number, value, height=0.86, color=colour, alpha=PALE)
        axes.text(
            0.015,
            number,
            f"{name}  {percent(value, 0)}",
            size=max(SMALLEST, min(8.0, step / 2)) if layout().print else min(8.0, step / 2),
            va="center",
            parse_math=False,
        )
    axes.set(xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5))
    axes.set_axis_off()
