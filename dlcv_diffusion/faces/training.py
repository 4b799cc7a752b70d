"""Training faces: a folder or zip of pictures becomes a run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..denoiser import Denoiser
from ..files import atomic_write
from ..images.arrays import ImageArrays
from ..noise import seeded_noise
from ..samplers import ddim, last
from ..schedule import NoiseSchedule
from ..training.loop import TrainState, train
from .data import load_faces
from .recipes import faces_recipe


def train_faces(
    data: str | Path | ImageArrays,
    preset: str = "small",
    out: str | Path = "runs/faces",
    *,
    size: int = 64,
    channels: int = 1,
    resume: bool = False,
    device: torch.device | str | None = None,
    checkpoint_every: int = 500,
    preview_every: int = 1000,
    **changes: Any,
) -> Iterator[TrainState]:
    """Train a preset's network on a folder or zip of faces; yields a `TrainState` every step, see `training.train`.

    - data: what `data.load_faces` takes, of which every tenth picture is held out; or images in memory, of any size and
      any number of channels.
    - preset: "small" (what ships) or "tiny", see `training.recipes`.
    - size, channels: of pictures from files: pixels a side, and 1 (grey) or 3 (RGB).
    - changes: fields of `TrainConfig` to set otherwise than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, pictures that cannot be read, or as `train` does.

    >>> for state in train_faces("faces64.zip", "tiny", "runs/tiny_faces"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe = faces_recipe(preset)
    config = replace(recipe.train, **changes)
    if isinstance(data, ImageArrays):
        images, name = data, "images in memory"
    else:
        images, name = load_faces(data, "train", size=size, channels=channels), Path(data).resolve().name
    image_size = tuple(images.images.shape[1:])
    facts = {
        "name": f"faces-{preset}",
        "data": name,  # not the whole path: facts travel with the weights
        "images": len(images),
        "image_size": list(image_size),
        "prediction": config.prediction,
    }
    return train(
        recipe.build(config.seed, in_channels=image_size[0]),
        images,
        recipe.schedule(),
        config,
        out,
        resume=resume,
        checkpoint_every=checkpoint_every,
        preview=lambda model, path: write_preview(model, path, recipe.schedule(), config.prediction, image_size),
        preview_every=preview_every,
        device=device,
        metadata=facts,
    )


def write_preview(
    model: nn.Module,
    path: str | Path,
    schedule: NoiseSchedule,
    prediction: str,
    image_size: tuple[int, int, int],
    *,
    count: int = 48,
) -> None:
    """A sheet of `count` faces in 20 DDIM steps, always from the same noises: how far the training has come.

    Of images that are neither grey nor RGB it shows the first channel, or the first three.
    """
    from torchvision.utils import save_image

    x_T = seeded_noise((count, *image_size), range(count), next(model.parameters()).device)
    x = last(ddim(Denoiser(model, schedule, prediction), x_T, steps=20)).x
    with atomic_write(path) as temporary:
        shown = x[:, : 3 if image_size[0] >= 3 else 1]
        save_image(shown.cpu().clamp(-1, 1) / 2 + 0.5, temporary, nrow=12, padding=1)
