"""How many images are read as what they should be, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arguments import as_tensor, is_whole
from ..errors import check


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many of `count` images are read as their label says.

    - accuracy: the share of them; per_class: the share for each class, NaN where there was no image of it.
    - confusion: (K, K) counts, row: the class that was asked for, column: the class that was read.
    """

    count: int
    accuracy: float
    per_class: list[float]
    confusion: list[list[int]]


def accuracy_of(read: Tensor, wanted: Tensor, classes: int) -> Accuracy:
    """`Accuracy` from the classes read and the classes asked for, both (N,) int64 from 0 to `classes` − 1.

    Raises `UserError` for other labels, and for none.

    >>> accuracy_of(torch.tensor([1, 7, 7]), torch.tensor([1, 1, 7]), classes=10).per_class[1]
    0.5
    """
    read, wanted = (class_labels(labels, len(wanted), classes) for labels in (read, wanted))
    check(len(wanted), "there is no label to measure an accuracy of; give at least one image")
    confusion = torch.bincount(classes * wanted + read, minlength=classes**2).view(classes, classes)
    right = confusion.diagonal()
    return Accuracy(
        count=len(wanted),
        accuracy=right.sum().item() / len(wanted),
        per_class=(right.double() / confusion.sum(1)).tolist(),
        confusion=confusion.tolist(),
    )


def class_labels(labels: Sequence[int] | Tensor, count: int, classes: int) -> Tensor:
    """Labels as (count,) int64 on the CPU. Raises `UserError` unless they are so many, whole, from 0 to classes − 1.

    >>> class_labels([3, 13], count=2, classes=20)
    tensor([ 3, 13])
    """
    wanted = f"{count} images need as many labels, whole numbers from 0 to {classes - 1}"
    found = as_tensor(labels, wanted)
    check(found.shape == (count,) and is_whole(found) and ((found >= 0) & (found < classes)).all(), wanted)
    return found.to("cpu", torch.int64)
