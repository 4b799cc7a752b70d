"""Curves: how a model learns, how a schedule destroys an image, what guidance costs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator

from ..errors import UserError
from .page import PAGE, Facts, ReportFigure, style

MARKERS = "osD^vP"


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
    """Training loss against steps, from the CSV of metrics that training writes: each value pale, their
    mean drawn over it.

    - metrics: a CSV file with a header, or several by name, to be compared.
    - x, y: its columns.
    - smooth: weight of the past in the exponential moving average, corrected for its start; 0 leaves the
      values as they are.
    - marks: horizontal lines by name, e.g. `{"the report, epoch 1": 0.0912}`.

    Raises `UserError` for a file that is missing or has no such columns.

    >>> loss_curve("runs/digits/metrics.csv", marks={"the report, epoch 50": 0.0315})  # doctest: +SKIP
    """
    runs = dict(metrics) if isinstance(metrics, Mapping) else {"": metrics}
    with style():
        fig, (axes,) = _page(280, 1, caption, facts)
        lowest = np.inf
        for number, (name, path) in enumerate(runs.items()):
            steps, values = _read_columns(Path(path), x, y)
            if smooth:
                axes.plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.7, linestyle="-")
            mean = _moving_average(values, smooth)
            axes.plot(steps, mean, color=f"C{number}", label=name or None)
            lowest = min(lowest, np.nanmin(mean))
        _draw_marks(axes, marks)
        axes.set(title=title, xlabel=x, ylabel=y, yscale="log")
        axes.set_ylim(bottom=0.4 * min([lowest, *(marks or {}).values()]))
        _plain_log_labels(axes)
        _legend(axes)
    return fig


def schedule_plot(schedules: Any, title: str = "", caption: str = "", *, facts: Facts | None = None) -> ReportFigure:
    """What is left of the image (ᾱ_t) and the signal-to-noise ratio (SNR = ᾱ_t / (1 − ᾱ_t)) over time.

    - schedules: a `NoiseSchedule` or an array ᾱ_0 … ᾱ_{T−1}, or several by name. Several are drawn over t /
      T, since their T may differ. The legend gives each one's ᾱ at the last timestep, which ought to be 0.

    >>> fig = schedule_plot({"linear, T = 350": NoiseSchedule.linear(350)})  # doctest: +SKIP
    """
    named = dict(schedules) if isinstance(schedules, Mapping) else {"": schedules}
    with style():
        fig, (left, right) = _page(290, 2, caption, facts)
        for name, schedule in named.items():
            alphas_bar = np.asarray(getattr(schedule, "alphas_bar", schedule), dtype=float)
            times = np.arange(len(alphas_bar)) / (len(alphas_bar) if len(named) > 1 else 1)
            end = rf"last $\bar\alpha_t$ = {alphas_bar[-1]:.2g}"
            left.plot(times, alphas_bar, label=f"{name}: {end}" if name else end)
            right.plot(times, alphas_bar / (1 - alphas_bar), label=name or None)
        right.axhline(1, color="#666666", linewidth=0.8, linestyle=":")
        right.annotate("as much noise as image", (0.99, 1), (0, 3), ha="right", size=7.5, color="#444444",
                       xycoords=right.get_yaxis_transform(), textcoords="offset points")  # fmt: skip
        time = "t / T" if len(named) > 1 else "timestep t"
        left.set(
            title=title or "What is left of the image",
            xlabel=time,
            ylabel=r"$\bar\alpha_t$",
            ylim=(-0.03, 1.03),
        )
        right.set(title="Signal to noise", xlabel=time, ylabel="SNR", yscale="log")
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
    """What guidance buys and what it costs: accuracy (more is better) and Fréchet distance (less is better)
    against w.

    - w: the guidance weights.
    - accuracy, distance: by name, e.g. of each half of the digits, one value for each w, NaN where nothing
      was measured. Accuracies are shares, 0 … 1.
    - chosen: the w that is used elsewhere; a line marks it.
    - marks: horizontal lines by name in the panel of distances, e.g. `{"two real halves": 1.0}`.

    Raises `UserError` where there are not as many values as weights.

    >>> fig = trade_off_plot([0, 2], {"MNIST-M": [0.9, 0.99]}, {"MNIST-M": [3.0, 6.0]}, chosen=2)
    """
    for name, values in [*accuracy.items(), *distance.items()]:
        if len(values) != len(w):
            raise UserError(f"'{name}' has {len(values)} values for {len(w)} guidance weights; give one for each")
    with style():
        fig, (left, right) = _page(280, 2, caption, facts)
        for axes, curves, scale in ((left, accuracy, 100), (right, distance, 1)):
            for number, (name, values) in enumerate(curves.items()):
                weights, values = np.asarray(w, dtype=float), np.asarray(values, dtype=float) * scale
                there = ~np.isnan(values)
                axes.plot(weights[there], values[there], marker=MARKERS[number % len(MARKERS)], label=name)
            if chosen is not None:
                axes.axvline(chosen, color="#666666", linewidth=0.8, linestyle=":")
                axes.annotate(f"w = {chosen:g}", (chosen, 0.02), (3, 0), size=7.5, color="#444444",
                              xycoords=axes.get_xaxis_transform(), textcoords="offset points")  # fmt: skip
            axes.set(xlabel="guidance weight w")
        left.set(title=title or "Recognised as meant", ylabel="accuracy, %")
        right.set(title="Distance from real images", ylabel="Fréchet distance")
        right.set_ylim(bottom=0)
        _draw_marks(right, marks)
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
    log_x: bool = False,
    band: tuple[float, float] | None = None,
    band_label: str = "",
    marks: Mapping[str, float] | None = None,
    facts: Facts | None = None,
) -> ReportFigure:
    """One panel of curves over the same x.

    - curves: by name, as many values as x has, NaN where there is none.
    - markers: draw the points, too. log_x: a logarithmic axis that names the values of x.
    - band: two values of y between which the page is grey, with `band_label` in the legend.
    - marks: horizontal lines by name. The vertical axis begins at 0.

    Raises `UserError` where there are not as many values as x has.

    >>> fig = line_plot([0, 0.5, 1], {"lerp": [1, 0.71, 1]}, "α", "length", marks={"all noise": 1.0})
    """
    with style():
        fig, (axes,) = _page(280, 1, caption, facts)
        if band is not None:
            axes.axhspan(*band, color="#DDDDDD", label=band_label or None)
        for number, (name, values) in enumerate(curves.items()):
            if len(values) != len(x):
                raise UserError(f"'{name}' has {len(values)} values for {len(x)} places on the axis; give one for each")
            values = np.asarray(values, dtype=float)
            there = ~np.isnan(values)
            marker = MARKERS[number % len(MARKERS)] if markers else None
            axes.plot(np.asarray(x, dtype=float)[there], values[there], marker=marker, label=name)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if log_x:
            axes.set_xscale("log")
            axes.set_xticks(list(x), [f"{value:g}" for value in x])
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        _draw_marks(axes, marks, lowest=min(np.nanmin(values) for values in curves.values()))
        _legend(axes)
    return fig


def _page(height: int, panels: int, caption: str, facts: Facts | None) -> tuple[ReportFigure, list[Any]]:
    fig = ReportFigure(PAGE, height, caption=caption, facts=facts, layout="constrained")
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    return fig, list(fig.subplots(1, panels, squeeze=False)[0])


def _draw_marks(axes: Any, marks: Mapping[str, float] | None, lowest: float = -np.inf) -> None:
    """Horizontal lines, their names above them; or below, where all curves, down to `lowest`, are above the line."""
    for name, value in (marks or {}).items():
        axes.axhline(value, color="#666666", linewidth=0.8, linestyle=":")
        axes.annotate(name, (0.99, value), (0, 3 if value > lowest else -9), ha="right", size=7.5, color="#444444",
                      xycoords=axes.get_yaxis_transform(), textcoords="offset points")  # fmt: skip


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _plain_log_labels(axes: Any) -> None:
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _moving_average(values: np.ndarray, smooth: float) -> np.ndarray:
    mean, result = 0.0, np.empty_like(values)
    for index, value in enumerate(values):
        mean = smooth * mean + (1 - smooth) * value
        result[index] = mean / (1 - smooth ** (index + 1))
    return result


def _read_columns(path: Path, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(float(row[x]), float(row[y])) for row in csv.DictReader(file) if row.get(y)]
    except OSError as error:
        raise UserError(
            f"cannot read the metrics '{path}': {error.strerror}; train first, or give another file"
        ) from error
    except (KeyError, ValueError) as error:
        raise UserError(f"'{path}' is no table of metrics with the columns '{x}' and '{y}'") from error
    if not rows:
        raise UserError(f"'{path}' has no values in the columns '{x}' and '{y}'; let the training run a little longer")
    return tuple(np.array(rows).T)
