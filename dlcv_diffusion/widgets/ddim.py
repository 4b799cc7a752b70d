"""Explorers of DDIM: how much noise it adds on its way (η), in how many steps, and between which two noises."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..faces.sampling import device_of
from ..noise import seeded_noise
from ..samplers import Denoiser, check_eta, ddim
from ..schedule import NoiseSchedule
from .explorer import Control, Explorer, Refining

ETAS = tuple(step / 20 for step in range(21))
STEPS = (2, 5, 10, 20, 50, 100)
ALPHAS = tuple(step / 20 for step in range(21))


def eta_explorer(
    denoiser: Denoiser,
    *,
    etas: Sequence[float] = ETAS,
    steps: Sequence[int] = STEPS,
    seeds: Sequence[int] = range(20),
    start: tuple[float, int, int] = (0.0, 20, 0),
    still: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    schedule: NoiseSchedule | None = None,
    image_size: tuple[int, int, int] | None = None,
    sampling: Mapping[str, Any] | None = None,
    **options: Any,
) -> Explorer:
    """Three sliders over DDIM (arXiv 2010.02502, eq. 12): η, the number of steps, the seed of the noise.

    The seed chooses x_T, and for η > 0 the noise of every step, too.

    - denoiser: `denoiser(x, t) -> eps`, such as an `EpsDenoiser`, which knows its schedule and image size.
    - etas, steps, seeds: the sliders' positions; start: where they stand first.
    - still: the η of the still picture, with steps and seed as at the start. Each is drawn before the sliders appear:
      with a large model on a CPU choose few, or none (`[]`: where the sliders stand first).
    - schedule, image_size (C, H, W): of a denoiser that does not know them.
    - sampling: further words for `ddim`, such as `{"clip_x0": 1.0}`.
    - options: `describe`, `zoom`, `cache`, `title`, `caption`, `facts`, see `Explorer`.

    Raises `UserError` where schedule or image size are not known, and as `ddim` and `Explorer` do.

    >>> eta_explorer(denoiser, steps=(5, 10, 20), title="DDIM")   # doctest: +SKIP
    """
    schedule, image_size = _known(denoiser, schedule, image_size)
    sampling = dict(sampling or {})
    for eta in etas:
        check_eta(eta)
    for count in steps:
        schedule.timesteps(count, sampling.get("spacing", "uniform"))

    def draw(eta: float, steps: int, seed: int) -> Refining:
        x_T = seeded_noise((1, *image_size), [seed], device_of(denoiser))
        return Refining(ddim(denoiser, x_T, schedule, steps=steps, eta=eta, seeds=[seed], **sampling), steps)

    def describe(eta: float, steps: int, seed: int) -> str:
        return (
            "no noise is added: the image is a function of x_T alone"
            if eta == 0
            else "fresh noise is added at every step"
        )

    controls = {
        "eta": Control(_numbers(etas), "noise added, η", start=float(start[0]), symbol="η"),
        "steps": Control(list(steps), "steps", label=str, start=start[1]),
        "seed": Control(list(seeds), "seed of the noise", label=str, start=start[2]),
    }
    options.setdefault("describe", describe)
    _add_facts(options, denoiser, steps=start[1], seed=start[2], **sampling)
    return Explorer(draw, controls, [(float(eta), *start[1:]) for eta in still], **options)


def alpha_explorer(
    denoiser: Denoiser,
    *,
    alphas: Sequence[float] = ALPHAS,
    beyond: float = 0.0,
    seeds: Sequence[int] = range(20),
    start: tuple[float, str, int, int] = (0.5, "both", 0, 1),
    still: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    steps: int = 20,
    schedule: NoiseSchedule | None = None,
    image_size: tuple[int, int, int] | None = None,
    sampling: Mapping[str, Any] | None = None,
    **options: Any,
) -> Explorer:
    """From one noise to another: α, along the sphere (slerp), the straight line (lerp) or both, and the two seeds.

    With both, slerp's image stands on the left and lerp's on the right. Below it stands the length of each
    noise as a multiple of √D, which is that of noise as the network knows it.

    - denoiser: `denoiser(x, t) -> eps`, such as an `EpsDenoiser`, which knows its schedule and image size.
    - alphas: the slider's positions; beyond: how far it goes on, in the same strides, below 0 and above 1,
      such as 0.2.
    - seeds: of both noises; start: α, "slerp", "lerp" or "both", and the two seeds at first.
    - still: the α of the still picture, a row for slerp and one for lerp; drawn before the sliders appear.
    - steps: of DDIM with η = 0, so that the image is a function of the noise.
    - schedule, image_size (C, H, W): of a denoiser that does not know them.
    - sampling: further words for `ddim`, such as `{"clip_x0": 1.0}`.
    - options: `describe`, `zoom`, `cache`, `title`, `caption`, `facts`, see `Explorer`.

    Raises `UserError` where schedule or image size are not known, and as `ddim` and `Explorer` do.

    >>> alpha_explorer(denoiser, beyond=0.2, start=(0.5, "both", 3, 8))   # doctest: +SKIP
    """
    schedule, image_size = _known(denoiser, schedule, image_size)
    sampling = dict(sampling or {})

    def noises(alpha: float, way: str, a: int, b: int) -> dict[str, Tensor]:
        from ..interpolation import lerp, slerp

        ends = [seeded_noise((1, *image_size), [seed]) for seed in (a, b)]
        ways = {"slerp": slerp, "lerp": lerp}
        return {name: between(*ends, alpha) for name, between in ways.items() if way in (name, "both")}

    def draw(**position: Any) -> Refining:
        x_T = torch.cat(list(noises(**position).values())).to(device_of(denoiser))
        return Refining(ddim(denoiser, x_T, schedule, steps=steps, **sampling), steps)

    def describe(**position: Any) -> str:
        root = math.sqrt(math.prod(image_size))
        lengths = {name: f"{x.norm().item() / root:.2f} √D" for name, x in noises(**position).items()}
        sides = {"slerp": " (left)", "lerp": " (right)"} if len(lengths) > 1 else {}
        return "length of the noise: " + ", ".join(f"{way}{sides.get(way, '')} {x}" for way, x in lengths.items())

    first, way, a, b = start
    controls = {
        "alpha": Control(_further(alphas, beyond), "α", start=float(first), symbol="α"),
        "way": Control(["slerp", "lerp", "both"], "along", label=str, start=way, buttons=True),
        "a": Control(list(seeds), "seed at α = 0", label=str, start=a),
        "b": Control(list(seeds), "seed at α = 1", label=str, start=b),
    }
    options.setdefault("describe", describe)
    _add_facts(options, denoiser, steps=steps, seeds=[a, b], eta=0, **sampling)
    positions = [(float(alpha), way, a, b) for way in ("slerp", "lerp") for alpha in still]
    return Explorer(draw, controls, positions, **options)


def _known(
    denoiser: Any, schedule: NoiseSchedule | None, image_size: tuple[int, int, int] | None
) -> tuple[NoiseSchedule, tuple[int, int, int]]:
    schedule = schedule or getattr(denoiser, "schedule", None)
    image_size = image_size or getattr(denoiser, "image_size", None)
    if schedule is None or image_size is None:
        missing = "schedule=NoiseSchedule…" if schedule is None else "image_size=(C, H, W)"
        raise UserError(f"the denoiser does not say what it was trained with; give {missing}")
    return schedule, tuple(image_size)


def _add_facts(options: dict[str, Any], denoiser: Any, **facts: Any) -> None:
    name = getattr(denoiser, "name", "")
    weights = {"weights": name} if name else {}
    options["facts"] = {"sampler": "ddim", **facts, **weights, **(options.get("facts") or {})}


def _numbers(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def _further(alphas: Sequence[float], beyond: float) -> list[float]:
    """The positions, and those beyond both ends in the stride between the first two."""
    alphas = _numbers(alphas)
    stride = alphas[1] - alphas[0] if len(alphas) > 1 else 0
    count = int(beyond / stride + 1e-9) if stride > 0 else 0
    below = [round(alphas[0] - i * stride, 6) for i in range(count, 0, -1)]
    above = [round(alphas[-1] + i * stride, 6) for i in range(1, count + 1)]
    return below + alphas + above
