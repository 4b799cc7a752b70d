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
    "dlcv figures --only personalisation",
    "dlcv figures --width column --format pdf --no-caption      (for a report in two columns)",
)
Problem = Literal["digits", "faces", "zero-shot", "personalisation"]
OPTIONS: Mapping[Problem, Sequence[str]] = {
    "digits": ["weights"],
    "faces": ["face_weights", "unet_py", "noises", "preset", "steps"],
    "zero-shot": ["pictures", "labels", "clip", "pretrained", "quick_gelu", "templates"],
    "personalisation": [],
}
"""Whose they are; `out`, `width`, `format`, `caption`, `seed` and `device` are everybody's."""

Draw = Callable[[Path], list[Path]]
"""Writes a problem's figures into a folder, and returns their paths."""


def figures(
    context: typer.Context,
    out: Annotated[Path, Option(help="folder for the figures and the table")] = Path("figures"),
    width: Annotated[
        Literal["column", "page"], Option(help="of the report: 3.3 or 7.0 inches; letters are 7 pt there, or more")
    ] = "page",
    format: Annotated[Literal["png", "pdf", "svg"], Option(help="png of 300 dpi, or drawings with text")] = "png",
    caption: Annotated[bool, Option(help="draw it below the figure; else all are in captions.txt")] = True,
    only: Annotated[Problem | None, Option(help="one of the problems; all by default")] = None,
    weights: options.Weights = "digits",
    face_weights: options.FaceWeights = "faces",
    unet_py: options.UnetPy = None,
    noises: Annotated[Path | None, Option(help="folder with 00.pt … 03.pt for the faces, instead of seeds")] = None,
    seed: Annotated[
        int,
        Option(
            help="of a figure's first column, the next take SEED + 1 …; of k.pt, SEED + k; of the choice of cases",
            **SEED,
        ),
    ] = 0,
    preset: options.FacesPreset = "paper",
    steps: options.FacesSteps = None,
    pictures: Annotated[
        str, Option(help="to classify: emoji, emoji-woodcuts, or the course's clip_zeroshot")
    ] = "emoji-woodcuts",
    labels: Annotated[Path | None, Option(help="id2label.json of the pictures; beside them by default")] = None,
    clip: options.Clip = "emoji",
    pretrained: options.Pretrained = None,
    quick_gelu: options.QuickGelu = None,
    templates: options.Templates = "single",
    device: options.Device = None,
) -> None:
    """Draw the report's figures."""
    from ..figures import printed
    from ..files import staging_folder

    for problem, names in OPTIONS.items():
        idle = next((name for name in names if context.get_parameter_source(name).name != "DEFAULT"), None)
        said = f"--{(idle or '').replace('_', '-')} is for {problem} and does nothing for {only}"
        check(only in (None, problem) or idle is None, f"{said}; leave it out, or leave --only {only} out")
    draw: Mapping[Problem, Callable[[], Draw]] = {
        "digits": lambda: _digits(weights, seed, device),
        "faces": lambda: _faces(context.params, seed, device),
        "zero-shot": lambda: _zero_shot(context.params, seed, device),
        "personalisation": lambda: _personalisation(seed, device),
    }
    drawing = [begin() for problem, begin in draw.items() if only in (None, problem)]  # all weights, then all figures
    with staging_folder(out) as staging, printed(width, format=format, caption=caption) as captions:  # all or none
        paths = [path for problem in drawing for path in problem(staging)]
        if not caption:
            paths.append(staging / "captions.txt")
            lines = [f"{name}: {said}\n" for name, said in captions.items()]
            paths[-1].write_text("".join(lines), encoding="utf-8")
    for path in paths:
        print(out / path.name)


def _digits(weights: str, seed: int, device: str | None) -> Draw:
    from ..denoiser import load_denoiser
    from ..digits.figures import write_digit_figures

    model = load_denoiser(weights, device=device)
    return lambda folder: write_digit_figures(folder, model, seed=seed)


def _faces(wanted: Mapping[str, Any], seed: int, device: str | None) -> Draw:
    from ..denoiser import load_denoiser
    from ..faces.figures import write_face_figures
    from ..faces.noises import noise_files, read_noises
    from ..faces.sampling import PRESETS, check_noises

    config = replace(PRESETS[wanted["preset"]], **given(steps=wanted["steps"]))
    denoise = load_denoiser(wanted["face_weights"], unet_py=wanted["unet_py"], device=device)
    how: dict[str, Any] = {"seed": seed, "config": config, "progress": True}
    if folder := wanted["noises"]:
        how |= {"noises": read_noises(folder), "names": [path.stem for path in noise_files(folder)]}
        check_noises(denoise, how["noises"])
    return lambda folder: write_face_figures(folder, denoise, **how)


def _zero_shot(wanted: Mapping[str, Any], seed: int, device: str | None) -> Draw:
    from ..zero_shot import load_clip, load_pictures, read_templates
    from ..zero_shot.report import write_zero_shot_figures

    templates = wanted["templates"]
    templates = templates if templates in ("single", "ensemble") else read_templates(templates)
    pictures = load_pictures(wanted["pictures"], wanted["labels"])  # before weights are read
    clip = load_clip(wanted["clip"], wanted["pretrained"], device, quick_gelu=wanted["quick_gelu"])
    how = {"templates": templates, "seed": seed, "progress": True}
    return lambda folder: write_zero_shot_figures(folder, clip, pictures, **how)


def _personalisation(seed: int, device: str | None) -> Draw:
    from functools import partial

    from ..models.text_to_image import load_text_to_image
    from ..personalisation.report import write_personalisation_figures

    load = partial(load_text_to_image, "emoji", device)
    load()  # what cannot be read is found out now
    return lambda folder: write_personalisation_figures(folder, load, seed=seed, progress=True)
