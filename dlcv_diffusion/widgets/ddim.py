"""Explorers of DDIM: how much noise it adds (η), in how many steps, and between which two noises."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import check
from ..interpolation import lerp, slerp
from ..models.registry import shipped_weights
from ..noise import seeded_noise
from ..samplers import Denoise, Step, ddim, known_schedule, modules_of
from ..schedule import NoiseSchedule
from .controls import Control, plain_number
from .drafts import draft
from .explorer import Explorer

TWENTIETHS = tuple(step / 20 for step in range(21))
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
WAYS = {"slerp": slerp, "lerp": lerp}
STEP_COUNTS = (2, 5, 10, 20, 50, 100)
SEED = {"most": 2**32 - 1, "random": True}


def eta_explorer(
    denoiser: Denoise,
    *,
    etas: Sequence[float] = TWENTIETHS,
    steps: Sequence[int] = STEP_COUNTS,
    seeds: Sequence[int] = range(20),
    start: tuple[float, int, int] = (0.0, 20, 0),
    still: Sequence[float] = QUARTERS,
    schedule: NoiseSchedule | None = None,
    shape: tuple[int, int, int] | None = None,
    sampling: Mapping[str, Any] | None = None,
    **options: Any,
) -> Explorer:
    """Three sliders over DDIM (arXiv 2010.02502, eq. 12): η, the number of steps, and the seed of all noise.

    - denoiser: `denoiser(x, t) -> eps`; schedule, shape (C, H, W): where it does not know them as a `Denoiser` does.
    - etas, steps, seeds: the sliders' positions. start: where they stand first.
    - still: the η of the still picture, drawn before the sliders appear; `[]`: that of the start alone.
    - sampling: further arguments of `ddim`. options: those of `Explorer`.

    Raises `UserError` where schedule or shape are not known, and as `ddim` and `Control` do.

    >>> eta_explorer(denoiser, steps=(5, 10, 20), title="DDIM")   # doctest: +SKIP
    """
    schedule, shape, device = _known(denoiser, schedule, shape)
    sampling = dict(sampling or {})

    def draw(eta: float, steps: int, seed: int) -> tuple[Iterator[Step], int]:
        x_T = seeded_noise((1, *shape), [seed], device)
        return ddim(denoiser, x_T, schedule, steps=steps, eta=eta, seeds=[seed], **sampling), steps

    def guess(eta: float, steps: int, seed: int) -> tuple[Iterator[Step], int] | None:
        x_T = seeded_noise((1, *shape), [seed], device)
        return draft(denoiser, x_T, schedule, steps=steps, eta=eta, seeds=[seed], **sampling)

    def code(eta: float, steps: int, seed: int) -> str:
        settings = f"steps={steps}, eta={eta}, seeds=[{seed}]{given(denoiser, schedule, sampling)}"
        return f"last(ddim({name_of(denoiser)}, seeded_noise({(1, *shape)}, [{seed}]), {settings})).x"

    def describe(eta: float, steps: int, seed: int) -> str:
        return "fresh noise is added at every step" if eta else "no noise is added: the image follows from x_T alone"

    controls = {
        "eta": Control(etas, "noise added, η", start=start[0], symbol="η", play=True),
        "steps": Control(steps, "steps", label=str, start=start[1]),
        "seed": Control(seeds, "seed of the noise", label=str, start=start[2], **SEED),
    }
    _, count, seed = (control.start for control in controls.values())
    for eta, some in product(controls["eta"].values, controls["steps"].values):
        draw(eta, some, seed)  # takes no step, but raises where ddim cannot
    facts = _facts(denoiser, options, steps=count, seed=seed, **sampling)
    still = [(eta, count, seed) for eta in still]
    how = {"describe": describe, "draft": guess, "code": code, **options, "facts": facts}
    return Explorer(draw, controls, still, **how)


def alpha_explorer(
    denoiser: Denoise,
    *,
    alphas: Sequence[float] = TWENTIETHS,
    beyond: float = 0.0,
    seeds: Sequence[int] = range(20),
    start: tuple[float, str, int, int] = (0.5, "both", 0, 1),
    still: Sequence[float] = QUARTERS,
    steps: int = 20,
    schedule: NoiseSchedule | None = None,
    shape: tuple[int, int, int] | None = None,
    sampling: Mapping[str, Any] | None = None,
    **options: Any,
) -> Explorer:
    """From one noise to another: α, along the sphere (slerp, left), the straight line (lerp) or both; and two seeds.

    Below is the length of each noise; that of noise from N(0, I) is about √D. DDIM's η is 0.

    - denoiser, schedule, shape, steps, sampling, options: as in `eta_explorer`.
    - alphas, seeds: the sliders' positions. beyond: how far α goes on, in the same strides, at both ends.
    - start: α, "slerp", "lerp" or "both", and the two seeds.
    - still: the α of the still picture, a row for slerp and one for lerp.

    Raises `UserError` as `eta_explorer` does.

    >>> alpha_explorer(denoiser, beyond=0.2, start=(0.5, "both", 3, 8))   # doctest: +SKIP
    """
    schedule, shape, device = _known(denoiser, schedule, shape)
    sampling = dict(sampling or {})

    def noises(alpha: float, way: str, a: int, b: int) -> dict[str, Tensor]:
        ends = [seeded_noise((1, *shape), [seed]) for seed in (a, b)]
        return {name: WAYS[name](*ends, alpha) for name in WAYS if way in (name, "both")}

    def draw(**position: Any) -> tuple[Iterator[Step], int]:
        x_T = torch.cat(list(noises(**position).values())).to(device)
        return ddim(denoiser, x_T, schedule, steps=steps, **sampling), steps

    def guess(**position: Any) -> tuple[Iterator[Step], int] | None:
        x_T = torch.cat(list(noises(**position).values())).to(device)
        return draft(denoiser, x_T, schedule, steps=steps, **sampling)

    rest = given(denoiser, schedule, sampling)

    def code(alpha: float, way: str, a: int, b: int) -> str:
        noise = f"(*seeded_noise({(2, *shape)}, [{a}, {b}]).split(1), {alpha})"
        drawn = f"last(ddim({name_of(denoiser)}, {'way' if way == 'both' else way}{noise}, steps={steps}{rest})).x"
        return f"[{drawn} for way in (slerp, lerp)]" if way == "both" else drawn

    def facts_at(alpha: float, way: str, a: int, b: int) -> dict[str, Any]:
        return {"α": alpha, "along": way, "seeds": [a, b]}

    def describe(**position: Any) -> str:
        lengths = {name: x.norm().item() / math.sqrt(x.numel()) for name, x in noises(**position).items()}
        sides = {"slerp": " (left)", "lerp": " (right)"} if len(lengths) > 1 else {}
        words = (f"{way}{sides.get(way, '')} {length:.2f} √D" for way, length in lengths.items())
        return f"length of the noise: {', '.join(words)}"

    controls = {
        "alpha": Control(_further(alphas, beyond), "α", start=start[0], symbol="α", play=True),
        "way": Control([*WAYS, "both"], "along", label=str, start=start[1], buttons=True),
        "a": Control(seeds, "seed at α = 0", label=str, start=start[2], **SEED),
        "b": Control(seeds, "seed at α = 1", label=str, start=start[3], **SEED),
    }
    a, b = controls["a"].start, controls["b"].start
    facts = _facts(denoiser, options, steps=steps, seeds=[a, b], eta=0, **sampling)
    still = [(alpha, way, a, b) for way in WAYS for alpha in still]
    how = {"describe": describe, "draft": guess, "code": code, "facts_at": facts_at, **options, "facts": facts}
    return Explorer(draw, controls, still, **how)


def name_of(denoiser: Any) -> str:
    """How a line of code calls a denoiser: shipped weights by their name."""
    name = getattr(denoiser, "name", "")
    return f"load_denoiser({name!r})" if type(denoiser) is Denoiser and name in shipped_weights() else "denoiser"


def given(denoiser: Any, schedule: NoiseSchedule, sampling: Mapping[str, Any]) -> str:
    """The rest of a line of code: a schedule that is not the denoiser's own, and what else `ddim` is told."""
    own = getattr(denoiser, "schedule", None) is schedule
    further = {**({} if own else {"schedule": "schedule"}), **{name: repr(value) for name, value in sampling.items()}}
    return "".join(f", {name}={value}" for name, value in further.items())


def _known(
    denoiser: Any, schedule: NoiseSchedule | None, shape: tuple[int, int, int] | None
) -> tuple[NoiseSchedule, tuple[int, int, int], torch.device]:
    """What is given, or else the denoiser's own; and where its weights are."""
    schedule = known_schedule(denoiser, schedule)
    shape = getattr(denoiser, "shape", None) if shape is None else shape
    check(shape, "this denoiser does not say of what shape its images are; give shape=(C, H, W)")
    weights = (weight for module in modules_of(denoiser) for weight in module.parameters())
    device = next((weight.device for weight in weights), torch.device("cpu"))
    return schedule, tuple(shape), device


def _facts(denoiser: Any, options: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
    name = getattr(denoiser, "name", "")
    return {"sampler": "ddim", **facts, **({"weights": name} if name else {}), **(options.get("facts") or {})}


def _further(alphas: Sequence[float], beyond: float) -> list[float]:
    """The positions, and those beyond both ends in the stride between the first two."""
    alphas = [plain_number(alpha) for alpha in alphas]
    stride = alphas[1] - alphas[0] if len(alphas) > 1 else 0
    strides = [i * stride for i in range(1, int(beyond / stride + 1e-9) + 1)] if stride > 0 else []
    return [alphas[0] - far for far in reversed(strides)] + alphas + [alphas[-1] + far for far in strides]
