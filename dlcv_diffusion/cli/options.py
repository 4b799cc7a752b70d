"""What the verbs of the command line share: help with examples, options, and the progress of a training run."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError

if TYPE_CHECKING:
    from ..faces.sampling import FaceSampling
    from ..training import TrainState

MAX_SEED = 2**32 - 1
MOST_SEEDS = 10_000


def examples(*lines: str) -> str:
    """What stands below a verb's `--help`, one example a line (click would fill a paragraph otherwise)."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def group(about: str, *lines: str) -> typer.Typer:
    return typer.Typer(
        help=about,
        epilog=examples(*lines),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )


# --- options that mean the same everywhere ----------------------------------------------------------------------------

Weights = Annotated[str, typer.Option(help="shipped weights by name, or a .safetensors file")]
FaceWeights = Annotated[
    str,
    typer.Option(help="'faces', a .safetensors file, the course's UNet.pt, or a diffusers folder or hub name"),
]
UnetPy = Annotated[Path | None, typer.Option(help="the course's UNet.py, to be run, for a .pt file")]
FacesPreset = Annotated[
    str,
    typer.Option("--preset", help="of the faces: paper, or course (its conventions); options beside it override it"),
]
FacesSteps = Annotated[int | None, typer.Option("--steps", help="50 in both presets", min=1)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is by default")]
Spacing = Annotated[str, typer.Option(help="which timesteps few steps visit: trailing or uniform")]
Fast = Annotated[
    bool, typer.Option("--fast", help="bfloat16 where the device is quick at it: pixels move by a level or two")
]
BatchSize = Annotated[int | None, typer.Option(help="images at a time, by default as many as fit", min=1)]

RunFolder = Annotated[
    Path, typer.Option(help="folder of the run: checkpoint, metrics.csv, samples/, model.safetensors")
]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run in the folder")]
Steps = Annotated[int | None, typer.Option(help="instead of the preset's number of steps", min=1)]
TrainBatchSize = Annotated[int | None, typer.Option(help="instead of the preset's, over all processes", min=1)]
LearningRate = Annotated[float | None, typer.Option(help="instead of the preset's peak learning rate")]
TrainSeed = Annotated[
    int, typer.Option(help="of the initial weights, the order of the images, and the noise", min=0, max=MAX_SEED)
]
Precision = Annotated[str | None, typer.Option(help="no (float32), bf16 or fp16")]
CheckpointEvery = Annotated[int, typer.Option(help="steps between two checkpoints", min=1)]
PreviewEvery = Annotated[int, typer.Option(help="steps between two sample grids", min=1)]


def speaks() -> bool:
    """Whether this process talks to the user: one on each machine, under `accelerate launch` or `torchrun`."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def given(**options: object) -> dict[str, object]:
    """The options that the user gave.

    >>> given(steps=None, eta=0.0)
    {'eta': 0.0}
    """
    return {name: value for name, value in options.items() if value is not None}


def numbers(text: str) -> list[int]:
    """Seeds as one writes them: "0-9", "3", "0-3,7". Raises `UserError` for anything else.

    >>> numbers("0-3,7")
    [0, 1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"'{text}' are no seeds; give numbers and ranges, such as 0-9 or 0-3,7")
        if int(last or first) > MAX_SEED:
            raise UserError(f"seed {last or first} is out of range; seeds run from 0 to {MAX_SEED}")
        if int(last or first) < int(first):
            raise UserError(f"the range '{part.strip()}' in '{text}' runs backwards; give the smaller seed first")
        if int(last or first) - int(first) >= MOST_SEEDS:
            raise UserError(f"'{part.strip()}' are more than {MOST_SEEDS:,} seeds; give a shorter range")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


def written(paths: Sequence[Path], what: str, how: str = "") -> str:
    """What to say of files that were written.

    >>> written([Path("out/00.png"), Path("out/01.png")], "face")
    '2 faces: out/00.png … 01.png'
    """
    words = [f"{len(paths)} {what}{'' if len(paths) == 1 else 's'}", *([how] if how else [])]
    return f"{' '.join(words)}: {paths[0]}{f' … {paths[-1].name}' if len(paths) > 1 else ''}"


def show_training(states: Iterable["TrainState"], out: Path) -> None:
    """Run a training with a bar, and say where its weights are."""
    from accelerate import PartialState
    from tqdm.auto import tqdm

    bar = None
    for state in states:
        bar = bar or tqdm(
            total=state.steps, initial=state.step - 1, unit="step", smoothing=0.05, disable=None if speaks() else True
        )
        bar.set_postfix_str(f"loss {state.loss:.4f}, {state.images_per_second:.0f} img/s", refresh=False)
        bar.update()
    if bar is not None:
        bar.close()
    PartialState().destroy_process_group()
    if speaks():
        print(f"trained weights: {out / 'model.safetensors'}")


def faces_preset(name: str, **changes: Any) -> "FaceSampling":
    """How `--preset` and the options beside it say that faces are sampled. Raises `UserError` for an unknown name."""
    from ..faces.sampling import PRESETS

    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}'; choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
