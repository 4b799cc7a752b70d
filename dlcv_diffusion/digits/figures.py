"""Problem 1's figures: a 10×10 grid for each half, six frames of the reverse process, and all 20 classes at once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import device as devices
from ..files import staging_folder
from ..samplers import Step
from .sampling import REPORT, SamplingConfig, sample_digits

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
    from ..figures import digit_grid

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
    from ..figures import reverse_strip

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

    from ..figures import image_grid

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
    from ..figures import save_figure

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
