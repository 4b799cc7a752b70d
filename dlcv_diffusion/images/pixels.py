"""Between 8-bit pixels and the samplers' numbers, x in [−1, 1]: mean = std = 0.5, as the course has it."""

import torch
from torch import Tensor

from ..errors import check


def to_x0(images: Tensor) -> Tensor:
    """uint8 0 … 255 to float32 in [−1, 1]: x0 = images / 127.5 − 1.

    >>> to_x0(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """x in [−1, 1] to 0 … 255, rounded to the nearest and clamped: what a PNG holds.

    Raises `UserError` for numbers that are not finite, which would become black pixels.

    >>> to_uint8(torch.tensor([-1.0, 0.0, 1.2]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    why = "change the weights, the noise or the guidance weight that it was made with"
    check(x.isfinite().all(), f"the picture holds numbers that are not finite (NaN or infinite); {why}")
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def stretched(x: Tensor) -> Tensor:
    """Each image of (B, C, H, W) stretched to [−1, 1] by its own least and greatest value; a flat one becomes −1.

    >>> stretched(torch.tensor([[[[0.0, 0.5, 2.0]]]])).flatten().tolist()
    [-1.0, -0.5, 1.0]
    """
    x = x.float()
    least, greatest = (value.reshape(-1, 1, 1, 1) for value in x.flatten(1).aminmax(dim=1))
    return 2 * (x - least) / (greatest - least).clamp(min=torch.finfo(torch.float32).tiny) - 1
