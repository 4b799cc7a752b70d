"""Problem 1 in three calls: sample digits, write the course's folder, draw the report's figures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from .. import device as devices
from ..denoiser import EpsDenoiser
from ..errors import UserError
from ..files import staging_folder
from ..guidance import Guided, guided
from ..images.pixels import to_uint8
from ..noise import seeded_noise
from ..samplers import Step, ddim, ddpm, dpm_solver
from ..schedule import NoiseSchedule
from .course import HALVES
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
