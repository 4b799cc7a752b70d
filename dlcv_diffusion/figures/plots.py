"""Curves: how a model learns, how a schedule destroys an image, what guidance costs."""

import csv
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ..errors import UserError, check
from .page import Facts, ReportFigure, layout, style, wrapped

MARKERS = "osD^vP"
LINE = {"color": "#666666", "linewidth": 0.8, "linestyle": ":"}
NAME = {"size": 7.5, "color": "#444444", "textcoords": "offset points"}


def loss_curve(
    metrics: str | Path | Mapping[str, str | Path],
    title: str = "",
    caption: str = "",
    *,
    x: str = "step",
    y: str = "loss",
    smooth: float = 0.98,
    marks: Mapping[str, float] | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """Training loss against steps: the values pale, their exponential moving average over them.

    - metrics: the CSV file that training writes, or several by name. x, y: its columns.
    - smooth: weight of the past in the average. marks: horizontal lines by name.

    Raises `UserError` for a file that is missing or has no such columns.

    >>> loss_curve("runs/digits/metrics.csv", marks={"the report, epoch 50": 0.0315})  # doctest: +SKIP
    """
    runs = dict(metrics) if isinstance(metrics, Mapping) else {"": metrics}
    with style():
        fig, (axes,) = panels(1, caption, facts)
        lowest = min((marks or {}).values(), default=np.inf)
        for number, (name, path) in enumerate(runs.items()):
            steps, values = _read_columns(Path(path), x, y)
            if smooth:
                axes.plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.7, linestyle="-")
            mean = _moving_average(values, smooth)
            axes.plot(steps, mean, color=f"C{number}", label=name or None)
            lowest = min(lowest, np.nanmin(mean))
        _draw_marks(axes, marks)
        axes.set(title=fitted(title), xlabel=x, ylabel=y, yscale="log")
        axes.set_ylim(bottom=0.4 * lowest)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        _legend(axes)
    return fig


def schedule_plot(schedules: Any, title: str = "", caption: str = "", *, facts: Facts | None = None) -> ReportFigure:
    """What is left of the image, ᾱ_t, and the signal-to-noise ratio ᾱ_t / (1 − ᾱ_t) over time.

    - schedules: a `NoiseSchedule` or an array ᾱ_0 … ᾱ_{T−1}; or several by name, which are drawn over t / T.

    >>> fig = schedule_plot({"linear, T = 350": NoiseSchedule.linear(350)})  # doctest: +SKIP
    """
    named = dict(schedules) if isinstance(schedules, Mapping) else {"": schedules}
    time = "t / T" if len(named) > 1 else "timestep t"
    with style():
        fig, (left, right) = panels(2, caption, facts, height=290)
        for name, schedule in named.items():
            alphas_bar = np.asarray(getattr(schedule, "alphas_bar", schedule), dtype=float)
            times = np.arange(len(alphas_bar)) / (len(alphas_bar) if len(named) > 1 else 1)
            end = rf"last $\bar\alpha_t$ = {alphas_bar[-1]:.2g}"
            left.plot(times, alphas_bar, label=f"{name}: {end}" if name else end)
            right.plot(times, alphas_bar / (1 - alphas_bar), label=name or None)
        _draw_marks(right, {"as much noise as image": 1})
        left.set(title=title or "What is left of the image", xlabel=time, ylabel=r"$\bar\alpha_t$", ylim=(-0.03, 1.03))
        right.set(title="Signal to noise", xlabel=time, ylabel="SNR", yscale="log")
        if layout().print:  # beyond the edge of a drawing comes its caption
            left.legend()
        else:
            fig.legend(handles=left.lines, loc="outside lower left", ncols=min(len(named), 3))
    return fig


def trade_off_plot(
    w: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
    distance: Mapping[str, Sequence[float]],
    title: str = "",
    caption: str = "",
    *,
    chosen: float | None = None,
    marks: Mapping[str, float] | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """What guidance buys and costs: accuracy and Fréchet distance against the guidance weight w.

    - accuracy (0 … 1), distance: by name, a value for each w, NaN where nothing was measured.
    - chosen: the w that a line marks. marks: horizontal lines by name in the panel of distances.

    Raises `UserError` where there are not as many values as weights.

    >>> fig = trade_off_plot([0, 2], {"MNIST-M": [0.9, 0.99]}, {"MNIST-M": [3.0, 6.0]}, chosen=2)
    """
    with style():
        fig, (left, right) = panels(2, caption, facts)
        _draw_curves(
            left, w, {name: 100 * np.asarray(share, float) for name, share in accuracy.items()}, "guidance weights"
        )
        _draw_curves(right, w, distance, "guidance weights")
        for axes in (left, right):
            if chosen is not None:
                axes.axvline(chosen, **LINE)
                axes.annotate(f"w = {chosen:g}", (chosen, 0.02), (3, 0), xycoords=axes.get_xaxis_transform(), **NAME)
            axes.set(xlabel="guidance weight w")
        left.set(title=title or "Recognised as meant", ylabel="accuracy, %")
        right.set(title="Distance from real images", ylabel="Fréchet distance")
        _draw_marks(right, marks)
        right.set_ylim(bottom=0)
        _legend(left)
        _legend(right)
    return fig


def line_plot(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    caption: str = "",
    *,
    markers: bool = False,
    log_x: bool | Sequence[float] = False,
    log_y: bool = False,
    band: tuple[float, float] | None = None,
    band_label: str = "",
    marks: Mapping[str, float] | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """One panel of curves over the same x; the vertical axis begins at 0 unless it is logarithmic.

    - curves: by name, as many values as x has, NaN where there is none.
    - markers: draw the points, too. log_x: a logarithmic axis that names the values of x, or those given here;
      log_y: one of powers of ten.
    - band: two values of y, grey between them. marks: horizontal lines by name.

    Raises `UserError` where there are not as many values as x has.

    >>> fig = line_plot([0, 0.5, 1], {"lerp": [1, 0.71, 1]}, "α", "length", marks={"all noise": 1.0})
    """
    with style():
        fig, (axes,) = panels(1, caption, facts)
        if band is not None:
            axes.axhspan(*band, color="#DDDDDD", label=band_label or None)
        _draw_curves(axes, x, curves, "places on the axis", markers)
        axes.set(title=fitted(title), xlabel=xlabel, ylabel=ylabel)
        if log_x:
            axes.set_xscale("log")
            ticks = list(x if log_x is True else log_x)
            axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axes.minorticks_off()
        _draw_marks(axes, marks, lowest=min(np.nanmin(values) for values in curves.values()))
        axes.set_yscale("log") if log_y else axes.set_ylim(bottom=0)  # after the marks, which may be the highest
        _legend(axes)
    return fig


def panels(
    count: int, caption: str, facts: Facts | None, *, height: int = 280, **sharing: bool
) -> tuple[ReportFigure, list[Axes]]:
    """A figure as wide as a page, and its panels from left to right; in a narrow one from the top down."""
    how = layout()
    down = count if how.narrow else 1
    height = 220 * down + 20 if how.narrow else height
    fig = ReportFigure(how.width, height, caption=caption, facts=facts, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    return fig, list(fig.subplots(down, count // down, squeeze=False, **sharing).flat)


def fitted(title: str, panels: int = 1) -> str:
    """A panel's title, in as many lines as it needs.

    >>> fitted("Short")
    'Short'
    """
    how = layout()
    return "\n".join(wrapped(title, how.width / (1 if how.narrow else panels) - 70, 10, "bold"))


def _draw_curves(
    axes: Axes, x: Sequence[float], curves: Mapping[str, Sequence[float]], what: str, markers: bool = True
) -> None:
    """Curves over x by name; values that are NaN are left out."""
    x = np.asarray(x, float)
    for number, (name, values) in enumerate(curves.items()):
        values = np.asarray(values, float)
        check(len(values) == len(x), f"'{name}' has {len(values)} values for {len(x)} {what}; give one for each")
        there = ~np.isnan(values)
        marker = MARKERS[number % len(MARKERS)] if markers else None
        axes.plot(x[there], values[there], marker=marker, label=name)


def _draw_marks(axes: Axes, marks: Mapping[str, float] | None, lowest: float = -np.inf) -> None:
    """Horizontal lines by name; the name is below the line where all curves, down to `lowest`, are above it."""
    for name, value in (marks or {}).items():
        place = {"ha": "right", "xycoords": axes.get_yaxis_transform()}
        axes.axhline(value, **LINE)
        axes.annotate(name, (0.99, value), (0, 3 if value > lowest else -9), **place, **NAME)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _moving_average(values: np.ndarray, smooth: float) -> np.ndarray:
    """(1 − s) Σ s^(n−i) x_i / (1 − s^n), for each n."""
    sums = list(accumulate(values, lambda past, value: smooth * past + (1 - smooth) * value, initial=0.0))
    return np.array(sums[1:]) / (1 - smooth ** np.arange(1, len(sums)))


def _read_columns(path: Path, x: str, y: str) -> np.ndarray:
    """(2, N): the two columns, in the rows that have a value of y."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(float(row[x]), float(row[y])) for row in csv.DictReader(file) if row[y]]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or f"it is no table with the columns '{x}' and '{y}'"
        raise UserError(f"cannot read the metrics '{path}': {why}; train first, or give another file") from error
    check(rows, f"'{path}' has no values in the columns '{x}' and '{y}'; let the training run a little longer")
    return np.array(rows).T
