"""ImageArrays: what every source gives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dlcv_diffusion import UserError
from dlcv_diffusion.images.arrays import ImageArrays, spread, to_x0


def arrays(count: int = 12) -> ImageArrays:
    images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageArrays(images, torch.arange(count))


def test_x0_spans_minus_one_to_one_and_comes_back_exactly():
    levels = torch.arange(256, dtype=torch.uint8)
    x0 = to_x0(levels)
    assert x0.dtype == torch.float32 and x0[0] == -1 and x0[-1] == 1
    assert torch.equal(((x0 + 1) * 127.5).round().to(torch.uint8), levels)


def test_single_items_batches_and_a_loader_agree():
    data = arrays()
    x0, labels = data.batch(torch.tensor([5, 0, 5]))
    assert x0.shape == (3, 3, 4, 4) and labels.tolist() == [5, 0, 5] and labels.dtype == torch.int64
    assert torch.equal(x0[1], data[0][0])
    loaded, names = next(iter(DataLoader(data, batch_size=12)))
    assert torch.equal(loaded, data.batch(torch.arange(12))[0]) and torch.equal(names, data.labels)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="uint8"):
        ImageArrays(torch.zeros(2, 3, 4, 4), torch.zeros(2))
    with pytest.raises(UserError, match="labels"):
        ImageArrays(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3))
    for wrong in (["a", "b"], None, [[1, 2], [3]], {"a": 1}):
        with pytest.raises(UserError, match="labels must be whole numbers"):
            ImageArrays(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), wrong)
        with pytest.raises(UserError, match="images must be a tensor or array, uint8"):
            ImageArrays(wrong, torch.zeros(2))
    for wrong in (0.5, float("nan"), float("inf")):
        with pytest.raises(UserError, match="whole numbers"):
            ImageArrays(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([wrong]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 70))
def test_spread_is_even_ordered_and_of_the_right_size(labels, limit):
    labels = torch.tensor(labels)
    rows = spread(labels, limit)
    assert len(rows) == min(limit, len(labels)) and rows.tolist() == sorted(set(rows.tolist()))
    counts, available = labels[rows].bincount(minlength=5), labels.bincount(minlength=5)
    short = counts < available  # a class that has more to give is at most one behind the fullest
    assert not short.any() or counts[short].min() >= counts.max() - 1
