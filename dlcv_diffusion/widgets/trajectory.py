"""Explorers of what a sampler does on its way, and of how hard it is guided."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from ..figures import to_rgb
from .explorer import Control, Explorer, Picture


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

    - steps: one of
      a sampler, or a list of its steps: below x, as it is after the step t, stands the x0 that the network
      predicts; a list of pictures, one for each of `timesteps`; a function from t to a picture, asked for
      when the slider gets there.
    - timesteps: the slider's positions from left to right; of a sampler's steps they are known.
    - images: which images of a sampler's batch.
    - start: the first position, by default the leftmost; still: the timesteps in the still picture, six by
      default.
    - options: `describe`, `columns`, `zoom`, `cache`, `title`, `caption`, `facts`, see `Explorer`.

    Raises `UserError` where timesteps and pictures are not as many.

    >>> step_explorer(lambda t: schedule.add_noise(x0, eps, t), range(0, 350, 10))  # doctest: +SKIP
    """
    draw = steps
    if not callable(steps):
        pictures = list(steps)
        if timesteps is None and all(hasattr(step, "t") for step in pictures):
            chosen = [images] if isinstance(images, int) else list(images)
            timesteps = [int(step.t) for step in pictures]
            pictures = [_x_and_x0(step, chosen) for step in pictures]
            options.setdefault("columns", len(chosen))
        if timesteps is None or len(timesteps) != len(pictures):
            raise UserError(f"{len(pictures)} pictures for {len(timesteps or [])} timesteps; give one for each")
        draw = dict(zip(map(int, timesteps), pictures, strict=True)).__getitem__
    elif timesteps is None:
        raise UserError("a function from t to a picture needs the timesteps to go through; give timesteps=…")
    timesteps = [int(t) for t in timesteps]
    if still is None and timesteps:
        still = [timesteps[i] for i in sorted(set(np.linspace(0, len(timesteps) - 1, 6).round().astype(int)))]
    control = Control(timesteps, description, label=str, start=start, play=True)
    return Explorer(lambda t: draw(t), {"t": control}, still or [], **options)


def guidance_explorer(
    sample: Callable[[float], Picture | Iterator[Any]],
    weights: Sequence[float] = tuple(step / 2 for step in range(13)),
    *,
    start: float = 2.0,
    still: Sequence[float] = (0, 2, 4, 6),
    description: str = "guidance w",
    live: bool = False,
    **options: Any,
) -> Explorer:
    """A slider over the guidance weight w, from no guidance (0) to too much.

    - sample: from w to images (N, C, H, W), of the same noises each time, so that only w makes the
      difference; or to a sampler, whose predictions are shown while it works.
    - weights: the slider's positions; start: the first one; still: the weights in the still picture.
    - live: sample while the slider is dragged, instead of when it is let go.
    - options: `describe`, `columns`, `zoom`, `cache`, `title`, `caption`, `facts`, see `Explorer`.

    >>> guidance_explorer(
    ...     lambda w: ddim(guided(model, labels, w), x_T, schedule, steps=20), columns=10, live=True
    ... )  # doctest: +SKIP
    """
    control = Control([float(w) for w in weights], description, start=float(start), live=live)
    return Explorer(lambda w: sample(w), {"w": control}, [float(w) for w in still], **options)


def _x_and_x0(step: Any, images: Sequence[int]) -> np.ndarray:
    rows = [to_rgb(step.x[index])[0] for index in images] + [to_rgb(step.x0[index])[0] for index in images]
    return np.stack(rows).transpose(0, 3, 1, 2)
