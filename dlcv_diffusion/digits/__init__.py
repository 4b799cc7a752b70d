"""Problem 1: the 20 classes MNIST-M and SVHN (or street digits), from the data to the folder that is handed in."""

from .data import load_digits
from .figures import grid_figure, half_name, overview_figure, strip_figure, write_digit_figures
from .sampling import REPORT, SamplingConfig, hw2_labels, sample_digits, write_hw2_digits

__all__ = [
    "REPORT",
    "SamplingConfig",
    "grid_figure",
    "half_name",
    "hw2_labels",
    "load_digits",
    "overview_figure",
    "sample_digits",
    "strip_figure",
    "write_digit_figures",
    "write_hw2_digits",
]
