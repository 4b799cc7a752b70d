"""Explorers of what a sampler does on its way, and of how hard it is guided."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import check
from .controls import Control
from .explorer import Explorer, Picture


def step_explorer(
    steps: Callable[[int], Picture] | Iterable[Any],
    timesteps: Sequence[int] | None = None,
    *,
    images: int | Sequence[int] = 0,
    start: int | None = None,
    still: Sequence[int] | None = None,
    description: str = "timestep t",
    **options: Any,
) -> Explorer:
    """A slider through timesteps, forwards through noising or backwards through sampling.

    - steps: a sampler, or its steps, shown as x after the step t above the predicted x0; pictures, one for each of
      `timesteps`; or a function from t to a picture.
    - timesteps: the slider's positions; a sampler's steps have their own. images: which of a sampler's batch.
    - start: the first position. still: the timesteps in the still picture, by default six.
    - options: those of `Explorer`.

    Raises `UserError` where timesteps and pictures are not as many.

    >>> step_explorer(lambda t: schedule.add_noise(x0, eps, t), range(0, 350, 10))  # doctest: +SKIP
    """
    draw = steps
    if not callable(steps):
        pictures = list(steps)
        if timesteps is None and all(hasattr(step, "t") for step in pictures):
            chosen = [images] if isinstance(images, int) else list(images)
            timesteps = [step.t for step in pictures]
            pictures = [torch.cat([step.x[chosen], step.x0[chosen]]) for step in pictures]
            options.setdefault("columns", len(chosen))
        count = len(timesteps) if timesteps is not None else 0
        check(count == len(pictures), f"{len(pictures)} pictures for {count} timesteps; give one for each")
        draw = dict(zip(map(int, timesteps), pictures, strict=True)).__getitem__
    check(timesteps is not None, "a function from t to a picture needs the timesteps to go through; give timesteps=…")
    some = {"between": callable(steps)}  # of pictures there are only these
    control = Control([int(t) for t in timesteps], description, label=str, start=start, play=True, **some)
    if still is None:
        still = [control.values[i] for i in np.unique(np.linspace(0, len(control.values) - 1, 6).round().astype(int))]
    return Explorer(lambda t: draw(t), {"t": control}, still, **options)


def guidance_explorer(
    sample: Callable[[float], Picture | Iterator[Any] | tuple[Iterator[Any], int]],
    weights: Sequence[float] = tuple(step / 2 for step in range(13)),
    *,
    start: float = 2.0,
    still: Sequence[float] = (0, 2, 4, 6),
    description: str = "guidance w",
    live: bool = True,
    **options: Any,
) -> Explorer:
    """A slider over the guidance weight w, from no guidance (0) to too much.

    - sample: from w to images or a sampler, as the `draw` of an `Explorer`, from the same noises each time.
    - weights: the slider's positions. start: the first one. still: those in the still picture.
    - live: sample while the slider is dragged. options: those of `Explorer`, such as `draft`, a quicker `sample`.

    >>> guidance_explorer(lambda w: ddim(guided(digits, labels, w), x_T, steps=20), columns=10)  # doctest: +SKIP
    """
    control = Control(weights, description, start=start, live=live, play=True)
    return Explorer(lambda w: sample(w), {"w": control}, still, **options)
