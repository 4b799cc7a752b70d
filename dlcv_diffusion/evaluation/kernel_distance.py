"""Kernel distance of two sets of features: for sets too small for Fréchet's."""

from torch import Tensor

from ..errors import check
from .encoder import finite


def kernel_distance(features: Tensor, others: Tensor) -> float:
    """KID, the unbiased MMD² of the kernel k(x, y) = (x·y / D + 1)³ (Bińkowski et al., arXiv 1801.01401, section 4).

        mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2 mean_{ij} k(x_i, y_j)

    About 0 for two sets of the same distribution, below too, whatever their sizes. Features are used as they are: those
    of one encoder can be compared with each other.

    - features (m, D), others (n, D), m, n ≥ 2. Raises `UserError` for fewer, and for other widths.

    >>> import torch
    >>> x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    >>> abs(kernel_distance(x[:250], x[250:])) < 0.05, kernel_distance(x[:250], x[250:] + 1) > 1
    (True, True)
    """
    fits = features.ndim == others.ndim == 2 and features.shape[1] == others.shape[1]
    check(fits, f"features are (m, D) and (n, D), not {tuple(features.shape)} and {tuple(others.shape)}")
    m, n = len(features), len(others)
    check(min(m, n) > 1, f"a distance needs two features of each set, not {m} and {n}")
    x, y = (finite(each.double(), "a kernel distance has no value, since a feature") for each in (features, others))

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        among = k(a, a)
        return (among.sum() - among.diagonal().sum()) / (len(a) * (len(a) - 1))

    return (within(x) + within(y) - 2 * k(x, y).mean()).item()
