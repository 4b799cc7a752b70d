"""Problem 1's figures: a 10×10 grid for each half, six frames of the reverse process, and all 20 classes at once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..denoiser import Denoiser
from ..figures import digit_grid, image_grid, reverse_strip, save_figure
from ..files import staging_folder
from ..samplers import Step
from .sampling import REPORT, SamplingConfig, sample_digits

FRAMES = (349, 140, 84, 42, 14, 0)  # the timesteps of the report's six frames


def grid_figure(
    denoiser: Denoiser, half: int, config: SamplingConfig | None = None, *, seeds: Sequence[int] = range(10)
):
    """The report's 10×10 grid of one half: rows are digits, columns are noises (the same seed down a column).

    >>> grid_figure(load_denoiser("digits"), half=0).savefig("mnistm.png")   # doctest: +SKIP
    """
    config, seeds = config or SamplingConfig(), list(seeds)
    labels = [10 * half + digit for digit in range(10) for _ in seeds]
    images = sample_digits(denoiser, labels, seeds * 10, config)
    return digit_grid(images, noises=seeds, title=half_name(denoiser, half), facts=config.facts(denoiser, seeds))


def strip_figure(
    denoiser: Denoiser,
    labels: Sequence[int] = (0, 10),
    config: SamplingConfig = REPORT,
    *,
    seeds: Sequence[int] = (0, 10),
    at: Sequence[int] = FRAMES,
):
    """The report's six frames of the reverse process, x_t and below it the predicted x0, one pair of rows a label.

    The frame at t shows the image that the network is given at t, so that t = 349 is pure noise; the last frame, t = 0,
    shows the finished image, as in the report. Timesteps that the sampler skips are replaced by the nearest it visits.
    The seeds are those of the first 0 of each half in the folder of `write_hw2_digits`.

    >>> strip_figure(load_denoiser("digits")).savefig("strip.png")   # doctest: +SKIP
    """
    steps = [Step(step.t, *(x.cpu() for x in step[1:])) for step in config.run(denoiser, labels, seeds)]
    given = [config.start(denoiser, labels, seeds).cpu(), *(step.x for step in steps)]  # one ahead of steps
    final = len(steps) - 1
    chosen = [min(range(len(steps)), key=lambda i: abs(steps[i].t - t)) for t in at]
    return reverse_strip(
        [steps[i] if i == final else steps[i]._replace(x=given[i]) for i in chosen],
        images=range(len(labels)),
        names=[f"{half_name(denoiser, label // 10)}, {label % 10}" for label in labels],
        title="The reverse process",
        caption="Above: the image given to the network at t (at t = 0: the result). Below: the x0 it predicts from it",
        facts=config.facts(denoiser, seeds),
    )


def overview_figure(
    denoiser: Denoiser, config: SamplingConfig | None = None, *, seeds: Sequence[int] = range(20), rows: int = 6
):
    """All 20 classes at once, from the noise (top) to the finished digits (bottom): the README's picture.

    Column i shows label i with the i-th seed; the rows between are predicted x0 at equal distances in steps, and the
    last row is the result.

    >>> overview_figure(load_denoiser("digits")).savefig("overview.png")   # doctest: +SKIP
    """
    config, labels, seeds = config or SamplingConfig(), list(range(20)), list(seeds)
    steps = list(config.run(denoiser, labels, seeds))
    chosen = np.linspace(0, len(steps) - 1, rows - 1).round().astype(int)
    between = [steps[i] for i in chosen[:-1]]
    frames = [config.start(denoiser, labels, seeds).cpu(), *(step.x0.cpu() for step in between), steps[-1].x.cpu()]
    names = ["noise", *(f"$x_0$ at t = {step.t}" for step in between), "result"]
    title = f"{half_name(denoiser, 0)} 0–9, then {half_name(denoiser, 1)} 0–9"
    facts = config.facts(denoiser, seeds)
    return image_grid(torch.stack(frames), names, [str(label % 10) for label in labels], title, facts=facts)


def half_name(denoiser: Denoiser, half: int) -> str:
    """What a half is called: "MNIST-M"; "street digits" or "SVHN", where the weights tell their data, or "second half".

    >>> from dlcv_diffusion import load_denoiser
    >>> half_name(load_denoiser("digits"), 1)
    'street digits'
    """
    return ("MNIST-M", denoiser.facts.get("second_half") or "second half")[half]


def write_digit_figures(
    out: str | Path, denoiser: Denoiser, config: SamplingConfig | None = None, *, seed: int = 0
) -> list[Path]:
    """All the report's figures for Problem 1 as PNG files in `out`; returns their paths.

    The grids are sampled as `config` says, the strip in all steps of DDPM. The files appear when all of them are drawn.
    Raises `UserError` where `out` cannot be written.

    >>> write_digit_figures("figures", load_denoiser("digits"))   # doctest: +SKIP
    """
    seeds, every_step = range(seed, seed + 10), replace(config or REPORT, sampler="ddpm", steps=None)
    second = {"SVHN": "svhn", "street digits": "street"}.get(half_name(denoiser, 1), "second_half")
    with staging_folder(out) as staging:
        figures = {
            "digits_mnistm_grid.png": grid_figure(denoiser, 0, config, seeds=seeds),
            f"digits_{second}_grid.png": grid_figure(denoiser, 1, config, seeds=seeds),
            "digits_overview.png": overview_figure(denoiser, config, seeds=range(seed, seed + 20)),
            "digits_reverse_strip.png": strip_figure(denoiser, config=every_step, seeds=(seed, seed + 10)),
        }
        written = [save_figure(figure, staging / name) for name, figure in figures.items()]
    return [Path(out) / path.name for path in written]
