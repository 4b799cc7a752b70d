"""What callers give for a tensor, looked at once."""

from typing import Any

import torch
from torch import Tensor

from .errors import UserError


def as_tensor(given: Any, sentence: str, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.as_tensor`; `UserError(sentence)` for what cannot be one, such as words or lists of several lengths.

    >>> as_tensor(range(3), "labels are whole numbers")
    tensor([0, 1, 2])
    """
    try:
        return torch.as_tensor(list(given) if isinstance(given, range) else given, dtype=dtype)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(sentence) from error


def is_whole(values: Tensor) -> bool:
    """Whether a tensor's numbers are integers by their type.

    >>> is_whole(torch.tensor([1])), is_whole(torch.tensor([1.0]))
    (True, False)
    """
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
