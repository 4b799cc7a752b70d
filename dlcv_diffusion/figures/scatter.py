"""Two numbers of every image against each other."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import check
from .page import Facts, ReportFigure, style
from .plots import panels


def scatter_plot(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    caption: str = "",
    *,
    facts: Facts | None = None,
) -> ReportFigure:
    """A panel for each name, all with the same axes: a point for each image, and the correlation r of x and y.

    - points: by name, x and y, two lists of one length of at least two numbers.

    Raises `UserError` for lists of other lengths.

    >>> fig = scatter_plot({"as they are": ([0, 1, 2], [0, 2, 4])}, "before", "after")
    """
    arrays = {name: (np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in points.items()}
    for name, (x, y) in arrays.items():
        fits = x.shape == y.shape and x.ndim == 1 and len(x) > 1
        check(fits, f"'{name}' has {x.size} and {y.size} numbers; give two lists of one length, of two or more")
    with style():
        fig, all_axes = panels(len(arrays), caption, facts, sharex=True, sharey=True)
        for number, (axes, (name, (x, y))) in enumerate(zip(all_axes, arrays.items(), strict=True)):
            axes.plot(x, y, "o", color=f"C{number}", markersize=2.5, alpha=0.4, markeredgewidth=0)
            axes.set(title=f"{name}: r = {np.corrcoef(x, y)[0, 1]:.2f}", xlabel=xlabel)
        all_axes[0].set(ylabel=ylabel)
    return fig
