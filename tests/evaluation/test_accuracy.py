"""Accuracy and confusion by hand, and labels that are none."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.accuracy import accuracy_of, class_labels


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_accuracy_and_confusion_are_the_counts(pairs):
    read, wanted = torch.tensor(pairs).T
    found, counts = accuracy_of(read, wanted, classes=5), Counter(pairs)
    assert found.count == len(pairs)
    assert found.accuracy == pytest.approx(sum(r == w for r, w in pairs) / len(pairs))
    assert found.confusion == [[counts[r, w] for r in range(5)] for w in range(5)]
    for label, share in enumerate(found.per_class):
        of_class = [r == w for r, w in pairs if w == label]
        assert share == pytest.approx(sum(of_class) / len(of_class)) if of_class else math.isnan(share)


@pytest.mark.parametrize("labels", [[3, 13], (3, 13), np.array([3, 13], np.uint8), torch.tensor([3, 13]).int()])
def test_labels_of_every_kind(labels):
    found = class_labels(labels, 2, 20)
    assert found.tolist() == [3, 13] and found.dtype == torch.int64
    assert class_labels(range(2), 2, 20).tolist() == [0, 1]


@pytest.mark.parametrize(
    "labels",
    [[0], [0, 20], [-1, 0], [0.0, 1.0], [0.5, 1.0], ["3", "5"], "35", None, [[0, 1]], 3, [True, False], [0, None], {}]
    + [[0, 2**70], [1j, 0], torch.tensor([0.0, math.nan]), np.array(["a", "b"]), torch.zeros(2, 10)],
)
def test_labels_that_are_none(labels):
    with pytest.raises(UserError, match="2 images need as many labels, whole numbers from 0 to 19"):
        class_labels(labels, 2, 20)
