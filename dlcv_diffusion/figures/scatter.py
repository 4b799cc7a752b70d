"""Two numbers of every image against each other."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import UserError
from .page import PAGE, Facts, ReportFigure, style


def scatter_plot(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    caption: str = "",
    *,
    facts: Facts | None = None,
) -> ReportFigure:
    """One panel for each name, with the same axes in all: a point for each image, and the correlation r of the two.

    - points: by name, x and y, two lists of one length of at least two numbers.
    - xlabel, ylabel: what they are.
    - caption, facts: printed below; see `save_figure`.

    Raises `UserError` for lists of other lengths.

    >>> fig = scatter_plot({"as they are": ([0, 1, 2], [0, 2, 4])}, "before", "after")
    """
    arrays = {name: (np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in points.items()}
    for name, (x, y) in arrays.items():
        if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
            raise UserError(f"'{name}' has {x.size} and {y.size} numbers; give two lists of one length, of two or more")
    with style():
        fig = ReportFigure(PAGE, 280, caption=caption, facts=facts, layout="constrained")
        fig.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
        panels = fig.subplots(1, len(arrays), sharex=True, sharey=True, squeeze=False)[0]
        for number, (axes, (name, (x, y))) in enumerate(zip(panels, arrays.items(), strict=True)):
            axes.plot(x, y, "o", color=f"C{number}", markersize=2.5, alpha=0.4, markeredgewidth=0)
            axes.set(title=f"{name}: r = {np.corrcoef(x, y)[0, 1]:.2f}", xlabel=xlabel)
        panels[0].set(ylabel=ylabel)
    return fig
