"""From noise to an image: DDPM, DDIM and DPM-Solver++ as generators that yield every step.

A sampler asks a denoiser, `denoise(x, t) -> eps`, at descending timesteps, and knows no model, no label, no progress
bar. The schedule is the denoiser's own, unless another is given. The weights of each step are computed in float64.

The model, which is the denoiser or its attribute `model`, runs in eval mode and without gradients; between two steps
both are as they were. A lambda hides its model: call `model.eval()` before you wrap one.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .errors import check
from .noise import NoiseStream
from .schedule import NoiseSchedule

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]


class Step(NamedTuple):
    """One step of a sampler, from x_t to x_{t_prev}, the next timestep that it visits.

    - t: the timestep at which the network was asked; x: the image *after* the step, x_{t_prev}, (B, C, H, W).
    - x0, eps: x̂0, clipped if that was asked for, and ε, as the network sees them in x_t.

    The sampler goes on with x: clone it before you change it in place.
    """

    t: int
    x: Tensor
    x0: Tensor
    eps: Tensor


def ddpm(
    denoise: Denoise,
    x: Tensor,
    schedule: NoiseSchedule | None = None,
    *,
    steps: int | Sequence[int] | None = None,
    spacing: str = "trailing",
    variance: str = "beta",
    clip_x0: float | None = None,
    seeds: Iterable[int] | None = None,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Ancestral sampling (DDPM, arXiv 2006.11239, algorithm 2 and eq. 7).

        x_{t−1} = √ᾱ_{t−1} β_t / (1 − ᾱ_t) x̂0  +  √α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) x_t  +  σ_t z,   z ~ N(0, I)

    without noise at the last step. Unclipped, this is the paper's (x_t − β_t/√(1 − ᾱ_t) ε) / √α_t + σ_t z.

    - denoise: `denoise(x, t) -> eps`; x: x_T, (B, C, H, W) from N(0, I), on the device to work on.
    - schedule: the denoiser's own by default.
    - steps: how many of `schedule.timesteps(steps, spacing)`, or the timesteps themselves, descending; all T by
      default. With fewer, α_t = ᾱ_t / ᾱ_{t_prev}.
    - spacing: "trailing" begins at T − 1, the timestep whose noise x_T is; "uniform" is the DDIM paper's.
    - variance: "beta", σ_t² = β_t, or "posterior", σ_t² = β̃_t = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) β_t.
    - clip_x0: x̂0 is clamped to ±clip_x0; None: as is.
    - seeds: one for each image, so that image i depends on seed i alone. Or `noise`: noise(x_t) gives z.

    Raises `UserError` for timesteps off the schedule, an unknown option, or when nothing gives the noise.

    >>> image = last(ddpm(guided(digits, labels), x_T, seeds=range(10))).x   # doctest: +SKIP
    """
    check(variance in ("beta", "posterior"), f"unknown variance '{variance}'; choose beta or posterior")
    schedule = known_schedule(denoise, schedule)
    timesteps, alphas_bar = _plan(schedule, schedule.T if steps is None else steps, spacing, clip_x0)
    draw, modules = _noise(noise, seeds, x), modules_of(denoise)

    def walk(x: Tensor) -> Iterator[Step]:
        for t, abar, abar_prev in zip(timesteps, alphas_bar, alphas_bar[1:], strict=False):
            with evaluating(modules):
                eps, x0 = predict(denoise, x, t, schedule, clip_x0)
                alpha, beta = abar / abar_prev, 1 - abar / abar_prev
                x = (math.sqrt(abar_prev) * beta * x0 + math.sqrt(alpha) * (1 - abar_prev) * x) / (1 - abar)
                if t != timesteps[-1]:
                    sigma = math.sqrt(beta if variance == "beta" else beta * (1 - abar_prev) / (1 - abar))
                    x = x + sigma * draw(x)
            yield Step(t, x, x0, eps)

    return walk(x)


def ddim(
    denoise: Denoise,
    x: Tensor,
    schedule: NoiseSchedule | None = None,
    *,
    steps: int | Sequence[int] = 50,
    spacing: str = "trailing",
    eta: float = 0.0,
    final_alpha: str = "one",
    clip_x0: float | None = None,
    rederive_eps: bool = False,
    seeds: Iterable[int] | None = None,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Denoising diffusion implicit model (DDIM, arXiv 2010.02502, eq. 12; σ: eq. 16), in any number of steps.

        x_{t_prev} = √ᾱ_{t_prev} x̂0  +  √(1 − ᾱ_{t_prev} − σ²) ε  +  σ z
        σ = η √((1 − ᾱ_{t_prev}) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_{t_prev})

    - denoise, x, schedule, steps, spacing, clip_x0, seeds, noise: as in `ddpm`; η = 0 needs neither seeds nor noise.
    - eta: η in [0, 1]; 0: the image is a function of x_T; 1: `ddpm` with the posterior variance.
    - final_alpha: ᾱ after the last step: `"one"`, the clean image (the paper); `"first"`, ᾱ_0.
    - rederive_eps: after clipping, take ε from x_t and the clipped x̂0 rather than from the network.

    Raises `UserError` as `ddpm` does, and for η outside [0, 1].

    >>> image = last(ddim(denoise, x_T, steps=50, eta=0.0)).x   # doctest: +SKIP
    """
    check(0 <= eta <= 1, f"eta is {eta}; it must be between 0 (deterministic) and 1 (as DDPM)")
    schedule = known_schedule(denoise, schedule)
    timesteps, alphas_bar = _plan(schedule, steps, spacing, clip_x0, final_alpha)
    draw, modules = _noise(noise, seeds, x) if eta else None, modules_of(denoise)

    def walk(x: Tensor) -> Iterator[Step]:
        for t, abar, abar_prev in zip(timesteps, alphas_bar, alphas_bar[1:], strict=False):
            with evaluating(modules):
                eps, x0 = predict(denoise, x, t, schedule, clip_x0)
                toward = schedule.predict_eps(x, x0, t) if rederive_eps else eps
                sigma = eta * math.sqrt((1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev))
                z = sigma * draw(x) if sigma else 0.0
                x = math.sqrt(abar_prev) * x0 + math.sqrt(max(0.0, 1 - abar_prev - sigma**2)) * toward + z
            yield Step(t, x, x0, toward)

    return walk(x)


def dpm_solver(
    denoise: Denoise,
    x: Tensor,
    schedule: NoiseSchedule | None = None,
    *,
    steps: int | Sequence[int] = 20,
    spacing: str = "trailing",
    final_alpha: str = "one",
    clip_x0: float | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): second order, good in 10 to 20 steps.

    With α = √ᾱ, σ = √(1 − ᾱ), λ = log(α/σ), h = λ_{t_prev} − λ_t, and h', x̂0' those of the step before:

        D = x̂0 + h/(2h') (x̂0 − x̂0'),        x_{t_prev} = σ_{t_prev}/σ_t x_t − α_{t_prev} (e^{−h} − 1) D

    The first step and the last take D = x̂0, which makes them DDIM steps.

    - denoise, x, schedule, steps, spacing, clip_x0: as in `ddpm`.
    - final_alpha: as in `ddim`. diffusers' "zero" is "one"; its "sigma_min" is "first", but takes a second-order last
      step from 15 steps on.

    Raises `UserError` as `ddpm` does.

    >>> image = last(dpm_solver(denoise, x_T, steps=20)).x   # doctest: +SKIP
    """
    schedule = known_schedule(denoise, schedule)
    timesteps, alphas_bar = _plan(schedule, steps, spacing, clip_x0, final_alpha)
    modules = modules_of(denoise)

    def walk(x: Tensor) -> Iterator[Step]:
        h_before, x0_before = math.inf, torch.zeros_like(x)
        for t, abar, abar_prev in zip(timesteps, alphas_bar, alphas_bar[1:], strict=False):
            with evaluating(modules):
                eps, x0 = predict(denoise, x, t, schedule, clip_x0)
                h = _lambda(abar_prev) - _lambda(abar)
                D = x0 if t in (timesteps[0], timesteps[-1]) else x0 + h / (2 * h_before) * (x0 - x0_before)
                x = math.sqrt((1 - abar_prev) / (1 - abar)) * x - math.sqrt(abar_prev) * math.expm1(-h) * D
                h_before, x0_before = h, x0
            yield Step(t, x, x0, eps)

    return walk(x)


def last(steps: Iterable[Step]) -> Step:
    """Run a sampler to its end and return the last step; its `x` is the finished image.

    >>> image = last(ddim(denoise, x_T)).x   # doctest: +SKIP
    """
    final = deque(steps, maxlen=1)
    check(final, "there are no steps to take an image from; a sampler can be run only once")
    return final.pop()


# --- what all samplers share --------------------------------------------------------------------------------


def predict(
    denoise: Denoise, x: Tensor, t: int, schedule: NoiseSchedule, clip_x0: float | None = None
) -> tuple[Tensor, Tensor]:
    """ε and x̂0 (DDPM, eq. 15), both like x: what the denoiser sees in x_t, and x̂0 clamped to ±clip_x0.

    >>> eps, x0 = predict(denoise, x, 999, schedule)   # doctest: +SKIP
    """
    eps = denoise(x, torch.full((len(x),), t, device=x.device))
    given = tuple(eps.shape) if isinstance(eps, Tensor) else type(eps).__name__
    check(given == tuple(x.shape), f"the denoiser gave {given} for images {tuple(x.shape)}; ε has their shape")
    eps = eps.to(x.dtype)
    x0 = schedule.predict_x0(x, eps, t)
    return eps, x0 if clip_x0 is None else x0.clamp(-clip_x0, clip_x0)


def known_schedule(denoise: object, schedule: NoiseSchedule | None = None) -> NoiseSchedule:
    """The schedule that is given, or else the denoiser's own; `UserError` where there is neither."""
    schedule = getattr(denoise, "schedule", None) if schedule is None else schedule
    check(isinstance(schedule, NoiseSchedule), "this denoiser does not know its schedule; give schedule=NoiseSchedule…")
    return schedule


@contextmanager
def evaluating(modules: list[nn.Module]) -> Iterator[None]:
    """These modules in eval mode and without gradients inside, and as they were outside."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def modules_of(denoise: object) -> list[nn.Module]:
    """All modules of a denoiser that is one, or has one as its attribute `model` (of `model` …); none of a lambda."""
    found: list[nn.Module] = []
    while denoise is not None:
        found += denoise.modules() if isinstance(denoise, nn.Module) else []
        denoise = getattr(denoise, "model", None)
    return list(dict.fromkeys(found))


def chosen_timesteps(schedule: NoiseSchedule, steps: int | Sequence[int], spacing: str) -> list[int]:
    """The timesteps that a sampler's `steps` means, descending: so many, spaced as said, or these themselves."""
    if isinstance(steps, Integral):
        return schedule.timesteps(int(steps), spacing)
    return schedule.check_timesteps(steps)


def _plan(
    schedule: NoiseSchedule, steps: int | Sequence[int], spacing: str, clip_x0: float | None, final_alpha: str = "one"
) -> tuple[list[int], list[float]]:
    """The timesteps, and ᾱ at each of them and after the last."""
    check(clip_x0 is None or clip_x0 > 0, f"clip_x0 is {clip_x0}; x̂0 is clamped to ± a positive number")
    check(final_alpha in ("one", "first"), f"unknown final_alpha '{final_alpha}'; choose one (ᾱ = 1) or first (ᾱ_0)")
    timesteps = chosen_timesteps(schedule, steps, spacing)
    final = 1.0 if final_alpha == "one" else schedule.alphas_bar[0].item()
    return timesteps, [*schedule.alphas_bar[timesteps].tolist(), final]


def _lambda(abar: float) -> float:
    return math.inf if abar == 1 else 0.5 * math.log(abar / (1 - abar))


def _noise(noise: Noise | None, seeds: Iterable[int] | None, x: Tensor) -> Noise:
    one = (noise is None) != (seeds is None)
    check(one, "this sampler draws noise at every step; give seeds=…, one for each image, or noise=…")
    stream = noise or NoiseStream(seeds)
    count = len(getattr(stream, "generators", x))
    check(count == len(x), f"{count} seeds for {len(x)} images; give one seed for each image")

    def draw(x: Tensor) -> Tensor:
        z = stream(x)
        check(z.shape == x.shape, f"the noise is {tuple(z.shape)} for images {tuple(x.shape)}; they must be alike")
        return z

    return draw
