"""What sampling has in common for every problem: one base of the settings, and one loop over batches."""

from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from . import device as devices
from .declared import declared
from .errors import check
from .samplers import Step

Steps = Annotated[int, Field(ge=1)]


@declared
class Sampling:
    """The settings that every problem's sampling has; each problem's own class adds to them.

    - spacing: which timesteps few steps visit, see `NoiseSchedule.timesteps`: "trailing" begins at T − 1, where x_T
      belongs; "uniform" is the DDIM paper's.
    - fast: bfloat16 where the device is quick at it, else float32. It moves digits' pixels by one level of 255 in the
      root mean square, and a few by up to 30.
    """

    _: KW_ONLY
    spacing: Literal["trailing", "uniform"] = "trailing"
    fast: bool = False


def in_batches(
    run: Callable[[slice], Iterator[Step]],
    count: int,
    steps: int,
    device: torch.device,
    *,
    batch_size: int,
    fast: bool = False,
    progress: bool = False,
) -> Iterator[Tensor]:
    """The finished x, (B, C, H, W) on the device, of one batch after another of `count` images.

    - run: a sampler for the images of a slice; steps: how many steps it takes, for the progress bar.

    Raises `UserError` for a batch size below 1.

    >>> parts = in_batches(lambda part: ddim(denoise, x_T[part]), 100, 50, device, batch_size=16)   # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    check(batch_size >= 1, f"cannot sample {batch_size} images at a time; choose a batch size of at least 1")
    with tqdm(total=count, unit="image", disable=None if progress else True) as bar:
        for first in range(0, count, batch_size):
            part = slice(first, min(first + batch_size, count))
            with devices.autocast(device, fast):
                for number, step in enumerate(run(part), start=1):
                    x = step.x
                    bar.update(first + (part.stop - first) * number // steps - bar.n)
            yield x
