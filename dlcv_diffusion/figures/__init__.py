"""The report's figures: one look, labelled rows and axes, and the facts that would make each of them again.

    fig = digit_grid(images, noises=range(10), title="MNIST-M", facts={"seeds": range(10), "w": 2.0})
    path = save_figure(fig, figures_folder() / "digits_mnistm.png", {"weights": "digits"})
    read_facts(path)                                  # {"seeds": [0, …, 9], "w": 2.0, "weights": "digits"}

A figure shows itself in a notebook. Neither pyplot nor a global setting of matplotlib is used.
"""

from .grids import digit_grid, image_grid, reverse_strip
from .page import ReportFigure, figures_folder, printed, read_facts, save_figure, style
from .plots import line_plot, loss_curve, schedule_plot, trade_off_plot
from .rgb import enlarged, png_bytes, png_size, tile, to_rgb
from .tables import text_table
from .words import describe

__all__ = ["ReportFigure", "describe", "digit_grid", "figures_folder", "image_grid", "line_plot", "loss_curve"]
__all__ += [
    "enlarged",
    "printed",
    "png_bytes",
    "png_size",
    "read_facts",
    "reverse_strip",
    "save_figure",
    "schedule_plot",
    "style",
    "tile",
]
__all__ += ["text_table", "to_rgb", "trade_off_plot"]
