"""Training faces: a folder or zip of pictures becomes a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..denoiser import Denoiser
from ..errors import check
from ..images.arrays import ImageArrays
from ..noise import seeded_noise
from ..training.distillation import guided_teacher
from ..training.loop import TrainState, check_start
from ..training.recipe import write_sheet
from .data import load_faces
from .recipes import ATTENTION_GUIDANCE, AUTOGUIDANCE, faces_recipe
from .sampling import FaceSampling, sample_faces


def train_faces(
    data: str | Path | ImageArrays,
    preset: str = "small",
    out: str | Path = "runs/faces",
    *,
    size: int = 64,
    channels: int = 1,
    teacher: str | Path | None = None,
    weaker: str | Path | None = None,
    **options: Any,
) -> Iterator[TrainState]:
    """Train a preset's network on a folder or zip of faces; yields a `TrainState` every step, see `training.run`.

    - data: what `data.load_faces` takes, of which every tenth picture is held out; or images in memory, of any size and
      any number of channels.
    - preset: "small", "guided" (what ships: "small" with perturbed-attention guidance, learned by a copy of it), or
      "tiny"; see `faces.recipes`.
    - size, channels: of pictures from files: pixels a side, and 1 (grey) or 3 (RGB).
    - teacher: weights of a network of ours, for the preset "guided" and no other. weaker: weights of the same network
      after less training, which guide it (`AutoGuidance`) in the place of perturbed attention.
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `TrainConfig` to set
      otherwise than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, a teacher that is missing, draws another size or has no self-attention,
    pictures that cannot be read, or as `training.run` does.

    >>> for state in train_faces("faces64.zip", "tiny", "runs/tiny_faces"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe, images, name = faces_recipe(preset), data, "images in memory"
    check_start(out, **options)
    attention = (ATTENTION_GUIDANCE, None) if weaker is None else None  # a teacher of the third stage has learned it
    guided = guided_teacher(preset, teacher, weaker, attention=attention, auto=(AUTOGUIDANCE, None), classes=0)
    if guided:
        wanted = options.setdefault("prediction", guided.prediction)
        check(wanted == guided.prediction, f"the teacher predicts {guided.prediction}, and so must its student")
    if not isinstance(data, ImageArrays):
        images, name = load_faces(data, "train", size=size, channels=channels), Path(data).resolve().name
    facts = {
        "name": f"faces-{preset}",
        "data": name,  # not the whole path: facts travel with the weights
        "shape": list(images.images.shape[1:]),
        "prediction": options.get("prediction", recipe.train.prediction),
    }
    if guided and guided.shape:
        drawn, given = ("×".join(map(str, shape)) for shape in (guided.shape, facts["shape"]))
        check(
            drawn == given, f"the teacher '{teacher}' draws {drawn}, and the pictures are {given}; they must be alike"
        )
    return recipe.run(images, out, facts, write_preview, options, guided)


def write_preview(denoiser: Denoiser, path: str | Path, *, count: int = 48) -> None:
    """A sheet of `count` faces in 20 DDIM steps, always from the same noises: how far the training has come.

    >>> write_preview(load_denoiser("faces"), "sheet.png")   # doctest: +SKIP
    """
    x_T = seeded_noise((count, *denoiser.shape), range(count))
    write_sheet(sample_faces(denoiser, x_T, FaceSampling(steps=20)), path, 12)
