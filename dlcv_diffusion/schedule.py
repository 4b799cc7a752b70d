"""The noise schedule: how much of the image is left at each timestep.

Symbols as in DDPM (arXiv 2006.11239), with timesteps counted from 0: the paper's t is our t + 1.

    β_t               `betas`       variance added at t
    α_t = 1 − β_t     `alphas`
    ᾱ_t = Π_{s≤t} α_s `alphas_bar`  share of the image's variance that is left at t
    ᾱ_t / (1 − ᾱ_t)   `snr`         signal-to-noise ratio
    √((1 − ᾱ_t)/ᾱ_t)  `sigmas`      noise level when the image keeps its size (Karras et al. 2022)
    β̃_t               `posterior_variances`  of q(x_{t−1} | x_t, x0), eq. 7
"""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from .arguments import as_tensor, is_whole
from .errors import UserError, check

SPACINGS = ("uniform", "trailing")
MOST_TIMESTEPS = 1_000_000


class NoiseSchedule:
    """β_1 … β_T and what follows from them, computed in float64 and handed out in float32 on the device of x.

    `config` is plain JSON, from which `from_config` makes the same schedule again.

    ᾱ_T ≈ exp(−Σ β_t) is 4e-5 with 1,000 linear betas, but 0.03 with 350: the last training image still holds
    √ᾱ_T = 17 % of its picture, and what is sampled from N(0, I) comes out half bright (arXiv 2305.08891: signal leak).

    >>> schedule = NoiseSchedule.linear(350)
    >>> round(schedule.alphas_bar[-1].item(), 3)
    0.029
    """

    def __init__(self, betas: Sequence[float] | Tensor, config: Mapping[str, Any] | None = None):
        """betas: T numbers in (0, 1), the first timestep's first. Raises `UserError` for others."""
        wanted = "a noise schedule needs a list of betas, each of them a number between 0 and 1"
        self.betas = as_tensor(betas, wanted, torch.float64).cpu().clone()
        check(self.betas.ndim == 1 and len(self.betas) and ((self.betas > 0) & (self.betas < 1)).all(), wanted)
        self.config = dict(config or {"schedule": "betas", "betas": self.betas.tolist()})
        self.T = len(self.betas)
        self.alphas = 1 - self.betas
        self.alphas_bar = self.alphas.cumprod(0)
        ends = torch.stack([1 - self.alphas_bar[0], self.alphas_bar[-1]]).sqrt().float()  # as they are handed out
        check(ends.min() > 0, "these betas are too small or too large: ᾱ becomes exactly 1 or 0; try 1e-4 … 0.02")
        self.snr = self.alphas_bar / (1 - self.alphas_bar)
        self.sigmas = self.snr**-0.5
        alphas_bar_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_bar[:-1]])
        self.posterior_variances = (1 - alphas_bar_prev) / (1 - self.alphas_bar) * self.betas
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @classmethod
    def linear(cls, T: int = 350, beta_1: float = 1e-4, beta_T: float = 2e-2) -> Self:
        """β_t from β_1 to β_T in equal steps. T = 350 is the report's schedule, T = 1000 the DDPM paper's.

        >>> NoiseSchedule.linear(1000).betas[[0, -1]].tolist()
        [0.0001, 0.02]
        """
        betas = torch.linspace(beta_1, beta_T, _count(T), dtype=torch.float64)
        return cls(betas, {"schedule": "linear", "T": T, "beta_1": beta_1, "beta_T": beta_T})

    @classmethod
    def scaled_linear(cls, T: int = 1000, beta_1: float = 8.5e-4, beta_T: float = 1.2e-2) -> Self:
        """√β_t from √β_1 to √β_T in equal steps: Stable Diffusion's (arXiv 2112.10752).

        >>> [round(beta, 6) for beta in NoiseSchedule.scaled_linear().betas[[0, -1]].tolist()]
        [0.00085, 0.012]
        """
        check(beta_1 >= 0 and beta_T >= 0, f"beta_1 and beta_T are {beta_1} and {beta_T}; betas lie between 0 and 1")
        betas = torch.linspace(beta_1**0.5, beta_T**0.5, _count(T), dtype=torch.float64) ** 2
        return cls(betas, {"schedule": "scaled_linear", "T": T, "beta_1": beta_1, "beta_T": beta_T})

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008) -> Self:
        """ᾱ_t = f(t) / f(0), f(t) = cos²((t/T + s)/(1 + s) · π/2), β_t ≤ 0.999 (arXiv 2102.09672, eq. 17).

        >>> round(NoiseSchedule.cosine(1000).alphas_bar[499].item(), 3)
        0.494
        """
        u = torch.arange(_count(T) + 1, dtype=torch.float64) / T
        f = torch.cos((u + s) / (1 + s) * torch.pi / 2) ** 2
        return cls((1 - f[1:] / f[:-1]).clamp(max=0.999), {"schedule": "cosine", "T": T, "s": s})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The schedule that `config` describes. Raises `UserError` for a config that is none of ours.

        >>> NoiseSchedule.from_config({"schedule": "linear", "T": 350, "beta_1": 1e-4, "beta_T": 0.02}).T
        350
        """
        from .declared import validated  # pydantic, which `import dlcv_diffusion` does without

        makers = {"linear": cls.linear, "scaled_linear": cls.scaled_linear, "cosine": cls.cosine}
        makers["betas"] = lambda betas: cls(betas)
        given = validated(dict[str, Any], config, "not a noise schedule")
        kind = str(given.pop("schedule", "nothing"))
        check(kind in makers, f"not a noise schedule: '{kind:.60}'; the schedules are {', '.join(makers)}")
        return validated(makers[kind], given, "not a noise schedule")  # each maker's signature declares what it takes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseSchedule) and torch.equal(self.betas, other.betas)

    def __repr__(self) -> str:
        if self.config["schedule"] == "betas":
            return f"NoiseSchedule(<{self.T} betas>)"
        arguments = [f"{name}={value}" for name, value in self.config.items() if name != "schedule"]
        return f"NoiseSchedule.{self.config['schedule']}({', '.join(arguments)})"

    # --- between x0, eps and x_t ----------------------------------------------------------------------------

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor | int) -> Tensor:
        """x_t = √ᾱ_t x0 + √(1 − ᾱ_t) ε (DDPM, eq. 4), like x0.

        x0, eps: (B, …), x0 in [−1, 1], eps ~ N(0, I); t: (B,) int64 on their device, or one int for all, 0-based.
        Raises `UserError` for shapes that differ, and for a t outside [0, T).

        >>> schedule = NoiseSchedule.linear(350)
        >>> x0, eps = torch.zeros(2, 3, 28, 28), torch.ones(2, 3, 28, 28)
        >>> schedule.add_noise(x0, eps, torch.tensor([0, 349]))[:, 0, 0, 0]
        tensor([0.0100, 0.9854])
        """
        _check_alike(x0, eps)
        signal, noise = self.signal_and_noise(t, x0)
        return (signal * x0 + noise * eps).to(x0.dtype)

    def predict_x0(self, x: Tensor, eps: Tensor, t: Tensor | int) -> Tensor:
        """x̂0 = (x_t − √(1 − ᾱ_t) ε) / √ᾱ_t (DDPM, eq. 15); arguments and errors as of `add_noise`.

        >>> schedule, x0, eps = NoiseSchedule.linear(350), torch.zeros(1, 3, 28, 28), torch.ones(1, 3, 28, 28)
        >>> schedule.predict_x0(schedule.add_noise(x0, eps, 140), eps, 140).abs().max() < 1e-6
        tensor(True)
        """
        _check_alike(x, eps)
        signal, noise = self.signal_and_noise(t, x)
        return ((x - noise * eps) / signal).to(x.dtype)

    def predict_eps(self, x: Tensor, x0: Tensor, t: Tensor | int) -> Tensor:
        """ε = (x_t − √ᾱ_t x0) / √(1 − ᾱ_t); arguments and errors as of `add_noise`.

        >>> eps = schedule.predict_eps(x, x0, 140)   # doctest: +SKIP
        """
        _check_alike(x, x0)
        signal, noise = self.signal_and_noise(t, x)
        return ((x - signal * x0) / noise).to(x.dtype)

    def signal_and_noise(self, t: Tensor | int, x: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 − ᾱ_t), each (B, 1, …) on the device of x, float32 (or x's float64).

        Raises `UserError` for a t outside [0, T) (on a GPU torch raises), or not B of them.
        """
        key = (x.device, torch.promote_types(x.dtype, torch.float32))
        if key not in self._tables:
            table = torch.stack([self.alphas_bar.sqrt(), (1 - self.alphas_bar).sqrt()])
            self._tables[key] = table.to(key[1]).to(key[0])  # the dtype first: MPS has no float64
        if not isinstance(t, Tensor):
            t = torch.tensor([t], device=x.device)
        count = len(x) if x.ndim else 0
        fits = is_whole(t) and count and t.numel() in (1, count)
        check(fits, f"{count} images need one whole timestep, or {count} of them")
        t = t.reshape(-1).long()
        if t.device.type == "cpu" and len(wrong := t[(t < 0) | (t >= self.T)]):
            raise UserError(f"timestep {int(wrong[0])} is not on this schedule; timesteps run from 0 to {self.T - 1}")
        # index_select refuses a negative index, where indexing would wrap around to T − 1
        signal, noise = self._tables[key].index_select(1, t).reshape(2, -1, *[1] * (x.ndim - 1))
        return signal, noise

    # --- which timesteps a sampler visits -------------------------------------------------------------------

    def timesteps(self, n: int, spacing: str = "uniform", offset: int = 0) -> list[int]:
        """n timesteps of the T, strictly descending, 0-based.

        - "uniform": ⌊i T/n⌋ for i = n−1 … 0 (DDIM, appendix D.2, "linear"): begins T/n below T, ends at 0.
        - "trailing": T − i T/n − 1, rounded (arXiv 2305.08891): begins at T − 1, where x_T belongs.
        - offset: added to each; with 1 "uniform" ends at t = 1, as Stable Diffusion has it.

        Raises `UserError` for an n or an offset that leaves the schedule, or an unknown spacing.

        >>> NoiseSchedule.linear(1000).timesteps(5), NoiseSchedule.linear(1000).timesteps(5, "trailing")
        ([800, 600, 400, 200, 0], [999, 799, 599, 399, 199])
        """
        check(1 <= n <= self.T, f"cannot take {n} steps on a schedule of {self.T} timesteps; choose 1 to {self.T}")
        check(spacing in SPACINGS, f"unknown spacing '{spacing}'; choose one of {', '.join(SPACINGS)}")
        i = np.arange(n)
        t = i * self.T // n if spacing == "uniform" else (self.T - i[::-1] * (self.T / n)).round().astype(int) - 1
        least, most = int(-t[0]), int(self.T - 1 - t[-1])
        fits = f"from {least} to {most}" if least < most else f"{least}"
        advice = f"choose an offset (--offset) {fits}, or fewer steps (--steps)"
        check(least <= offset <= most, f"offset {offset} leaves the schedule with {n} {spacing} steps; {advice}")
        return [int(step) + offset for step in t[::-1]]

    def check_timesteps(self, timesteps: Sequence[int]) -> list[int]:
        """The same timesteps as ints. Raises `UserError` unless they descend strictly within [0, T)."""
        timesteps = list(timesteps)
        check(all(isinstance(t, Integral) for t in timesteps), f"timesteps are whole numbers, not {timesteps}")
        timesteps = [int(t) for t in timesteps]
        descend = timesteps and all(a > b for a, b in zip(timesteps, timesteps[1:], strict=False))
        check(descend, f"timesteps must descend, each only once; got {timesteps}")
        inside = timesteps[0] < self.T and timesteps[-1] >= 0
        check(inside, f"timesteps {timesteps[0]} … {timesteps[-1]} leave the schedule, 0 to {self.T - 1}")
        return timesteps

    def interval(self, sigma_lo: float, sigma_hi: float) -> tuple[int, int]:
        """(lo, hi), the timesteps whose noise level `sigmas` lies in [sigma_lo, sigma_hi]: `interval` of `guided`.

        Raises `UserError` when no timestep lies there.

        >>> NoiseSchedule.linear(350).interval(0.2, 3.0)
        (35, 281)
        """
        inside = ((self.sigmas >= sigma_lo) & (self.sigmas <= sigma_hi)).nonzero().flatten().tolist()
        levels = f"{self.sigmas[0]:.3g} to {self.sigmas[-1]:.3g}"
        check(inside, f"no timestep has a noise level in [{sigma_lo:g}, {sigma_hi:g}]; the schedule has {levels}")
        return inside[0], inside[-1]


def _count(T: int) -> int:
    fits = isinstance(T, Integral) and not isinstance(T, bool) and 1 <= T <= MOST_TIMESTEPS
    check(fits, f"a noise schedule has 1 to {MOST_TIMESTEPS:,} timesteps, not {T}")
    return int(T)


def _check_alike(x: Tensor, other: Tensor) -> None:
    alike = x.shape == other.shape
    check(alike, f"images and noise must have one shape, not {tuple(x.shape)} and {tuple(other.shape)}")
    check(x.is_floating_point(), f"images are noised as floating-point numbers in [−1, 1], not as {x.dtype}")
