"""Problem 1 in three calls: sample digits, write the course's folder, draw the report's figures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from . import device as devices
from .data.hw2 import HALVES
from .errors import UserError
from .files import staging_folder
from .guidance import Guided, guided
from .noise import seeded_noise
from .pixels import to_uint8
from .prediction import EpsDenoiser
from .samplers import Step, ddim, ddpm, dpm_solver
from .schedule import NoiseSchedule
from .signal_leak import SignalLeak

SAMPLERS = ("dpm_solver", "ddim", "ddpm")
MOST_PER_CLASS = 999  # images are numbered in three figures


@dataclass(frozen=True)
class SamplingConfig:
    """How digits are sampled.

    - sampler: "dpm_solver" (deterministic, few steps), "ddim" (η = 0) or "ddpm" (the report's: σ = √β).
    - steps: how many; None stands for 20, and for all T where the sampler is "ddpm".
    - w: guidance weight. interval: noise levels (σ_lo, σ_hi) within which guidance acts, or None for all.
    - signal_leak: start from noise with the trace of a mean colour, as training saw it (see `signal_leak`), where the
      weights know the colours; or from N(0, I) as the report does.

    Raises `UserError` for an unknown sampler, steps below 1, or a w that is not a finite number.

    >>> SamplingConfig(sampler="ddpm", steps=None, w=2.0, signal_leak=False)   # the report's
    SamplingConfig(sampler='ddpm', steps=None, w=2.0, interval=None, signal_leak=False)
    """

    sampler: str = "dpm_solver"
    steps: int | None = 20
    w: float = 2.0
    interval: tuple[float, float] | None = None
    signal_leak: bool = True

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UserError(f"unknown sampler '{self.sampler}'; choose one of {', '.join(SAMPLERS)}")
        if self.steps is None and self.sampler != "ddpm":
            object.__setattr__(self, "steps", 20)
        if self.steps is not None and self.steps < 1:
            raise UserError(f"cannot sample in {self.steps} steps; choose at least 1")
        if not math.isfinite(self.w):
            raise UserError(f"the guidance weight is {self.w}; it must be a number, such as 2, or 0 for none")

    def denoiser(
        self, model: nn.Module, labels: Sequence[int] | Tensor, schedule: NoiseSchedule
    ) -> Guided | EpsDenoiser:
        """The guided denoiser of these settings for a batch of labels, whatever the model was trained to give.

        Guiding v or x0 is the same as guiding ε: for a given x_t each is a linear function of the others.
        """
        interval = None if self.interval is None else schedule.interval(*self.interval)
        denoise = guided(model, labels, self.w, interval=interval)
        prediction = getattr(model, "metadata", {}).get("train", {}).get("prediction", "eps")
        return denoise if prediction == "eps" else EpsDenoiser(denoise, schedule, prediction)

    def run(
        self,
        model: nn.Module,
        labels: Sequence[int] | Tensor,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> Iterator[Step]:
        """The sampler over one batch, step by step; `seeds` gives both x_T and the noise of stochastic samplers."""
        schedule = schedule_of(model)
        x_T = self.start(model, labels, seeds, device)
        denoise = self.denoiser(model, labels, schedule)
        if self.sampler == "ddpm":
            return ddpm(denoise, x_T, schedule, steps=self.steps, seeds=seeds)
        sampler = dpm_solver if self.sampler == "dpm_solver" else ddim
        return sampler(denoise, x_T, schedule, steps=self.steps)

    def start(
        self,
        model: nn.Module,
        labels: Sequence[int] | Tensor,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """x_T, (B, C, H, W): seeded noise, with the trace of a mean colour where `signal_leak` asks for it."""
        eps = seeded_noise((len(seeds), *image_size(model)), seeds, device)
        colours = getattr(model, "metadata", {}).get("signal_leak")
        if not self.signal_leak or colours is None:
            return eps
        return SignalLeak(**colours).start(eps, labels, seeds, schedule_of(model))

    def facts(self) -> dict[str, object]:
        """What belongs below a figure."""
        steps = self.steps if self.steps is not None else "all"
        interval = {} if self.interval is None else {"guided where σ in": list(self.interval)}
        return {"sampler": self.sampler, "steps": steps, "w": self.w, **interval}


REPORT = SamplingConfig(sampler="ddpm", steps=None, w=2.0, signal_leak=False)


def schedule_of(model: nn.Module) -> NoiseSchedule:
    """The schedule a loaded model was trained with: the saved one, else the linear one of its own T.

    >>> from dlcv_diffusion.models import load_model
    >>> schedule_of(load_model("digits"))
    NoiseSchedule.linear(T=350, beta_1=0.0001, beta_T=0.02)
    """
    saved = getattr(model, "metadata", {}).get("schedule")
    return NoiseSchedule.from_config(saved) if saved else NoiseSchedule.linear(model.timesteps)


def image_size(model: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) of the images a model draws: what it was saved with or made for, where it says so, else 28×28.

    >>> from dlcv_diffusion.models import ContextUnet
    >>> image_size(ContextUnet(in_channels=1, height=16, width=8, n_feat=8))
    (1, 16, 8)
    """
    saved, config = getattr(model, "metadata", {}).get("image_size"), getattr(model, "config", {})
    return tuple(saved) if saved else (model.in_channels, config.get("height", 28), config.get("width", 28))


def sample_digits(
    model: nn.Module,
    labels: Sequence[int],
    seeds: Sequence[int],
    config: SamplingConfig | None = None,
    *,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Tensor:
    """Digits as uint8 images (N, 3, 28, 28) on the CPU: image i depends on labels[i] and seeds[i] alone.

    - labels: N numbers 0-19 (digit + 10 · half); seeds: N integers.
    - batch_size: 100 on a CPU (which keeps the feature maps in its cache), 1,000 on a GPU, by default. Another one
      changes a pixel here and there by a level of 255, where a kernel adds up in another order.
    - device: the best there is by default; the model is moved there and stays.
    - progress: a bar that counts images.

    Raises `UserError` where labels and seeds do not go together, or a label is out of range.

    >>> images = sample_digits(load_model("digits"), labels=range(20), seeds=[0] * 20)   # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    labels, seeds, config = list(labels), list(seeds), config or SamplingConfig()
    if len(labels) != len(seeds):
        raise UserError(f"{len(labels)} labels for {len(seeds)} seeds; give one of each for every image")
    guided(model, labels)  # looks at all labels before the first batch is sampled
    model = devices.prepare(model, device, channels_last=True)
    device = next(model.parameters()).device
    batch_size = batch_size or (100 if device.type == "cpu" else 1000)
    images = torch.empty((len(labels), *image_size(model)), dtype=torch.uint8)
    total = config.steps or schedule_of(model).T
    with tqdm(total=len(labels), unit="image", disable=None if progress else True) as bar, devices.autocast(device):
        for first in range(0, len(labels), batch_size):
            part = slice(first, first + batch_size)
            count = len(labels[part])
            for number, step in enumerate(config.run(model, labels[part], seeds[part], device), start=1):
                x = step.x
                bar.update(first + count * number // total - bar.n)
            images[part] = to_uint8(x).cpu()
    return images


def hw2_labels(count: int = 50) -> list[int]:
    """The labels of the course's folder: `count` of each of the 20 classes, class by class.

    >>> hw2_labels(2)[:5]
    [0, 0, 1, 1, 2]
    """
    return [label for label in range(20) for _ in range(count)]


def write_hw2_digits(
    out: str | Path,
    model: nn.Module,
    config: SamplingConfig | None = None,
    *,
    count: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Path:
    """Sample and write what the course asks for: `mnistm/{digit}_{001…050}.png` and `svhn/…`, 20 · count images.

    Image k of the class c takes the seed `seed` + 20·k + c: no two images share their noise, and image k is the same
    whatever `count` is. The files appear under their names only when every one of them is written; files of the same
    names are replaced.

    Raises `UserError` for a count outside 1 … 999, where `out` is a file, or cannot be written (found out before the
    sampling), where the disk is full, and for a model of other images or labels.

    >>> write_hw2_digits("out", load_model("digits"))   # doctest: +SKIP
    """
    if not 1 <= count <= MOST_PER_CLASS:
        raise UserError(f"cannot write {count} images of each class; their names have room for 1 to {MOST_PER_CLASS}")
    if image_size(model) != (3, 28, 28):
        size = "×".join(map(str, image_size(model)))
        raise UserError(f"this model draws images of {size}, and the course asks for 3×28×28; choose other weights")
    labels = hw2_labels(count)
    seeds = [seed + 20 * (index % count) + label for index, label in enumerate(labels)]
    with staging_folder(out, HALVES) as staging:
        images = sample_digits(model, labels, seeds, config, batch_size=batch_size, device=device, progress=progress)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{label % 10}_{index % count + 1:03d}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / HALVES[label // 10] / name)
    return Path(out)


# --- the report's figures ---------------------------------------------------------------------------------------------

FRAMES = (349, 140, 84, 42, 14, 0)  # the timesteps of the report's six frames


def grid_figure(
    model: nn.Module,
    half: int,
    config: SamplingConfig | None = None,
    *,
    seeds: Sequence[int] = range(10),
    device: torch.device | str | None = None,
):
    """The report's 10×10 grid of one half: rows are digits, columns are noises (the same seed down a column).

    >>> grid_figure(load_model("digits"), half=0).savefig("mnistm.png")   # doctest: +SKIP
    """
    from .figures import digit_grid

    config, seeds = config or SamplingConfig(), list(seeds)
    labels = [10 * half + digit for digit in range(10) for _ in seeds]
    images = sample_digits(model, labels, seeds * 10, config, device=device)
    return digit_grid(images, noises=seeds, title=half_name(model, half), facts=_facts(model, config, seeds))


def strip_figure(
    model: nn.Module,
    labels: Sequence[int] = (0, 10),
    config: SamplingConfig = REPORT,
    *,
    seeds: Sequence[int] = (0, 0),
    at: Sequence[int] = FRAMES,
    device: torch.device | str | None = None,
):
    """The report's six frames of the reverse process, x_t and below it the predicted x0, one pair of rows a label.

    The frame at t shows the image that the network is given at t, so that t = 349 is pure noise; the last frame, t = 0,
    shows the finished image, as in the report. Timesteps that the sampler skips are replaced by the nearest it visits.

    >>> strip_figure(load_model("digits")).savefig("strip.png")   # doctest: +SKIP
    """
    from .figures import reverse_strip

    model = devices.prepare(model, device, channels_last=True)
    steps = [
        Step(step.t, step.x.cpu(), step.x0.cpu(), step.eps.cpu())
        for step in config.run(model, labels, seeds, next(model.parameters()).device)
    ]
    given = [config.start(model, labels, seeds), *(step.x for step in steps)]  # one ahead of steps
    final = len(steps) - 1
    chosen = [min(range(len(steps)), key=lambda i: abs(steps[i].t - t)) for t in at]
    return reverse_strip(
        [steps[i] if i == final else steps[i]._replace(x=given[i]) for i in chosen],
        images=range(len(labels)),
        names=[f"{half_name(model, label // 10)}, {label % 10}" for label in labels],
        title="The reverse process",
        caption="Above: the image given to the network at t (at t = 0: the result). Below: the x0 it predicts from it",
        facts=_facts(model, config, seeds),
    )


def overview_figure(
    model: nn.Module,
    config: SamplingConfig | None = None,
    *,
    seeds: Sequence[int] = range(20),
    rows: int = 6,
    device: torch.device | str | None = None,
):
    """All 20 classes at once, from the noise (top) to the finished digits (bottom): the README's picture.

    Column i shows label i with the i-th seed; the rows between are predicted x0 at equal distances in steps, and the
    last row is the result.

    >>> overview_figure(load_model("digits")).savefig("overview.png")   # doctest: +SKIP
    """
    import numpy as np

    from .figures import image_grid

    config, labels, seeds = config or SamplingConfig(), list(range(20)), list(seeds)
    model = devices.prepare(model, device, channels_last=True)
    steps = list(config.run(model, labels, seeds, next(model.parameters()).device))
    chosen = np.linspace(0, len(steps) - 1, rows - 1).round().astype(int)
    between = [steps[i] for i in chosen[:-1]]
    frames = [config.start(model, labels, seeds), *(step.x0.cpu() for step in between), steps[-1].x.cpu()]
    names = ["noise", *(f"t = {step.t}" for step in between), "result"]
    title = f"{half_name(model, 0)} 0–9, then {half_name(model, 1)} 0–9"
    facts = _facts(model, config, seeds)
    return image_grid(torch.stack(frames), names, [str(label % 10) for label in labels], title, facts=facts)


def half_name(model: nn.Module, half: int) -> str:
    """What a half is called: "MNIST-M", and "street digits" or "SVHN" after the data the model was trained on.

    >>> from dlcv_diffusion.models import load_model
    >>> half_name(load_model("digits"), 1)
    'street digits'
    """
    return ("MNIST-M", getattr(model, "metadata", {}).get("second_half", "street digits"))[half]


def write_digit_figures(
    out: str | Path,
    model: nn.Module,
    config: SamplingConfig | None = None,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> list[Path]:
    """All the report's figures for Problem 1 as PNG files in `out`; returns their paths.

    The grids are sampled as `config` says, the strip in all steps of DDPM. The files appear when all of them are drawn.
    Raises `UserError` where `out` cannot be written.

    >>> write_digit_figures("figures", load_model("digits"))   # doctest: +SKIP
    """
    from .figures import save_figure

    seeds, every_step = range(seed, seed + 10), replace(config or REPORT, sampler="ddpm", steps=None)
    with staging_folder(out) as staging:
        figures = {
            "digits_mnistm_grid.png": grid_figure(model, 0, config, seeds=seeds, device=device),
            "digits_street_grid.png": grid_figure(model, 1, config, seeds=seeds, device=device),
            "digits_overview.png": overview_figure(model, config, seeds=range(seed, seed + 20), device=device),
            "digits_reverse_strip.png": strip_figure(model, config=every_step, seeds=(seed, seed), device=device),
        }
        for name, figure in figures.items():
            save_figure(figure, staging / name)
    return [Path(out) / name for name in figures]


def _facts(model: nn.Module, config: SamplingConfig, seeds: Sequence[int]) -> dict[str, object]:
    metadata = getattr(model, "metadata", {})
    leak = {"signal leak": True} if config.signal_leak and "signal_leak" in metadata else {}
    return {"seeds": list(seeds), **config.facts(), **leak, "weights": metadata.get("name", type(model).__name__)}


__all__ = [
    "REPORT",
    "SamplingConfig",
    "grid_figure",
    "half_name",
    "hw2_labels",
    "image_size",
    "overview_figure",
    "sample_digits",
    "schedule_of",
    "strip_figure",
    "to_uint8",
    "write_digit_figures",
    "write_hw2_digits",
]
