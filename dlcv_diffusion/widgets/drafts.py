"""A first guess at what DDIM will draw, in few steps that follow the same noise as the many."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..noise import NoiseStream
from ..samplers import Denoise, Step, chosen_timesteps, ddim, predict
from ..schedule import NoiseSchedule

DRAFT_STEPS = {"without noise": 6, "with noise": 10}


def draft(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: int,
    eta: float = 0.0,
    seeds: Sequence[int] = (),
    spacing: str = "trailing",
    **sampling: Any,
) -> tuple[Iterator[Step], int] | None:
    """What DDIM with η draws in `steps` steps, guessed in six, or ten where η > 0; None for fewer than twice that.

    Those few are some of its own timesteps. They are of second order (`Extrapolated`), and each takes the sum of the
    noises that fall into it (`SummedNoise`). Arguments as of `ddim`; seeds are needed where η > 0.

    >>> steps, count = draft(denoiser, x_T, denoiser.schedule, steps=20, eta=0.5, seeds=[0])   # doctest: +SKIP
    """
    few = DRAFT_STEPS["with noise" if eta else "without noise"]
    if steps < 2 * few:
        return None
    fine = chosen_timesteps(schedule, steps, spacing)
    coarse = [fine[round(i * len(fine) / few)] for i in range(few)]
    final = schedule.alphas_bar[0].item() if sampling.get("final_alpha") == "first" else 1.0
    noise = SummedNoise(NoiseStream(seeds), schedule, fine, coarse, eta, final) if eta else None
    guess = Extrapolated(denoise, schedule, coarse)
    return ddim(guess, x_T, schedule, steps=coarse, eta=eta, noise=noise, **sampling), len(coarse)


class Extrapolated:
    """A denoiser that sees x̂0 where it will be: D = x̂0 + h/(2h') (x̂0 − x̂0'), h = λ_{t_prev} − λ_t (`dpm_solver`).

    DDIM with it and η = 0 is DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

    - timesteps: those at which it will be called, once each, descending; at the first and the last D is x̂0.
    """

    def __init__(self, denoise: Denoise, schedule: NoiseSchedule, timesteps: Sequence[int]):
        self.model, self.schedule = denoise, schedule
        abar = schedule.alphas_bar[list(timesteps)].double()
        self.steps = (0.5 * (abar / (1 - abar)).log()).diff().tolist()
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        eps, x0 = predict(self.model, x, int(t[0]), self.schedule)
        self.seen.append(x0)
        now = len(self.seen) - 1
        if not 0 < now < len(self.steps):
            return eps
        D = x0 + self.steps[now] / (2 * self.steps[now - 1]) * (x0 - self.seen[-2])
        return self.schedule.predict_eps(x, D, int(t[0]))


class SummedNoise:
    """z of DDIM's coarse steps, N(0, I), made of the z_i of the fine steps that each of them takes at once.

    Where x̂0 stays as it is, a fine step takes the distance d of x from √ᾱ x̂0 to r_i d + σ_i z_i, with
    r_i = √((1 − ᾱ_{i+1} − σ_i²) / (1 − ᾱ_i)) (arXiv 2010.02502, eq. 12). So after several

        z = Σ_i c_i z_i / √(Σ_i c_i²),    c_i = σ_i Π_{j > i} r_j.

    - stream: gives the fine steps' z_i, in their order. fine, coarse: timesteps, descending; the latter are some of the
      former, and the first. eta: η > 0. final: ᾱ after the last step.

    >>> noise = SummedNoise(NoiseStream([0]), schedule, [9, 6, 3, 0], [9, 3], eta=1.0)   # doctest: +SKIP
    """

    def __init__(
        self,
        stream: NoiseStream,
        schedule: NoiseSchedule,
        fine: Sequence[int],
        coarse: Sequence[int],
        eta: float,
        final: float = 1.0,
    ):
        levels = [*schedule.alphas_bar[list(fine)].tolist(), final]
        sigmas = [eta * math.sqrt((1 - b) / (1 - a) * (1 - a / b)) for a, b in pairwise(levels)]
        kept = [
            math.sqrt((1 - b - sigma**2) / (1 - a)) if b < 1 else 0.0
            for (a, b), sigma in zip(pairwise(levels), sigmas, strict=True)
        ]
        begins = [list(fine).index(t) for t in coarse]
        self.stream, self.shares = stream, []
        for first, end in pairwise([*begins, len(fine)]):
            self.shares.append([sigmas[i] * math.prod(kept[i + 1 : end]) for i in range(first, end)])
        self._turn = iter(self.shares)

    def __call__(self, x: Tensor) -> Tensor:
        shares = next(self._turn)
        parts = [share * self.stream(x) for share in shares]
        return torch.stack(parts).sum(0) / math.sqrt(sum(share**2 for share in shares))
