"""Numbers of few samples: intervals cover what they should, and the kernel distance is unbiased."""

import numpy as np
import pytest
import torch

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.intervals import mean_interval, share_interval
from dlcv_diffusion.evaluation.kernel_distance import kernel_distance


@pytest.mark.parametrize(("right", "count"), [(0, 20), (7, 20), (100, 100)])
def test_wilson(right, count):
    """The closed form: the shares p that a z-test does not tell from right / count."""
    z, p = 1.959963984540054, right / count
    middle, half = p + z**2 / (2 * count), z * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    wanted = (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)
    assert share_interval(right, count) == pytest.approx(wanted, abs=1e-9)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says():
    draws = torch.randn(200, 60, generator=torch.Generator().manual_seed(0)) + 3
    inside = [low < 3 < high for low, high in map(mean_interval, draws)]
    assert 0.88 < np.mean(inside) <= 0.99


def test_the_kernel_distance_by_loops():
    x, y = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)).double()
    y = y[:4] + 1

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    def within(s):
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
        return sum(k(s[i], s[j]) for i, j in pairs) / len(pairs)

    wanted = within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(wanted)


def test_the_kernel_distance_is_unbiased_where_frechets_is_not():
    draws = torch.randn(100, 2, 20, 8, generator=torch.Generator().manual_seed(0))
    found = [kernel_distance(*pair) for pair in draws]
    assert abs(np.mean(found)) < 3 * np.std(found) / 10
    assert min(found) < 0 < max(found)


def test_too_few():
    with pytest.raises(UserError, match="needs two features of each set, not 1 and 5"):
        kernel_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(UserError, match=r"not \(2, 3\) and \(2, 4\)"):
        kernel_distance(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UserError, match="5 of 4 is no share"):
        share_interval(5, 4)
    nan = torch.tensor([[0.0, float("nan")], [1.0, 2.0]])
    with pytest.raises(UserError, match="a kernel distance has no value"):
        kernel_distance(nan, nan)
    with pytest.raises(UserError, match="not finite"):
        mean_interval([1.0, float("nan")])
    with pytest.raises(UserError, match="needs two or more values"):
        mean_interval([1.0])
