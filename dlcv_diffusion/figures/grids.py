"""Grids of images: pixels are shown as they are, every row and column says what it is."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from ..errors import UserError
from .page import DENSITY, MARGIN, PAGE, Facts, ReportFigure, style, text_width
from .pixels import tile, to_rgb

LABEL_SIZE, SMALLEST = 9.0, 6.0
LINE = 18


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

    - images: (N, C, H, W), filled in row by row, or (rows, columns, C, H, W); uint8, or float in [-1, 1],
      which is clipped.
    - row_labels, column_labels: one for each row and column; `$…$` is mathematics.
    - columns: how many a row; by default what the labels say, or all in one row.
    - zoom: screen pixels an image pixel, nearest neighbour; by default the most that fits a page. Images too
      large for the page are halved, quartered, …, by averaging.
    - gap: units of white between images.
    - caption, facts: printed below; see `save_figure`.

    Raises `UserError` where images and labels do not fit together.

    >>> fig = image_grid(np.zeros((4, 3, 8, 8), np.uint8), ["0", "1"], ["seed 0", "seed 1"], "Digits")
    """
    if columns is None:
        columns = len(column_labels) if column_labels else -(-len(images) // len(row_labels or "1"))
    images, rows, columns = _arrange(images, columns)
    for labels, count, name in ((row_labels, rows, "rows"), (column_labels, columns, "columns")):
        if labels is not None and len(labels) != count:
            raise UserError(f"{len(labels)} labels for {count} {name} of images; give one for each")

    left = MARGIN + (_widest(row_labels) + MARGIN if row_labels else 0)
    mosaic = _mosaic(images, columns, PAGE - left - MARGIN, zoom, gap)
    across, down = mosaic.shape[1] / DENSITY, mosaic.shape[0] / DENSITY
    top = MARGIN + (LINE + 2 if title else 0) + (LINE if column_labels else 0)
    width = ceil(max(left + across + MARGIN, 2 * MARGIN + text_width(title, 10, "bold")))

    with style():
        fig = ReportFigure(width, ceil(top + down + MARGIN), caption=caption, facts=facts)
        axes = fig.place(left, top, across, down)
        axes.imshow(mosaic, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        if title:
            fig.write(left, MARGIN + LINE / 2, title, size=10, weight="bold", va="center")
        if column_labels:
            step = (across + gap) / columns
            size = max(SMALLEST, min(LABEL_SIZE, LABEL_SIZE * step / _widest(column_labels)))
            for index, label in enumerate(column_labels):
                x = left + (index + 0.5) * step - gap / 2
                fig.write(x, top - LINE / 2, label, size=size, ha="center", va="center")
        for index, label in enumerate(row_labels or []):
            y = top + (index + 0.5) * (down + gap) / rows - gap / 2
            fig.write(left - MARGIN, y, label, size=LABEL_SIZE, ha="right", va="center")
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
    """The report's grid of generated digits: rows are digits 0 … 9, columns are noises.

    - images: (10, N, C, H, W), or (10 · N, C, H, W) digit by digit; the report has N = 10. uint8, or float
      in [-1, 1].
    - noises: what names each column, e.g. the seeds.

    Raises `UserError` where the images are not ten rows.

    >>> fig = digit_grid(np.zeros((10, 10, 3, 28, 28), np.uint8), noises=range(10), title="MNIST-M")
    """
    count = len(images) if len(images.shape) == 5 else len(images) / 10
    if (len(images.shape) == 5 and count != 10) or count != int(count):
        raise UserError(f"images of shape {tuple(images.shape)} are not ten rows of digits; give (10, N, C, H, W)")
    columns = images.shape[1] if len(images.shape) == 5 else int(count)
    labels = None if noises is None else [str(noise) for noise in noises]
    return image_grid(
        images,
        [str(digit) for digit in range(10)],
        labels,
        title,
        caption,
        columns=columns,
        zoom=zoom,
        facts=facts,
    )


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
    """The reverse process of some images, one column a timestep: x on its way, and below it the x0 that the
    network sees.

    - steps: the sampler's steps to show, as `frames(…, at=[349, 140, 84, 42, 14, 0])` picks them: `.t`, and
      `.x` and `.x0` of shape (B, C, H, W). x is the image after the step t.
    - images: which of the batch, with `names` for them, e.g. `images=[0, 1]`,
      `names=["MNIST-M", "street digits"]`.
    - predicted: whether the rows of predicted x0 are shown.
    - start: x_T, (B, C, H, W), to be shown in a column of its own before the first step.

    >>> steps = ddpm(denoise, x_T, schedule, seeds=[0])           # doctest: +SKIP
    >>> strip = reverse_strip(frames(steps, at=[349, 84, 14, 0]))  # doctest: +SKIP
    """
    chosen = [images] if isinstance(images, int) else list(images)
    names = list(names) if names is not None else [""] * len(chosen)
    rows, labels = [], []
    for image, name in zip(chosen, names, strict=True):
        first = [] if start is None else [to_rgb(start[image])[0]]
        rows.append(first + [to_rgb(step.x[image])[0] for step in steps])
        labels.append(f"{name}  $x$".strip())
        if predicted:
            blank = [np.full_like(first[0], 255)] if first else []
            rows.append(blank + [to_rgb(step.x0[image])[0] for step in steps])
            labels.append("predicted $x_0$")
    columns = ([] if start is None else ["$x_T$"]) + [f"t = {int(step.t)}" for step in steps]
    stacked = np.array(rows).transpose(0, 1, 4, 2, 3)
    return image_grid(stacked, labels, columns, title, caption, zoom=zoom, facts=facts)


def _arrange(images: Any, columns: int) -> tuple[np.ndarray, int, int]:
    if len(images.shape) == 5:
        rows, columns = int(images.shape[0]), int(images.shape[1])
        return to_rgb(images.reshape(-1, *images.shape[2:])), rows, columns
    images = to_rgb(images)
    return images, -(-len(images) // columns), columns


def _widest(labels: Sequence[str]) -> int:
    return ceil(max(1, *(text_width(label, LABEL_SIZE) for label in labels)))


def _mosaic(images: np.ndarray, columns: int, room: float, zoom: int | None, gap: int) -> np.ndarray:
    """The grid in device pixels, `DENSITY` of them a unit."""
    across = ((room + gap) / columns - gap) * DENSITY  # device pixels for one image
    while zoom is None and min(images.shape[1:3]) >= 32 and images.shape[2] > across:
        images = _halve(images)
    fits = max(1, int(across // images.shape[2]))
    device_zoom = zoom * DENSITY if zoom else fits - (fits % DENSITY if fits > DENSITY else 0)
    return tile(images.transpose(0, 3, 1, 2), columns, gap=gap * DENSITY, zoom=device_zoom)


def _halve(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1] // 2, images.shape[2] // 2
    blocks = images[:, : 2 * height, : 2 * width].reshape(len(images), height, 2, width, 2, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)
