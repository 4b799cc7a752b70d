"""Problem 1's sampling: digits by label, and the folder of them that is handed in."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from ..declared import declared, validated
from ..denoiser import Denoiser
from ..errors import check
from ..files import staging_folder
from ..guidance import guided
from ..images.pixels import to_uint8
from ..noise import checked_seeds, seeded_noise
from ..samplers import Step, ddim, ddpm, dpm_solver
from ..sampling import Sampling, Steps, in_batches
from .course import HALF_FOLDERS
from .signal_leak import SignalLeak

FEWEST = 15  # steps whose 1,000 images cannot be told from those of 20 by accuracy and distance, see notebook 03
MOST_PER_CLASS = 999  # images are numbered in three figures
Level = Annotated[float, Field(ge=0)]


@declared
class SamplingConfig(Sampling):
    """How digits are sampled.

    - sampler: "dpm_solver" (deterministic, few steps), "ddim" (η = 0) or "ddpm" (the report's: σ = √β).
    - steps: how many; by default 15, and all T for "ddpm".
    - w: guidance weight. interval: noise levels (σ_lo, σ_hi) within which guidance acts, or None for all.
    - signal_leak: start from noise with the trace of a mean colour, as training saw it (see `signal_leak`), where the
      weights know the colours; or from N(0, I) as the report does.
    - spacing, fast: see `Sampling`.

    Raises `UserError` for what does not fit.

    >>> REPORT = SamplingConfig(sampler="ddpm", w=2.0, signal_leak=False)
    """

    sampler: Literal["dpm_solver", "ddim", "ddpm"] = "dpm_solver"
    steps: Steps | None = None
    w: Annotated[float, Field(ge=-1000, le=1000)] = 2.0
    interval: tuple[Level, Level] | None = None
    signal_leak: bool = True

    def __post_init__(self) -> None:
        if self.steps is None and self.sampler != "ddpm":
            object.__setattr__(self, "steps", FEWEST)

    def run(self, denoiser: Denoiser, labels: Sequence[int] | Tensor, seeds: Sequence[int]) -> Iterator[Step]:
        """The sampler over one batch, step by step; `seeds` give both x_T and the noise of "ddpm"."""
        interval = None if self.interval is None else denoiser.schedule.interval(*self.interval)
        denoise = guided(denoiser, labels, self.w, interval=interval)
        x_T = self.start(denoiser, labels, seeds)
        if self.sampler == "ddpm":
            return ddpm(denoise, x_T, steps=self.steps, spacing=self.spacing, seeds=seeds)
        sampler = dpm_solver if self.sampler == "dpm_solver" else ddim
        return sampler(denoise, x_T, steps=self.steps, spacing=self.spacing)

    def start(self, denoiser: Denoiser, labels: Sequence[int] | Tensor, seeds: Sequence[int]) -> Tensor:
        """x_T, (B, C, H, W) on the denoiser's device: seeded noise, with the trace of a mean colour if it is asked for.

        >>> x_T = SamplingConfig().start(load_denoiser("digits"), [3, 13], seeds=[0, 1])   # doctest: +SKIP
        """
        eps = seeded_noise((len(seeds), *denoiser.shape), seeds, denoiser.device)
        colours = denoiser.facts.get("signal_leak")
        if not self.signal_leak or colours is None:
            return eps
        leak = validated(SignalLeak, colours, f"the mean colours of the weights '{denoiser.name}'")
        return leak.start(eps, labels, seeds, denoiser.schedule)

    def facts(self, denoiser: Denoiser, seeds: Sequence[int]) -> dict[str, object]:
        """What belongs below a figure of digits from these seeds."""
        facts = {"seeds": list(seeds), "sampler": self.sampler, "steps": self.steps or "all", "w": self.w}
        if self.interval is not None:
            facts["guided where σ in"] = list(self.interval)
        facts |= {} if self.spacing == "trailing" else {"spacing": self.spacing}
        facts |= {"fast": True} if self.fast else {}
        if self.signal_leak and denoiser.facts.get("signal_leak"):
            facts["signal leak"] = True
        return {**facts, "weights": denoiser.name}


REPORT = SamplingConfig(sampler="ddpm", w=2.0, signal_leak=False)


def sample_digits(
    denoiser: Denoiser,
    labels: Sequence[int],
    seeds: Sequence[int],
    config: SamplingConfig | None = None,
    *,
    batch_size: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Digits as uint8 images (N, 3, 28, 28) on the CPU: image i depends on labels[i] and seeds[i] alone.

    - denoiser: `load_denoiser("digits")`, on the device to work on.
    - labels: N numbers 0-19 (digit + 10 · half); seeds: N integers.
    - batch_size: by default 100 on a CPU (which keeps the feature maps in its cache) and 1,000 on a GPU. Another one
      changes a pixel here and there by a level of 255, where a kernel adds up in another order.
    - progress: a bar that counts images.

    Raises `UserError` where labels and seeds do not go together, or a label is out of range.

    >>> images = sample_digits(load_denoiser("digits"), labels=range(20), seeds=[0] * 20)   # doctest: +SKIP
    """
    config = config or SamplingConfig()
    labels = guided(denoiser, labels).condition  # looks at all labels before the first batch is sampled
    seeds = checked_seeds(seeds, len(labels), "labels")
    parts = in_batches(
        lambda part: config.run(denoiser, labels[part], seeds[part]),
        len(labels),
        config.steps or denoiser.schedule.T,
        denoiser.device,
        batch_size=(100 if denoiser.device.type == "cpu" else 1000) if batch_size is None else batch_size,
        fast=config.fast,
        progress=progress,
    )
    return torch.cat([to_uint8(x).cpu() for x in parts])


def hw2_labels(count: int = 50) -> list[int]:
    """The labels of the course's folder: `count` of each of the 20 classes, class by class.

    >>> hw2_labels(2)[:5]
    [0, 0, 1, 1, 2]
    """
    return [label for label in range(20) for _ in range(count)]


def write_hw2_digits(
    out: str | Path,
    denoiser: Denoiser,
    config: SamplingConfig | None = None,
    *,
    count: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Path:
    """Sample and write what the course asks for: `mnistm/{digit}_{001…050}.png` and `svhn/…`, 20 · count images.

    Image k of the class c takes the seed `seed` + 20·k + c: no two images share their noise, and image k is the same
    whatever `count` is. The files appear under their names only when every one of them is written; files of the same
    names are replaced.

    Raises `UserError` for a count outside 1 … 999, where `out` cannot be written (found out before the sampling), for a
    denoiser of other images or labels, and for images that are not finite.

    >>> write_hw2_digits("out", load_denoiser("digits"))   # doctest: +SKIP
    """
    room = 1 <= count <= MOST_PER_CLASS
    check(room, f"cannot write {count} images of each class; their names have room for 1 to {MOST_PER_CLASS}")
    shape = denoiser.shape
    check(shape == (3, 28, 28), f"these weights draw images {shape}, the course asks for (3, 28, 28); choose others")
    labels = hw2_labels(count)
    seeds = [seed + 20 * (index % count) + label for index, label in enumerate(labels)]
    with staging_folder(out, HALF_FOLDERS) as staging:
        images = sample_digits(denoiser, labels, seeds, config, batch_size=batch_size, progress=progress)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{label % 10}_{index % count + 1:03d}.png"
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / HALF_FOLDERS[label // 10] / name)
    return Path(out)
