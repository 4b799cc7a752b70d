"""Zero-shot in pictures: what resembles what, and cases with their most probable classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import check
from ..figures.page import MARGIN, PAGE, Facts, ReportFigure, save_figure, style
from ..files import staging_folder
from ..models.clip import Clip
from ..training.objective import generator_of
from .classify import class_embeddings, classify
from .pictures import Pictures
from .result import Case, ZeroShotResult
from .search import picture_features

RIGHT, WRONG, UNKNOWN, OTHER = "#0072B2", "#D55E00", "#CC79A7", "#BBBBBB"
"""Of bars: the true class, the class that was read and is not it, the class that was read where the true one is not
known, the rest. The colour-blind tell them apart."""

PALE = 0.55
"""How opaque bars are, so that words can be read on them."""

MOST_BARS = 10

SIDE, ROW = 84, 108
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
    side, top = min(320, (PAGE - LEGEND) // len(values) - 30), 60 if title else 34
    with style():
        fig = ReportFigure(LEGEND + len(values) * (side + 30), top + side + 30, caption=caption, facts=facts)
        for number, (name, matrix) in enumerate(values.items()):
            axes = fig.place(48 + number * (side + 30), top, side, side)
            shown = axes.imshow(matrix, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            axes.set(title=name, xlabel="texts", xticks=[], yticks=[], ylabel="" if number else "pictures")
        bar = fig.place(48 + len(values) * (side + 30) - 18, top, 10, side)
        fig.colorbar(shown, cax=bar, label="cosine")
        if title:
            fig.write(MARGIN, 16, title, size=10, weight="bold", va="center")
    return fig


def cases_figure(
    cases: Sequence[Case],
    pictures: Pictures,
    title: str = "",
    caption: str = "Blue: the true class. Orange: read instead of it",
    *,
    columns: int = 2,
    facts: Facts | None = None,
) -> ReportFigure:
    """Pictures, each with the bars of its most probable classes, their probabilities, and the file's name above.

    - cases: of `ZeroShotResult.cases`; pictures: those that were classified.

    Raises `UserError` for no case, and for one that is not among the pictures.

    >>> fig = cases_figure(found.cases(5, 5), pictures, facts={"model": "emoji", "seed": 0})   # doctest: +SKIP
    """
    check(cases, "there is no case to show; ask for at least one right or wrong")
    places = {name: row for row, name in enumerate(pictures.files)}
    unknown = next((case.file for case in cases if case.file not in places), None)
    check(unknown is None, f"'{unknown}' is not among the pictures; give those that were classified")
    rows, across = -(-len(cases) // columns), PAGE // columns
    top = 34 if title else MARGIN
    with style():
        fig = ReportFigure(across * columns, top + rows * ROW + MARGIN, caption=caption, facts=facts)
        if title:
            fig.write(MARGIN, 16, title, size=10, weight="bold", va="center")
        for number, case in enumerate(cases):
            left, above = number // rows * across + MARGIN, top + number % rows * ROW
            _picture(fig, pictures.read(places[case.file]), f"{case.file}: {case.true}", left, above + 16)
            names, values = zip(*case.top, strict=True)
            bars = zip(names, values, bar_colours(names, values, case.true), strict=True)
            _bars(fig, list(bars), left + SIDE + 6, above + 16, across - SIDE - 3 * MARGIN, SIDE)
    return fig


def temperatures_figure(
    pictures: Mapping[str, Image.Image],
    words: Sequence[str],
    cosines: Tensor,
    temperatures: Mapping[str, float],
    title: str = "",
    caption: str = "",
    *,
    true: Sequence[str | None] | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """A row for each picture: softmax(cos / τ) over the same words, at one temperature τ beside the other.

    - pictures: by what is written above them; true: which of the words is meant in each, None where none is.
    - cosines: (N, K), of N pictures and K words; of many words only `shown` ones have a bar.
    - temperatures: by what is written above their column.

    Raises `UserError` where there are no pictures or temperatures, or not N × K cosines.

    >>> import torch
    >>> picture = {"a fox": Image.new("RGB", (64, 64))}
    >>> taus = {"τ = 0.01": 0.01, "τ = 0.1": 0.1}
    >>> fig = temperatures_figure(picture, ["fox", "owl"], torch.tensor([[0.3, 0.28]]), taus, facts={"model": "none"})
    """
    check(pictures and temperatures, "give a picture and a temperature, one or more of each")
    fits = tuple(cosines.shape) == (len(pictures), len(words))
    check(fits, f"cosines of shape {tuple(cosines.shape)} for {len(pictures)} pictures and {len(words)} words")
    high, top = max(SIDE, 13 * min(len(words), MOST_BARS)), (34 if title else MARGIN) + 18
    first, row = 2 * MARGIN + SIDE, high + 24
    across = (PAGE - first) / len(temperatures)
    with style():
        fig = ReportFigure(PAGE, top + len(pictures) * row, caption=caption, facts=facts)
        if title:
            fig.write(MARGIN, 16, title, size=10, weight="bold", va="center")
        for column, name in enumerate(temperatures):
            fig.write(first + column * across, top - 9, name, size=9, va="center", parse_math=False)
        for number, (name, picture) in enumerate(pictures.items()):
            above = top + number * row + 16
            _picture(fig, picture, name, MARGIN, above)
            for column, temperature in enumerate(temperatures.values()):
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


def _picture(fig: ReportFigure, picture: Image.Image, name: str, left: float, top: float) -> None:
    """A picture in a square, with a name above it."""
    small = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)
    axes = fig.place(left, top, SIDE, SIDE)
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
        axes.text(0.015, number, f"{name}  {value:.0%}", size=min(8.0, step / 2), va="center", parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5))
    axes.set_axis_off()


def one_of_each(pictures: Pictures, count: int = 24, seed: int = 0) -> list[int]:
    """Rows of one picture each of `count` classes, or of all where there are fewer, chosen at random by `seed`.

    >>> pictures = Pictures.of(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 1, 1], ["fox", "owl"])
    >>> [pictures.labels[row].item() for row in one_of_each(pictures)]
    [0, 1]
    """
    order = torch.randperm(len(pictures), generator=generator_of(seed))
    rows = {int(pictures.labels[row]): int(row) for row in order}
    chosen = torch.tensor(sorted(rows))[torch.randperm(len(rows), generator=generator_of(seed, 1))[:count]]
    return [rows[label] for label in chosen.sort().values.tolist()]


def classes_figure(clip: Clip, pictures: Pictures, *, count: int = 24, seed: int = 0) -> ReportFigure:
    """The similarity of one picture of each class to the names of these classes, by the course's template.

    >>> fig = classes_figure(load_clip("emoji"), load_pictures("emoji"))   # doctest: +SKIP
    """
    rows = one_of_each(pictures, count, seed)
    read, features = picture_features(clip, pictures.subset(rows))
    labels = [int(pictures.labels[rows[row]]) for row in read]
    texts = class_embeddings(clip, pictures.classes).cpu()[labels]
    nearest = (features @ texts.T).argmax(1) == torch.arange(len(labels))
    caption = f"Rows: a picture of each of {len(labels)} classes; columns: their names, in the same order. "
    caption += f"The nearest of these names is the right one for {int(nearest.sum())}"
    facts = {"model": clip.name, "pictures": pictures.source, "seed": seed}
    return similarity_figure({"pictures and names": features @ texts.T}, "", caption, facts=facts)


def result_figure(
    found: ZeroShotResult, pictures: Pictures, right: int = 5, wrong: int = 5, seed: int = 0
) -> ReportFigure:
    """`cases_figure` of some cases of a result, chosen by `seed`, with the accuracy above them.

    >>> fig = result_figure(found, pictures)   # doctest: +SKIP
    """
    title = f"Accuracy {found.accuracy:.2%} of {found.count:,} pictures, {len(found.classes)} classes"
    how = found.templates[0] if len(found.templates) == 1 else f"{len(found.templates)}, in an ensemble"
    facts = {"model": found.model, "pictures": found.source, "template": how, "seed": seed}
    return cases_figure(found.cases(right, wrong, seed), pictures, title, facts=facts)


def write_zero_shot_figures(
    out: str | Path,
    clip: Clip,
    pictures: Pictures,
    *,
    templates: str | Sequence[str] = "single",
    seed: int = 0,
    progress: bool = False,
) -> list[Path]:
    """The report's figures and table for Problem 3's first half; returns their paths.

    `zero_shot_similarity.png`, `zero_shot_cases.png`: see `classes_figure` and `result_figure`; `zero_shot_cases.csv`:
    file name, class read and true class of five pictures that were read right and five that were not.

    - templates, progress: those of `classify`. seed: of the choice of pictures.

    The files appear when all are made. Raises `UserError` where `out` cannot be written, and as `classify` does.

    >>> write_zero_shot_figures("figures", load_clip("emoji"), load_pictures("emoji"))   # doctest: +SKIP
    """
    found = classify(clip, pictures, templates=templates, progress=progress)
    figures = {
        "zero_shot_similarity.png": classes_figure(clip, pictures, seed=seed),
        "zero_shot_cases.png": result_figure(found, pictures, seed=seed),
    }
    with staging_folder(out) as staging:
        for name, figure in figures.items():
            save_figure(figure, staging / name)
        found.write_cases(staging / "zero_shot_cases.csv", seed=seed)
    return [Path(out) / name for name in (*figures, "zero_shot_cases.csv")]
