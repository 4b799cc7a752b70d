"""One photograph as a picture for a model: the user's own, or the one that matplotlib carries."""

from pathlib import Path

import torch
from torch import Tensor

from ..errors import check
from .pictures import MAX_SIDE, fit_square, open_picture
from .pixels import to_x0

Box = tuple[float, float, float, float]
HOPPER_BOX = (190, 150, 366, 326)  # cut as the shipped model's training faces are: brows to chin, little else


def photo(path: str | Path, box: Box | None = None, *, size: int = 64, channels: int = 1) -> Tensor:
    """A photograph as x0, (1, channels, size, size) float32 in [−1, 1]: turned upright, cut, resized (antialiased).

    - box: left, upper, right, lower, in pixels of the upright picture; by default the middle square.
    - channels: 1 (grey) or 3 (RGB).

    Raises `UserError` for a file that is missing or no picture, and for a box that lies outside it.

    >>> photo("me.jpg", box=(300, 120, 700, 520)).shape   # doctest: +SKIP
    torch.Size([1, 1, 64, 64])
    """
    fits = channels in (1, 3) and 1 <= size <= MAX_SIDE
    check(fits, f"a photograph cannot become {channels}×{size}×{size}; choose 1 or 3 channels, 1 to {MAX_SIDE} pixels")
    mode = "L" if channels == 1 else "RGB"
    upright = open_picture(path, "give another, such as a JPEG or PNG", mode=mode, upright=True)
    if box is not None:
        left, upper, right, lower = box
        inside = 0 <= left < right <= upright.width and 0 <= upper < lower <= upright.height
        check(inside, f"the box {box} does not lie within '{path}', {upright.width}×{upright.height} pixels")
        upright = upright.crop(box)
    return to_x0(torch.from_numpy(fit_square(upright, size)))[None]


def grace_hopper(*, size: int = 64, channels: int = 1) -> Tensor:
    """Rear Admiral Grace Hopper, x0 (1, channels, size, size) in [−1, 1], cut to the shipped face model's framing.

    The photograph is a sample that comes with matplotlib: James S. Davis, United States Navy, public domain.

    >>> grace_hopper().shape
    torch.Size([1, 1, 64, 64])
    """
    from matplotlib.cbook import get_sample_data

    return photo(get_sample_data("grace_hopper.jpg", asfileobj=False), HOPPER_BOX, size=size, channels=channels)
