"""`dlcv figures`"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from ..errors import check
from . import options
from .options import SEED, examples, given

EXAMPLES = examples(
    "dlcv figures",
    "dlcv figures --only digits --weights runs/digits/model.safetensors",
    "dlcv figures --only faces --noises face/noise --face-weights UNet.pt --unet-py UNet.py --preset course",
    "dlcv figures --only zero-shot --pictures hw2_data/clip_zeroshot --clip ViT-B-32 --pretrained openai",
)
Problem = Literal["digits", "faces", "zero-shot"]
OPTIONS: Mapping[Problem, Sequence[str]] = {
    "digits": ["weights"],
    "faces": ["face_weights", "unet_py", "noises", "preset", "steps"],
    "zero-shot": ["clip", "pretrained", "pictures"],
}
"""Whose they are; `out`, `seed` and `device` are everybody's."""

Draw = Callable[[Path], list[Path]]
"""Writes a problem's figures into a folder, and returns their paths."""


def figures(
    context: typer.Context,
    out: Annotated[Path, Option(help="folder for the PNG files")] = Path("figures"),
    only: Annotated[Problem | None, Option(help="one of the problems; all by default")] = None,
    weights: options.Weights = "digits",
    face_weights: options.FaceWeights = "faces",
    unet_py: options.UnetPy = None,
    noises: Annotated[Path | None, Option(help="folder with 00.pt … 03.pt for the faces, instead of seeds")] = None,
    seed: Annotated[int, Option(help="of the first column; the next take SEED + 1 …; k.pt takes SEED + k", **SEED)] = 0,
    preset: options.FacesPreset = "paper",
    steps: options.FacesSteps = None,
    clip: Annotated[str, Option(help="emoji, a name of open_clip's, a folder, or hf-hub:owner/name")] = "emoji",
    pretrained: Annotated[str | None, Option(help="a tag of the CLIP's weights, such as openai, or a file")] = None,
    pictures: Annotated[str, Option(help="to classify: emoji, or the course's clip_zeroshot")] = "emoji",
    device: options.Device = None,
) -> None:
    """Draw the report's figures."""
    from ..files import staging_folder

    for problem, names in OPTIONS.items():
        idle = next((name for name in names if context.get_parameter_source(name).name != "DEFAULT"), None)
        said = f"--{(idle or '').replace('_', '-')} is for {problem} and does nothing for {only}"
        check(only in (None, problem) or idle is None, f"{said}; leave it out, or leave --only {only} out")
    draw: Mapping[Problem, Callable[[], Draw]] = {
        "digits": lambda: _digits(weights, seed, device),
        "faces": lambda: _faces(context.params, seed, device),
        "zero-shot": lambda: _zero_shot(context.params, seed, device),
    }
    wanted = [begin() for problem, begin in draw.items() if only in (None, problem)]  # all weights, then all figures
    with staging_folder(out) as staging:  # all of them or none
        paths = [path for draw in wanted for path in draw(staging)]
    for path in paths:
        print(out / path.name)


def _digits(weights: str, seed: int, device: str | None) -> Draw:
    from ..denoiser import load_denoiser
    from ..digits.figures import write_digit_figures

    model = load_denoiser(weights, device=device)
    return lambda folder: write_digit_figures(folder, model, seed=seed)


def _faces(options: Mapping[str, Any], seed: int, device: str | None) -> Draw:
    from ..denoiser import load_denoiser
    from ..faces.figures import write_face_figures
    from ..faces.noises import noise_files, read_noises
    from ..faces.sampling import PRESETS, check_noises

    config = replace(PRESETS[options["preset"]], **given(steps=options["steps"]))
    denoise = load_denoiser(options["face_weights"], unet_py=options["unet_py"], device=device)
    how: dict[str, Any] = {"seed": seed, "config": config, "progress": True}
    if folder := options["noises"]:
        how |= {"noises": read_noises(folder), "names": [path.stem for path in noise_files(folder)]}
        check_noises(denoise, how["noises"])
    return lambda folder: write_face_figures(folder, denoise, **how)


def _zero_shot(options: Mapping[str, Any], seed: int, device: str | None) -> Draw:
    from ..zero_shot import load_clip, load_pictures
    from ..zero_shot.report import write_zero_shot_figures

    pictures = load_pictures(options["pictures"])  # before weights are read
    clip = load_clip(options["clip"], options["pretrained"], device)
    return lambda folder: write_zero_shot_figures(folder, clip, pictures, seed=seed, progress=True)
