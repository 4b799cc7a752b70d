"""`dlcv …`: every verb calls one public function of the package. Bad input: one sentence, exit code 2."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .errors import UserError


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


app = group(
    "Diffusion models for the DLCV homework: train, sample, grade and draw.",
    "dlcv info",
    "dlcv sample digits out",
    "dlcv grade digits out",
)
train_app = group("Train a model.", "dlcv train digits --preset tiny --out runs/tiny")
sample_app = group("Sample images and write them to a folder.", "dlcv sample digits out")
grade_app = group("Grade a folder of images as the course does.", "dlcv grade digits out")
app.add_typer(train_app, name="train")
app.add_typer(sample_app, name="sample")
app.add_typer(grade_app, name="grade")

Weights = Annotated[str, typer.Option(help="shipped weights by name, or a .safetensors file")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is by default")]
MAX_SEED = 2**32 - 1


def main() -> None:
    """Run the command line; for bad input, one sentence and exit code 2."""
    try:
        app(prog_name="dlcv")
    except UserError as error:
        if speaks():
            print(f"dlcv: {error}", file=sys.stderr)
        else:
            time.sleep(10)  # a launcher stops all processes when the first one ends: let it be the one that speaks
        sys.exit(2)


def speaks() -> bool:
    """Whether this process talks to the user: one on each machine, under `accelerate launch` or `torchrun`."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@train_app.command(
    "digits",
    epilog=examples(
        "dlcv train digits --preset tiny --out runs/tiny",
        "dlcv train digits --data hw2_data --precision bf16 --resume",
        "accelerate launch --num_processes 4 -m dlcv_diffusion train digits --preset report --data hw2_data",
        "torchrun --nproc-per-node 2 -m dlcv_diffusion train digits --device cpu",
    ),
)
def train_digits(
    preset: Annotated[str, typer.Option(help="report (the report's network), small (what ships) or tiny")] = "small",
    data: Annotated[
        str, typer.Option(help="'sample', the course's hw2_data folder, an .npz, or another folder")
    ] = "sample",
    out: Annotated[
        Path, typer.Option(help="folder of the run: checkpoint, metrics.csv, samples/, model.safetensors")
    ] = Path("runs/digits"),
    svhn: Annotated[bool, typer.Option("--svhn", help="the real SVHN instead of street digits")] = False,
    root: Annotated[str | None, typer.Option(help="folder of torchvision's downloads, for --svhn")] = None,
    photos: Annotated[str | None, typer.Option(help="photographs (folder or zip) for MNIST-M's backgrounds")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in the folder")] = False,
    steps: Annotated[int | None, typer.Option(help="instead of the preset's number of steps", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="instead of the preset's, over all processes", min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="instead of the preset's peak learning rate")] = None,
    seed: Annotated[
        int, typer.Option(help="of the initial weights, the order of the images, and the noise", min=0, max=MAX_SEED)
    ] = 0,
    precision: Annotated[str | None, typer.Option(help="no (float32), bf16 or fp16")] = None,
    device: Device = None,
    checkpoint_every: Annotated[int, typer.Option(min=1)] = 500,
    preview_every: Annotated[int, typer.Option(help="steps between two sample grids", min=1)] = 1000,
) -> None:
    """Train a digit model: class-conditional DDPM with label drop."""
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from .training.digits import train_digits as run

    options = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed, "precision": precision}
    states = run(
        preset,
        data,
        out,
        resume=resume,
        device=device,
        checkpoint_every=checkpoint_every,
        preview_every=preview_every,
        data_options={k: v for k, v in {"svhn": svhn, "root": root, "photos": photos}.items() if v},
        **{name: value for name, value in options.items() if value is not None},
    )
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


@sample_app.command(
    "digits",
    epilog=examples(
        "dlcv sample digits out",
        "dlcv sample digits out --sampler ddpm --w 2 --no-signal-leak        (as the report: all 350 steps)",
        "dlcv sample digits out --weights runs/digits/model.safetensors --count 5",
    ),
)
def sample_digits(
    out: Annotated[Path, typer.Argument(help="gets mnistm/0_001.png … and svhn/9_050.png")],
    weights: Weights = "digits",
    sampler: Annotated[str, typer.Option(help="dpm_solver, ddim or ddpm")] = "dpm_solver",
    steps: Annotated[int | None, typer.Option(help="20 by default; all of them for ddpm", min=1)] = None,
    w: Annotated[float, typer.Option(help="guidance weight; 0 is none")] = 2.0,
    interval: Annotated[
        tuple[float, float] | None, typer.Option(help="noise levels within which guidance acts")
    ] = None,
    signal_leak: Annotated[bool, typer.Option(help="start with the trace of a mean colour, as training did")] = True,
    count: Annotated[int, typer.Option(help="images of each class", min=1)] = 50,
    seed: Annotated[
        int, typer.Option(help="image k of the class c takes SEED + 20·k + c, both from 0", min=0, max=MAX_SEED)
    ] = 0,
    batch_size: Annotated[int | None, typer.Option(help="images at a time, by default as many as fit", min=1)] = None,
    device: Device = None,
) -> None:
    """Write the course's folder: 50 images of each digit, for both halves."""
    from .digits import SamplingConfig, write_hw2_digits
    from .models import load_model

    config = SamplingConfig(sampler, steps, w, interval, signal_leak)
    options = {"count": count, "seed": seed, "batch_size": batch_size, "device": device, "progress": True}
    write_hw2_digits(out, load_model(weights), config, **options)
    print(f"{20 * count} images: {out / 'mnistm'} and {out / 'svhn'}")


@grade_app.command(
    "digits",
    epilog=examples("dlcv grade digits out", "dlcv grade digits out --mnistm-classifier Classifier.pth"),
)
def grade_digits(
    folder: Annotated[Path, typer.Argument(help="with mnistm/ and svhn/ in it")],
    mnistm_classifier: Annotated[
        Path | None, typer.Option(help="the course's LeNet file, instead of our judge")
    ] = None,
    count: Annotated[int, typer.Option(help="images of each class; the course asks for 50", min=1)] = 50,
) -> None:
    """Accuracy of a digit classifier on each half, and their mean."""
    from .evaluation.hw2 import grade_digits as grade

    print(grade(folder, mnistm_classifier=mnistm_classifier, per_digit=count))


@app.command(epilog=examples("dlcv figures", "dlcv figures --out figures --weights runs/digits/model.safetensors"))
def figures(
    out: Annotated[Path, typer.Option(help="folder for the PNG files")] = Path("figures"),
    weights: Weights = "digits",
    seed: Annotated[
        int, typer.Option(help="of the first column; the next columns take the next seeds", min=0, max=MAX_SEED)
    ] = 0,
    device: Device = None,
) -> None:
    """Draw the report's figures."""
    from .digits import write_digit_figures
    from .models import load_model

    for path in write_digit_figures(out, load_model(weights), seed=seed, device=device):
        print(path)


@app.command(epilog=examples("dlcv convert report.pt report.safetensors"))
def convert(
    pt: Annotated[Path, typer.Argument(help="a .pt file with the state dict of the report's network")],
    out: Annotated[Path, typer.Argument(help="the .safetensors file to write")],
    timesteps: Annotated[int, typer.Option(help="T of the schedule it was trained with", min=1)] = 350,
) -> None:
    """Turn weights of the report's own format into safetensors."""
    from .models.convert import convert_report_weights

    model = convert_report_weights(pt, out, timesteps=timesteps)
    print(f"{out}: {type(model).__name__} with {sum(p.numel() for p in model.parameters()):,} parameters")


@app.command(epilog=examples("dlcv info"))
def info() -> None:
    """Versions, the device, and what weights and data are found."""
    from .info import describe_installation

    print(describe_installation())


if __name__ == "__main__":
    main()
