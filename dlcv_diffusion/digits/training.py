"""Training digits: a preset, a data source and a folder become a run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..denoiser import Denoiser
from ..errors import check
from ..training.distillation import guided_teacher
from ..training.loop import TrainState, check_start
from ..training.recipe import write_sheet
from .data import load_digits, second_half
from .recipes import ATTENTION_GUIDANCE, AUTOGUIDANCE, BESIDE_AUTOGUIDANCE, digits_recipe
from .sampling import SamplingConfig, sample_digits
from .signal_leak import SignalLeak

CLASSES = 20


def train_digits(
    preset: str = "small",
    data: str | Path = "sample",
    out: str | Path = "runs/digits",
    *,
    data_options: Mapping[str, Any] | None = None,
    teacher: str | Path | None = None,
    weaker: str | Path | None = None,
    **options: Any,
) -> Iterator[TrainState]:
    """Train a preset's network on a source of digits; yields a `TrainState` every step, see `training.run`.

    - preset: "report", "small", "guided" ("small" guided by worse versions of itself, learned by a copy of it) or
      "tiny", see `digits.recipes`.
    - data: what `data.load_digits` takes: "sample", the course's hw2_data, an .npz, a folder.
    - data_options: further arguments of `data.load_digits`, such as {"svhn": True, "root": "datasets"}
      or {"labels": [10, 11, 17]}.
    - teacher: weights of a network of ours, for the preset "guided" and no other. weaker: weights of the same network
      after less training, which guide it too (`AutoGuidance`), beside perturbed attention.
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `TrainConfig` to set
      otherwise than the preset, such as steps=200.

    Raises `UserError` for an unknown preset, a teacher that is missing or does not know the 20 classes, weaker weights
    that do not fit it, data that cannot be read, or as `training.run` does.

    >>> for state in train_digits("tiny", out="runs/tiny"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe, data_options = digits_recipe(preset), dict(data_options or {})
    check_start(out, **options)
    attention = ATTENTION_GUIDANCE if weaker is None else BESIDE_AUTOGUIDANCE
    guided = guided_teacher(preset, teacher, weaker, attention=attention, auto=AUTOGUIDANCE, classes=CLASSES)
    if guided:
        wanted = options.setdefault("prediction", guided.prediction)
        check(wanted == guided.prediction, f"the teacher predicts {guided.prediction}, and so must its student")
    images = load_digits(data, **data_options)
    facts = {
        "name": f"digits-{preset}",
        "data": Path(data).resolve().name,  # not the whole path: facts travel with the weights
        "second_half": second_half(data, svhn=bool(data_options.get("svhn"))),
    }
    if data_options.get("labels") is not None:
        facts["labels"] = list(data_options["labels"])
    halves = (images.labels // 10).bincount(minlength=2)
    if halves.max() >= 2:  # of one half alone, such as street digits, all labels have the same colours
        classes = 10 if halves.min() >= 2 else 20
        facts["signal_leak"] = vars(SignalLeak.measure(images.images, images.labels, classes))
    return recipe.run(images, out, facts, write_preview, options, guided)


def write_preview(denoiser: Denoiser, path: str | Path, *, columns: int = 6) -> None:
    """A sheet of all 20 classes, `columns` noises each, at 12 steps and w = 2: how far the training has come.

    Rows of the sheet are digits; the left half of each row is MNIST-M, the right half labels 10-19.

    >>> write_preview(load_denoiser("digits"), "sheet.png")   # doctest: +SKIP
    """
    labels = [10 * half + digit for digit in range(10) for half in range(2) for _ in range(columns)]
    images = sample_digits(denoiser, labels, list(range(columns)) * 20, SamplingConfig(steps=12, fast=True))
    write_sheet(images, path, 2 * columns)
