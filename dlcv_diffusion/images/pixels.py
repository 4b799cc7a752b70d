"""From the samplers' numbers, x in [−1, 1], to the 8-bit values that a picture file holds."""

import torch
from torch import Tensor

from ..errors import check


def to_uint8(x: Tensor) -> Tensor:
    """x in [−1, 1] to 0 … 255, rounded to the nearest and clamped: what a PNG holds.

    Raises `UserError` for samples that are not finite.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.2]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    finite = "samples are not finite (NaN or infinite) and have no picture; check the weights, w and the noise"
    check(x.isfinite().all(), finite)
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def stretched(x: Tensor) -> Tensor:
    """Each image of (B, C, H, W) stretched to [−1, 1] by its own least and greatest value; a flat one becomes −1.

    >>> stretched(torch.tensor([[[[0.0, 0.5, 2.0]]]])).flatten().tolist()
    [-1.0, -0.5, 1.0]
    """
    x = x.float()
    least, greatest = (value.reshape(-1, 1, 1, 1) for value in x.flatten(1).aminmax(dim=1))
    return 2 * (x - least) / (greatest - least).clamp(min=torch.finfo(torch.float32).tiny) - 1
