"""From noise to an image: DDPM, DDIM and DPM-Solver++ as generators that yield every step.

A sampler asks a denoiser, `denoise(x, t) -> eps`, at a list of descending timesteps, and knows nothing else:
no model, no label, no progress bar. All it does between two calls is a weighted sum whose weights are
computed beforehand, in float64, from ᾱ. The last timestep is followed by the image itself, where ᾱ = 1.

    for step in ddim(denoise, x_T, schedule, steps=50):
        ...                               # step.t, step.x, step.x0, step.eps
    image = step.x

The model runs in eval mode and without gradients, and between two steps the caller finds both as they were:
only what the sampler itself computes is affected, so that stopping half-way, or an exception, leaves nothing
behind. The model is found when the denoiser is an `nn.Module`, or has it as its attribute `model`, as
`guided(…)` does; a lambda hides it, so call `model.eval()` yourself before you wrap a model in one.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .errors import UserError
from .noise import NoiseStream
from .schedule import NoiseSchedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]
Clip = float | Callable[[Tensor], Tensor] | None

NO_STEPS = "there are no steps to take an image from; a sampler can be run only once"


class Step(NamedTuple):
    """One step of a sampler, from x_t to x_{t_prev}, where t_prev is the next timestep that it visits.

    - t: the timestep at which the network was asked, 0-based.
    - x: (B, C, H, W), the image *after* the step, x_{t_prev}: it carries the noise of the timestep below t.
      At the last step there is none below, and x is the finished image. (In the papers' count, from 1, a
      sampler that visits every timestep goes from x_{t+1} to x_t here: the step at t holds the papers' x_t,
      and the one at t = 0 their x_0.)
    - x0: (B, C, H, W), the image that the network sees in x_t: x̂0, clipped if clipping was asked for.
    - eps: (B, C, H, W), the noise that the network sees in x_t.

    The sampler goes on with the very x that it yields: clone it before you change it in place.
    """

    t: int
    x: Tensor
    x0: Tensor
    eps: Tensor


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int | Sequence[int] | None = None,
    spacing: str = "uniform",
    variance: str = "beta",
    clip_x0: Clip = None,
    seeds: Iterable[int] | None = None,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Ancestral sampling (DDPM, arXiv 2006.11239, algorithm 2 and eq. 7).

        x_{t−1} = √ᾱ_{t−1} β_t / (1 − ᾱ_t) x̂0  +  √α_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) x_t  +  σ_t z,   z ~ N(0, I)

    without noise at the last step. Unclipped, this is the paper's (x_t − β_t/√(1 − ᾱ_t) ε) / √α_t + σ_t z.

    - denoise: `denoise(x, t) -> eps`; x: x_T, (B, C, H, W) from N(0, I), on the device to work on.
    - steps: how many timesteps, chosen by `schedule.timesteps(steps, spacing)`; or the timesteps themselves,
      descending. All T by default. With fewer, α_t = ᾱ_t / ᾱ_{t_prev}.
    - variance: `"beta"`, σ_t² = β_t, or `"posterior"`, σ_t² = β̃_t = (1 − ᾱ_{t−1}) / (1 − ᾱ_t) β_t.
    - clip_x0: x̂0 is clamped to [−clip_x0, clip_x0], or is given to a function such as `dynamic_threshold`.
      None: as is.
    - seeds: one for each image, so that image i depends on seed i alone. Or `noise`: noise(x_t) gives z.
    - Yields a `Step` for each timestep.

    Raises `UserError` for timesteps off the schedule, an unknown option, or when nothing gives the noise.

    >>> seeds = range(10)
    >>> x_T = seeded_noise((10, 3, 28, 28), seeds)                         # doctest: +SKIP
    >>> image = last(ddpm(guided(model, labels), x_T, schedule, seeds=seeds)).x   # doctest: +SKIP
    """
    if variance not in ("beta", "posterior"):
        raise UserError(f"unknown variance '{variance}'; choose beta or posterior")
    noise = _noise(noise, seeds)

    def step(x: Tensor, x0: Tensor, eps: Tensor, abar: float, abar_prev: float) -> Tensor:
        alpha = abar / abar_prev
        beta = 1 - alpha
        mean = (math.sqrt(abar_prev) * beta * x0 + math.sqrt(alpha) * (1 - abar_prev) * x) / (1 - abar)
        if abar_prev == 1:
            return mean
        sigma = math.sqrt(beta if variance == "beta" else beta * (1 - abar_prev) / (1 - abar))
        return mean + sigma * noise(x)

    timesteps = chosen_timesteps(schedule, schedule.T if steps is None else steps, spacing)
    return _walk(denoise, x, schedule, timesteps, 1.0, clip_x0, step)


def ddim(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int | Sequence[int] = 50,
    spacing: str = "uniform",
    eta: float = 0.0,
    final_alpha: str = "one",
    clip_x0: Clip = None,
    rederive_eps: bool = False,
    seeds: Iterable[int] | None = None,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Denoising diffusion implicit model (DDIM, arXiv 2010.02502, eq. 12; σ: eq. 16), in any number of steps.

        x_{t_prev} = √ᾱ_{t_prev} x̂0  +  √(1 − ᾱ_{t_prev} − σ²) ε  +  σ z
        σ = η √((1 − ᾱ_{t_prev}) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_{t_prev})

    η = 0 draws no noise: the image is a function of x_T. η = 1 is `ddpm` with the posterior variance.

    - denoise, x, steps, spacing, clip_x0, seeds, noise: as in `ddpm`; η = 0 needs neither seeds nor noise.
    - eta: η in [0, 1].
    - final_alpha: ᾱ after the last step: `"one"`, the clean image (the paper); `"first"`, ᾱ_0.
    - rederive_eps: after clipping, take ε from x_t and the clipped x̂0 rather than from the network.
    - Yields a `Step` for each timestep.

    For the course's faces: `steps=schedule.timesteps(50, offset=1)`, which ends at t = 1, comes nearer to the
    reference than the paper's t = 0, and the reference itself ends at ᾱ_0, `final_alpha="first"`.

    Raises `UserError` as `ddpm` does, and for η outside [0, 1].

    >>> image = last(ddim(denoise, x_T, schedule, steps=50, eta=0.0)).x   # doctest: +SKIP
    """
    check_eta(eta)
    noise = _noise(noise, seeds) if eta else None

    def step(x: Tensor, x0: Tensor, eps: Tensor, abar: float, abar_prev: float) -> Tensor:
        if rederive_eps:
            eps = (x - math.sqrt(abar) * x0) / math.sqrt(1 - abar)
        sigma = eta * math.sqrt((1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev))
        mean = math.sqrt(abar_prev) * x0 + math.sqrt(1 - abar_prev - sigma**2) * eps
        return mean + sigma * noise(x) if sigma else mean

    timesteps = chosen_timesteps(schedule, steps, spacing)
    return _walk(denoise, x, schedule, timesteps, _final(schedule, final_alpha), clip_x0, step)


def dpm_solver(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int | Sequence[int] = 20,
    spacing: str = "trailing",
    final_alpha: str = "one",
    lower_order_final: bool = True,
    clip_x0: Clip = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): second order, good in 10 to 20 steps.

    Deterministic: the image is a function of x_T.

    With α = √ᾱ, σ = √(1 − ᾱ), λ = log(α/σ), h = λ_{t_prev} − λ_t, and h', x̂0' those of the step before:

        D = x̂0 + h/(2h') (x̂0 − x̂0'),        x_{t_prev} = σ_{t_prev}/σ_t x_t − α_{t_prev} (e^{−h} − 1) D

    The first step has nothing before it and takes D = x̂0, which makes it a DDIM step. So does the last one:

    - final_alpha: `"one"`, the last step goes to the clean image, where h = ∞ and x = x̂0; `"first"`, to ᾱ_0.
    - lower_order_final: the last step to ᾱ_0 is of first order, too; steadier below some 15 steps.
    - denoise, x, steps, spacing, clip_x0: as in `ddpm`. `"trailing"` begins at T − 1, where x_T belongs.
    - Yields a `Step` for each timestep, one call of the denoiser each.

    In diffusers' `DPMSolverMultistepScheduler` this is algorithm_type "dpmsolver++", solver_order 2,
    solver_type "midpoint", and final_sigmas_type "zero" for `"one"`, "sigma_min" for `"first"`.

    Raises `UserError` as `ddpm` does.

    >>> image = last(dpm_solver(denoise, x_T, schedule, steps=20)).x   # doctest: +SKIP
    """
    timesteps = chosen_timesteps(schedule, steps, spacing)
    final = _final(schedule, final_alpha)
    orders = [1] + [2] * (len(timesteps) - 1)
    if lower_order_final or final == 1:
        orders[-1] = 1
    order = iter(orders)
    before: tuple[float, Tensor] = (0.0, x)  # h' and x̂0' of the step before

    def step(x: Tensor, x0: Tensor, eps: Tensor, abar: float, abar_prev: float) -> Tensor:
        nonlocal before
        h = _lambda(abar_prev) - _lambda(abar)
        h_before, x0_before = before
        D = x0 + h / (2 * h_before) * (x0 - x0_before) if next(order) == 2 else x0
        before = h, x0
        return math.sqrt((1 - abar_prev) / (1 - abar)) * x - math.sqrt(abar_prev) * math.expm1(-h) * D

    return _walk(denoise, x, schedule, timesteps, final, clip_x0, step)


def dynamic_threshold(x0: Tensor, p: float = 0.995, limit: float = math.inf) -> Tensor:
    """Clamp each image to [−s, s] and divide by s, its p-quantile of |x̂0| or 1 (Imagen, arXiv 2205.11487).

    For `clip_x0`, where strong guidance drives pixels far out of [−1, 1]. x0 and the result are (B, C, H, W).

    >>> steps = ddim(denoise, x_T, schedule, clip_x0=dynamic_threshold)   # doctest: +SKIP
    """
    s = x0.flatten(1).abs().quantile(p, dim=1).clamp(1, max(limit, 1)).reshape(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-s, s) / s


def last(steps: Iterable[Step]) -> Step:
    """Run a sampler to its end and return the last step; its `x` is the finished image.

    >>> image = last(ddim(denoise, x_T, schedule)).x   # doctest: +SKIP
    """
    final = deque(steps, maxlen=1)
    if not final:
        raise UserError(NO_STEPS)
    return final.pop()


def frames(
    steps: Iterable[Step], at: Sequence[int], *, nearest: bool = False, start: Tensor | None = None
) -> list[Step]:
    """Run a sampler to its end and return the steps at the timesteps `at`, in that order.

    - at: timesteps, 0-based. The x of a frame is the image after its step (see `Step`): the frame at the
      last timestep shows the finished image.
    - nearest: take the nearest timestep that the sampler visits, for samplers that skip some.
    - start: x_T, to have it as the first frame, one timestep above the first step. Nothing has been asked of
      the network there: its eps is x_T itself, its x0 is zero.

    Raises `UserError` for a timestep that the sampler does not visit, and for a sampler that has been run already.

    >>> steps = ddpm(denoise, x_T, schedule, seeds=[0])             # doctest: +SKIP
    >>> strip = frames(steps, at=[349, 140, 84, 42, 14, 0])         # doctest: +SKIP
    """
    best: dict[int, Step] = {}
    visited = []
    for step in steps:
        visited.append(step.t)
        for t in at:
            if t not in best or abs(step.t - t) < abs(best[t].t - t):
                best[t] = step
    if not visited:
        raise UserError(NO_STEPS)
    missed = [t for t in at if t not in visited]
    if missed and not nearest:
        raise UserError(f"the sampler does not visit t = {missed} but {visited}; or choose nearest=True")
    first = [] if start is None else [Step(visited[0] + 1, start, torch.zeros_like(start), start)]
    return first + [best[t] for t in at]


# --- what all samplers share --------------------------------------------------------------------------------


def _walk(
    denoise: Denoiser,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: list[int],
    final_alpha_bar: float,
    clip_x0: Clip,
    step: Callable[[Tensor, Tensor, Tensor, float, float], Tensor],
) -> Iterator[Step]:
    """Ask the denoiser at every timestep and let `step` take x_t, x̂0, ε, ᾱ_t, ᾱ_{t_prev} to x_{t_prev}."""
    modules = modules_of(denoise)
    alphas_bar = [schedule.alphas_bar[t].item() for t in timesteps] + [final_alpha_bar]
    for t, abar, abar_prev in zip(timesteps, alphas_bar, alphas_bar[1:], strict=False):
        with evaluating(modules):  # closed before the yield: nothing leaks to the caller
            eps = denoise(x, torch.full((len(x),), t, device=x.device)).to(x.dtype)
            x0 = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)  # DDPM, eq. 15
            if clip_x0 is not None:
                x0 = clip_x0(x0) if callable(clip_x0) else x0.clamp(-clip_x0, clip_x0)
            x = step(x, x0, eps, abar, abar_prev)
        yield Step(t, x, x0, eps)


def check_eta(eta: float) -> None:
    """Raise `UserError` for an η that is not in [0, 1]."""
    if not 0 <= eta <= 1:  # said this way round, NaN is refused too
        raise UserError(f"eta is {eta}; it must be between 0 (deterministic) and 1 (as DDPM)")


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
    while denoise is not None and not isinstance(denoise, nn.Module):
        denoise = getattr(denoise, "model", None)
    return list(denoise.modules()) if denoise is not None else []


def chosen_timesteps(schedule: NoiseSchedule, steps: int | Sequence[int], spacing: str) -> list[int]:
    """The timesteps that a sampler's `steps` means, descending: so many, spaced as said, or these themselves."""
    if isinstance(steps, Integral):
        return schedule.timesteps(int(steps), spacing)
    return schedule.check_timesteps(steps)


def _final(schedule: NoiseSchedule, final_alpha: str) -> float:
    if final_alpha not in ("one", "first"):
        raise UserError(f"unknown final_alpha '{final_alpha}'; choose one (ᾱ = 1) or first (ᾱ_0)")
    return 1.0 if final_alpha == "one" else schedule.alphas_bar[0].item()


def _lambda(abar: float) -> float:
    return math.inf if abar == 1 else 0.5 * math.log(abar / (1 - abar))


def _noise(noise: Noise | None, seeds: Iterable[int] | None) -> Noise:
    if noise is None and seeds is None:
        raise UserError("this sampler draws noise at every step; give seeds=…, one for each image")
    return noise if noise is not None else NoiseStream(seeds)
