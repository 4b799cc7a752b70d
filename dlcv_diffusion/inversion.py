"""DDIM backwards: from a picture to the noise that it would have been drawn from.

At η = 0 DDIM's path can be walked upwards as well (arXiv 2010.02502, sec. 4.3). Solved for x_t, eq. 12 reads

    x_t = √(ᾱ_t / ᾱ_{t_prev}) x_{t_prev}  +  (√(1 − ᾱ_t) − √(ᾱ_t / ᾱ_{t_prev}) √(1 − ᾱ_{t_prev})) ε_θ(x_t, t)

with x_t on both sides: ε_θ(x_{t_prev}, t) is taken, and `refine` puts the x_t so found in again (arXiv 2309.04907).
"""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from .errors import check
from .samplers import Denoise, Step, chosen_timesteps, evaluating, known_schedule, modules_of, predict
from .schedule import NoiseSchedule


def ddim_inversion(
    denoise: Denoise,
    x0: Tensor,
    schedule: NoiseSchedule | None = None,
    *,
    steps: int | Sequence[int] = 50,
    spacing: str = "trailing",
    refine: int = 0,
) -> Iterator[Step]:
    """Walk DDIM's path upwards (eq. 12 at η = 0, solved for x_t); the last step's `x` is the picture's noise x_T.

    `ddim` from there with the same steps comes back to the picture, the nearer the more steps and refinement.

    - x0: pictures (B, C, H, W) in [−1, 1]; denoise, schedule, steps, spacing: as of `ddim`, visited ascending.
    - refine: how often each step is solved again, at the cost of a call of the denoiser. `Step.x` is x_t.

    Raises `UserError` for timesteps off the schedule, or a negative `refine`.

    >>> x_T = last(ddim_inversion(denoise, photo, steps=50, refine=3)).x     # doctest: +SKIP
    >>> again = last(ddim(denoise, x_T, steps=50)).x                         # doctest: +SKIP
    """
    check(refine >= 0, f"cannot refine a step {refine} times; choose 0 or more")
    schedule = known_schedule(denoise, schedule)
    timesteps = chosen_timesteps(schedule, steps, spacing)[::-1]
    alphas_bar, modules = [1.0, *schedule.alphas_bar[timesteps].tolist()], modules_of(denoise)

    def climb(x: Tensor) -> Iterator[Step]:
        for t, abar_prev, abar in zip(timesteps, alphas_bar, alphas_bar[1:], strict=False):
            scale = math.sqrt(abar / abar_prev)
            weight = math.sqrt(1 - abar) - scale * math.sqrt(1 - abar_prev)
            with evaluating(modules):
                below = x
                for _ in range(1 + refine):
                    eps, _ = predict(denoise, x, t, schedule)
                    x = scale * below + weight * eps
            yield Step(t, x, schedule.predict_x0(x, eps, t), eps)

    return climb(x0)
