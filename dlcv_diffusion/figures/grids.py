"""Grids of images: pixels are shown as they are, every row and column says what it is."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from einops import rearrange, reduce

from ..errors import check
from .page import MARGIN, SMALLEST, Facts, ReportFigure, layout, style, text_width, wrapped
from .rgb import WHITE, tile, to_rgb

LABEL_SIZE, NARROW_SIZE = 9.0, 7.5
LINE = 18
HEAD_LINE = 11
LARGEST, TALLEST = 4.0, 600
"""Units that a pixel of an image takes in print, and that a grid is high there, at most."""
LONGEST = 80
"""Units that the names of rows may take in a narrow figure; longer ones go on in the next line."""


def image_grid(
    images: Any,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
    *,
    columns: int | None = None,
    zoom: int | None = None,
    gap: int = 2,
    facts: Facts | None = None,
) -> ReportFigure:
    """A grid of images with labelled rows and columns.

    - images: (N, C, H, W), row by row, or (rows, columns, C, H, W), as `to_rgb` takes them.
    - row_labels, column_labels: one for each; `$…$` is mathematics. caption, facts: see `save_figure`.
    - columns: images a row, by default as the labels say. gap: between images, in 1/100 inch.
    - zoom: screen pixels an image pixel; by default what fits a page, for which large images are halved.

    Raises `UserError` where images and labels do not fit together.

    >>> fig = image_grid(np.zeros((4, 3, 8, 8), np.uint8), ["0", "1"], ["seed 0", "seed 1"], "Digits")
    """
    if len(images.shape) == 5:
        columns = images.shape[1]
        images = rearrange(images, "rows columns c h w -> (rows columns) c h w")
    elif columns is None:
        columns = len(column_labels) if column_labels else ceil(len(images) / len(row_labels or "1"))
    images = to_rgb(images)
    rows = ceil(len(images) / columns)
    for labels, count, name in ((row_labels, rows, "rows"), (column_labels, columns, "columns")):
        fits = labels is None or len(labels) == count
        check(fits, f"{len(labels or ())} labels for {count} {name} of images; give one for each")

    density, size = layout().density, NARROW_SIZE if layout().narrow else LABEL_SIZE
    if layout().narrow and row_labels:
        row_labels = ["\n".join(wrapped(label, LONGEST, size)) for label in row_labels]
    left = MARGIN + (_widest(row_labels, size) + MARGIN if row_labels else 0)
    mosaic = _mosaic(images, columns, layout().width - left - MARGIN, zoom, gap)
    across, down = (side / density * _stretch(mosaic, left, images.shape[2], columns) for side in mosaic.shape[1::-1])
    step = (across + gap) / columns
    heads = _heads(column_labels or [], step)
    titles = wrapped(title, layout().width - 2 * MARGIN, 10, "bold") if title else []
    head = LINE + HEAD_LINE * max((label.count("\n") for label in heads), default=0) if heads else 0
    top = MARGIN + (LINE * len(titles) + 2 if title else 0) + head
    width = ceil(max([left + across + MARGIN, *(2 * MARGIN + text_width(line, 10, "bold") for line in titles)]))

    with style():
        fig = ReportFigure(width, ceil(top + down + MARGIN), caption=caption, facts=facts)
        axes = fig.place(left, top, across, down)
        axes.imshow(mosaic, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        start = left if width - left - MARGIN >= text_width(max(titles, key=len, default=""), 10, "bold") else MARGIN
        for number, line in enumerate(titles):
            fig.write(start, MARGIN + (number + 0.5) * LINE, line, size=10, weight="bold", va="center")
        small = max(SMALLEST, min(size, size * step / _widest(heads, size))) if heads else size
        for index, label in enumerate(heads):
            x = left + (index + 0.5) * step - gap / 2
            fig.write(x, top - head / 2, label, size=small, ha="center", va="center", linespacing=1.0)
        for index, label in enumerate(row_labels or []):
            y = top + (index + 0.5) * (down + gap) / rows - gap / 2
            fig.write(left - MARGIN, y, label, size=size, ha="right", va="center", linespacing=1.0)
    return fig


def digit_grid(
    images: Any,
    noises: Sequence[int | str] | None = None,
    title: str = "",
    caption: str = "Rows: digits. Columns: one noise each",
    *,
    zoom: int | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """An `image_grid` of generated digits: rows are digits 0 … 9, columns are noises.

    - images: (10, N, C, H, W), or (10 · N, C, H, W) digit by digit. noises: names of the columns, such as seeds.

    Raises `UserError` where the images are not ten rows.

    >>> fig = digit_grid(np.zeros((10, 10, 3, 28, 28), np.uint8), noises=range(10), title="MNIST-M")
    """
    ten_rows = len(images) == 10 if len(images.shape) == 5 else len(images) % 10 == 0
    check(ten_rows, f"images of shape {tuple(images.shape)} are not ten rows of digits; give (10, N, C, H, W)")
    labels = None if noises is None else [str(noise) for noise in noises]
    columns = len(images) // 10
    return image_grid(images, list("0123456789"), labels, title, caption, columns=columns, zoom=zoom, facts=facts)


def reverse_strip(
    steps: Sequence[Any],
    images: int | Sequence[int] = 0,
    names: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
    *,
    predicted: bool = True,
    start: Any = None,
    zoom: int | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """The reverse process, a column for each step: x after the step, above the predicted x0.

    - steps: those of a sampler that are shown.
    - images: which of the batch, with `names` for them.
    - predicted: whether x0 is shown. start: x_T, (B, C, H, W), for a column before the first step.

    Raises `UserError` where there are no steps, or not as many names as images.

    >>> reverse_strip([step for step in ddpm(denoise, x_T, seeds=[0]) if step.t % 50 == 0])   # doctest: +SKIP
    """
    chosen = [images] if isinstance(images, int) else list(images)
    names = [""] * len(chosen) if names is None else names
    check(len(steps), "there are no steps to show; give some of those that a sampler yields")
    check(len(names) == len(chosen), f"{len(names)} names for {len(chosen)} images; give one for each")
    first = [] if start is None else [to_rgb(start[chosen])]
    rows = [first + [to_rgb(step.x[chosen]) for step in steps]]
    if predicted:
        blank = [np.full_like(image, WHITE) for image in first]
        rows.append(blank + [to_rgb(step.x0[chosen]) for step in steps])
    labels = [label for name in names for label in (f"{name}  $x$".strip(), "predicted $x_0$")[: len(rows)]]
    columns = ["$x_T$"] * len(first) + [f"t = {int(step.t)}" for step in steps]
    stacked = rearrange(np.array(rows), "row step image h w c -> (image row) step c h w")
    return image_grid(stacked, labels, columns, title, caption, zoom=zoom, facts=facts)


def _widest(labels: Sequence[str], size: float) -> int:
    lines = [line for label in labels for line in label.split("\n")]
    return ceil(max(1, *(text_width(line, size) for line in lines)))


def _heads(labels: Sequence[str], room: float) -> list[str]:
    """Names of columns; where even the smallest letters do not let each stand in one line of a report, in two."""
    if not layout().print or all(text_width(label, SMALLEST) <= room - 2 for label in labels):
        return list(labels)
    return ["\n".join(label.rsplit(" ", 1)) for label in labels]


def _stretch(mosaic: np.ndarray, left: float, pixels: int, columns: int) -> float:
    """By how much a grid is enlarged to fill the width of print; on a screen a pixel stays a square of whole pixels."""
    if not layout().print:
        return 1.0
    room = layout().width - left - MARGIN
    widest = min(room, LARGEST * pixels * columns, TALLEST * mosaic.shape[1] / mosaic.shape[0])
    return widest * layout().density / mosaic.shape[1]


def _mosaic(images: np.ndarray, columns: int, room: float, zoom: int | None, gap: int) -> np.ndarray:
    """The grid of (N, H, W, 3) in device pixels, so many of them a unit as the layout has."""
    density = layout().density
    across = ((room + gap) / columns - gap) * density  # device pixels for one image
    while zoom is None and min(images.shape[1:3]) >= 32 and images.shape[2] > across:
        images = _halved(images)
    fits = max(1, int(across // images.shape[2]))
    device_zoom = zoom * density if zoom else fits - (fits % density if fits > density else 0)
    return tile(rearrange(images, "n h w c -> n c h w"), columns, gap=gap * density, zoom=device_zoom)


def _halved(images: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in images.shape[1:3])
    means = reduce(images[:, :height, :width].astype(float), "n (h 2) (w 2) c -> n h w c", "mean")
    return means.round().astype(np.uint8)
