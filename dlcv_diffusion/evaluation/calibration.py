"""Is a classifier that is 80 % sure right in 80 % of the cases?"""

import torch
from torch import Tensor

from ..errors import check


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """ECE = Σ_m |B_m| / N · |accuracy(B_m) − confidence(B_m)| (Guo et al., arXiv 1706.04599, eq. 3).

    B_m are the pictures whose highest probability, the confidence, lies in the m-th of `bins` equal parts of (0, 1].

    - probabilities: (N, K) floating-point, rows that sum to 1; labels: (N,) int64. 0 is perfect.

    Raises `UserError` for other shapes, and none.

    >>> expected_calibration_error(torch.tensor([[0.75, 0.25]] * 4), torch.tensor([0, 0, 0, 1]))
    0.0
    """
    fits = probabilities.ndim == 2 and labels.shape == probabilities.shape[:1] and len(labels)
    check(fits, "calibration is measured of probabilities (N, K) and as many labels (N,), one or more")
    confidence, read = probabilities.double().max(1)
    right = (read == labels).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place.cpu(), (right - confidence).cpu())
    return (gaps.abs().sum() / len(labels)).item()
