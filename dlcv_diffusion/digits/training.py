"""Training digits: a preset, a data source and a folder become a run."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import atomic_write
from ..models.loading import own_denoiser
from ..training.loop import TrainState, train
from .data import load_digits, second_half
from .recipes import digits_recipe
from .sampling import SamplingConfig, sample_digits
from .signal_leak import SignalLeak


def train_digits(
    preset: str = "small",
    data: str | Path = "sample",
    out: str | Path = "runs/digits",
    *,
    resume: bool = False,
    device: torch.device | str | None = None,
    checkpoint_every: int = 500,
    preview_every: int = 1000,
    data_options: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Iterator[TrainState]:
    """Train a preset's network on a source of digits; yields a `TrainState` every step, see `training.train`.

    - preset: "report", "small" or "tiny", see `training.recipes`.
    - data: what `data.load_digits` takes: "sample", the course's hw2_data, an .npz, a folder.
    - data_options: further arguments of `data.load_digits`, such as {"svhn": True, "root": "datasets"}
      or {"labels": [10, 11, 17]}.
    - changes: fields of `TrainConfig` to set otherwise than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, data that cannot be read, or as `train` does.

    >>> for state in train_digits("tiny", out="runs/tiny"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe, options = digits_recipe(preset), dict(data_options or {})
    config = replace(recipe.train, **changes)
    images = load_digits(data, **options)
    facts = {
        "name": f"digits-{preset}",
        "data": Path(data).resolve().name,  # not the whole path: facts travel with the weights
        "images": len(images),
        "second_half": second_half(data, svhn=bool(options.get("svhn"))),
    }
    if options.get("labels") is not None:
        facts["labels"] = list(options["labels"])
    halves = (images.labels // 10).bincount(minlength=2)
    if (halves >= 2).all():
        facts["signal_leak"] = vars(SignalLeak.measure(images.images, images.labels))
    elif halves.max() >= 2:  # one half alone, such as street digits: the same colours for whatever label
        facts["signal_leak"] = vars(SignalLeak.measure(images.images, images.labels, classes=20))
    model = recipe.build(config.seed)
    model.metadata = {**facts, "train": asdict(config)}  # the average is a copy: previews are drawn as samples will be
    return train(
        model,
        images,
        recipe.schedule(),
        config,
        out,
        resume=resume,
        checkpoint_every=checkpoint_every,
        preview=write_preview,
        preview_every=preview_every,
        device=device,
        metadata=facts,
    )


def write_preview(model: nn.Module, path: str | Path, *, columns: int = 6) -> None:
    """A sheet of all 20 classes, `columns` noises each, at 12 steps and w = 2: how far the training has come.

    Rows of the sheet are digits; the left half of each row is MNIST-M, the right half labels 10-19.

    >>> write_preview(network, "sheet.png")   # doctest: +SKIP
    """
    from torchvision.utils import save_image

    labels = [10 * half + digit for digit in range(10) for half in range(2) for _ in range(columns)]
    seeds = list(range(columns)) * 20
    denoiser = own_denoiser(model, getattr(model, "metadata", {}))
    images = sample_digits(denoiser, labels, seeds, SamplingConfig(steps=12, fast=True))
    with atomic_write(path) as temporary:
        save_image(images / 255, temporary, nrow=2 * columns, padding=1)
