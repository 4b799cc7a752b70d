"""How sure a number of few samples is: confidence intervals of a share and of a mean."""

from collections.abc import Sequence

import torch
from scipy.stats import binomtest
from torch import Tensor

from ..errors import check

RESAMPLES = 2_000


def share_interval(right: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share (1927): of `right` among `count`, where the true one lies with this confidence.

    >>> low, high = share_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    check(0 <= right <= count and count, f"{right} of {count} is no share; give 0 ≤ right ≤ count, and count ≥ 1")
    found = binomtest(int(right), int(count)).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values: Tensor | Sequence[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The bootstrap's percentile interval of a mean (Efron, 1979), of values (N,), N ≥ 2; draws follow from `seed`.

    >>> low, high = mean_interval(torch.arange(100.0))
    >>> low < 49.5 < high
    True
    """
    values = torch.as_tensor(values, dtype=torch.float64)
    check(values.ndim == 1 and len(values) > 1, "an interval of a mean needs two or more values (N,)")
    check(values.isfinite().all(), "there are values that are not finite (NaN or infinite), and no interval of them")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    means, outside = values[rows].mean(1), (1 - confidence) / 2
    low, high = means.quantile(torch.tensor([outside, 1 - outside], dtype=torch.float64)).tolist()
    return low, high
