"""What the verbs of the command line share: help with examples, and options."""

import os
import re
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from ..errors import check

MAX_SEED, MOST_SEEDS = 2**32 - 1, 10_000
SEED = {"min": 0, "max": MAX_SEED}
STEPS, IMAGES = {"min": 1, "max": 10**8}, {"min": 1, "max": 65_536}  # more is a slip, and would take all memory


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

Weights = Annotated[str, Option(help="shipped weights by name, or a .safetensors file")]
FaceWeights = Annotated[str, Option(help="'faces', a .safetensors file, UNet.pt, or diffusers' folder or name")]
UnetPy = Annotated[Path | None, Option(help="the course's UNet.py, which is run, for a .pt file")]
FacesPreset = Annotated[Literal["paper", "course"], Option(help="whose conventions faces are sampled by")]
FacesSteps = Annotated[int | None, Option(help="of the faces; 50 in both presets", min=1)]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1 or mps; the best there is by default")]
Spacing = Literal["trailing", "uniform"]
Fast = Annotated[bool, Option("--fast", help="bfloat16 where the device is quick at it; moves pixels a little")]
BatchSize = Annotated[int | None, Option(help="images at a time; as many as fit by default", **IMAGES)]

Clip = Annotated[str, Option(help="emoji, a name of open_clip's, a folder, or hf-hub:owner/name")]
Pretrained = Annotated[str | None, Option(help="a tag of the CLIP's weights, such as openai, or a file")]
QuickGelu = Annotated[bool | None, Option(help="what a file's weights were trained with, where it does not say")]
TEMPLATES = "one template, several, or a file with one a line"
Templates = Annotated[str, Option(metavar="single|ensemble|FILE", help=TEMPLATES)]

RunFolder = Annotated[Path, Option(help="folder of the run: checkpoint, metrics.csv, samples/, weights")]
Resume = Annotated[bool, Option("--resume", help="go on with the run in the folder")]
Steps = Annotated[int | None, Option(help="instead of the preset's number of steps", **STEPS)]
TrainBatchSize = Annotated[int | None, Option(help="images a step, over all processes; or the preset's", **IMAGES)]
LearningRate = Annotated[float | None, Option(help="instead of the preset's peak learning rate", max=10)]
TrainSeed = Annotated[int, Option(help="of the initial weights, the order of the images, and the noise", **SEED)]
Precision = Annotated[
    Literal["no", "bf16", "fp16", "auto"] | None,
    Option(help="no: float32, as in the presets; auto: bf16 where the device is quick at it"),
]
Compile = Annotated[bool, Option(help="torch.compile: a minute to begin, quicker from then on; with --resume too")]
CheckpointEvery = Annotated[int, Option(help="steps between two checkpoints", **STEPS)]
PreviewEvery = Annotated[int, Option(help="steps between two sample grids", **STEPS)]


def _run(
    resume: Resume = False,
    steps: Steps = None,
    batch_size: TrainBatchSize = None,
    lr: LearningRate = None,
    seed: TrainSeed = 0,
    precision: Precision = None,
    compile: Compile = False,
    device: Device = None,
    checkpoint_every: CheckpointEvery = 500,
    preview_every: PreviewEvery = 1000,
) -> None:
    """The options of every run, for `with_run`."""


def with_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of every run, after its own; it gets all that are not None as the dictionary `run`.

    >>> @app.command()   # doctest: +SKIP
    ... @with_run
    ... def clip(preset: str = "small", *, run: dict[str, Any]) -> None: ...
    """
    shared, own = signature(_run), signature(command)

    @wraps(command)
    def verb(**options: Any) -> None:
        run = given(**{name: options.pop(name) for name in shared.parameters})
        command(**options, run=run)

    kept = [each for each in own.parameters.values() if each.name != "run"]
    parameters = [*kept, *shared.parameters.values()]
    # typer reads names and defaults from the one, and types from the other
    verb.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    verb.__annotations__ = {each.name: each.annotation for each in parameters}
    return verb


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
        ends = re.fullmatch(r"\s*([0-9]{1,20})\s*(?:-\s*([0-9]{1,20})\s*)?", part)
        check(ends, f"'{text}' are no seeds; give numbers and ranges, such as 0-9 or 0-3,7")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        check(max(first, last) <= MAX_SEED, f"seed {max(first, last)} is out of range; seeds run from 0 to {MAX_SEED}")
        check(first <= last, f"the range '{part.strip()}' runs backwards; give the smaller seed first")
        seeds += range(first, min(last, first + MOST_SEEDS) + 1)
        check(len(seeds) <= MOST_SEEDS, f"'{text}' are more than {MOST_SEEDS:,} seeds; give fewer at a time")
    return seeds


def written(paths: Sequence[Path], what: str, how: str = "") -> str:
    """What to say of files that were written.

    >>> written([Path("out/00.png"), Path("out/01.png")], "face")
    '2 faces: out/00.png … 01.png'
    """
    words = [f"{len(paths)} {what}{'' if len(paths) == 1 else 's'}", *([how] if how else [])]
    return f"{' '.join(words)}: {paths[0]}{f' … {paths[-1].name}' if len(paths) > 1 else ''}"
