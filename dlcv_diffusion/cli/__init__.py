"""`dlcv …`: every verb calls one public function of the package. Bad input: one sentence, exit code 2."""

import errno
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..errors import UserError, check
from . import grade, options, sample, train
from .options import MAX_SEED, examples, group, numbers, speaks, written

OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What can go wrong when the standard output is a pipe, or was led into a file."""

app = group(
    "Diffusion models for the DLCV homework: train, sample, grade and draw.",
    "dlcv info",
    "dlcv sample digits out",
    "dlcv grade digits out",
    "dlcv noise noise --seeds 0-9 --like faces",
    "dlcv sample faces noise out",
)
app.add_typer(train.app, name="train")
app.add_typer(sample.app, name="sample")
app.add_typer(grade.app, name="grade")


def main() -> None:
    """Run the command line; for bad input, one sentence and exit code 2."""
    try:
        try:
            app(prog_name="dlcv")
        finally:
            sys.stdout.flush()  # a full disk is found out now, where it can still be told
    except UserError as error:
        if speaks():
            refuse(str(error))
        time.sleep(10)  # a launcher stops all processes when the first one ends; that one has to print the sentence
        sys.exit(2)
    except MemoryError:
        refuse("there is not enough memory; choose a smaller size, count or batch size")
    except OSError as error:
        if error.filename is not None or error.errno not in OUTPUT_ERRORS:  # a file's or a network's
            where = f"'{os.fsdecode(error.filename)}': " if error.filename is not None else ""
            refuse(f"{where}{error.strerror or error}; give another file or folder, or mend this one")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more when it ends
        if error.errno == errno.EPIPE:  # whoever read has read enough, as `head` does
            sys.exit(1)
        refuse(f"cannot write to the standard output: {error.strerror}; lead it elsewhere")


def refuse(sentence: str) -> NoReturn:
    """Say what is wrong, and end with exit code 2."""
    print(f"dlcv: {sentence}", file=sys.stderr)
    sys.exit(2)


@app.command(
    epilog=examples(
        "dlcv noise noise                       (the course's: ten, 3×256×256)",
        "dlcv noise noise --like faces          (of the size that the shipped model takes)",
        "dlcv noise noise --seeds 0-3,7 --size 64 --channels 1",
    )
)
def noise(
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="gets 00.pt …, named after their seeds")],
    seeds: Annotated[str, typer.Option(help="numbers and ranges, such as 0-9 or 0-3,7")] = "0-9",
    size: Annotated[int | None, typer.Option(help="pixels a side, 256 by default", min=1, max=8192)] = None,
    channels: Annotated[int | None, typer.Option(help="3 (RGB, by default) or 1 (grey)", min=1, max=64)] = None,
    like: Annotated[str | None, typer.Option(help="weights of `sample faces` whose size is taken instead")] = None,
    unet_py: options.UnetPy = None,
) -> None:
    """Draw noises N(0, I) for `sample faces`, in the course's format."""
    from ..denoiser import load_denoiser
    from ..faces.noises import write_noises

    if like is None and unet_py is not None:
        raise UserError("unet_py (--unet-py) does nothing without --like; leave it out, or give the weights")
    if like is None:
        shape = (channels or 3, size or 256, size or 256)
    elif size is not None or channels is not None:
        raise UserError("--like takes size and channels from the weights; leave out --size and --channels, or --like")
    else:
        shape = load_denoiser(like, unet_py=unet_py, device="cpu").shape
        if shape is None:
            raise UserError(f"the weights '{like}' draw any size; give --size and --channels instead of --like")
    paths = write_noises(out, numbers(seeds), (1, *shape))
    print(written(paths, "noise", f"of {'×'.join(map(str, shape))}"))


@app.command(
    epilog=examples(
        "dlcv figures",
        "dlcv figures --only digits --weights runs/digits/model.safetensors",
        "dlcv figures --only faces --noises face/noise --face-weights UNet.pt --unet-py UNet.py --preset course",
    )
)
def figures(
    out: Annotated[Path, typer.Option(help="folder for the PNG files")] = Path("figures"),
    only: Annotated[str | None, typer.Option(help="digits (Problem 1) or faces (Problem 2); both by default")] = None,
    weights: options.Weights = "digits",
    face_weights: options.FaceWeights = "faces",
    unet_py: options.UnetPy = None,
    noises: Annotated[
        Path | None, typer.Option(help="folder with 00.pt … 03.pt for the faces, instead of noises from the seed")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="of the first column; the next ones take the next. With --noises, for eta > 0: k.pt takes SEED + k",
            min=0,
            max=MAX_SEED,
        ),
    ] = 0,
    preset: options.FacesPreset = "paper",
    steps: options.FacesSteps = None,
    device: options.Device = None,
) -> None:
    """Draw the report's figures."""
    from ..denoiser import load_denoiser
    from ..digits.figures import write_digit_figures
    from ..faces.figures import write_face_figures
    from ..faces.noises import noise_files, read_noises
    from ..faces.sampling import check_noises

    if only not in (None, "digits", "faces"):
        raise UserError(f"there are no figures of '{only}'; choose --only digits or --only faces, or leave it out")
    config = options.faces_preset(preset, **options.given(steps=steps))
    check(
        only != "digits" or (face_weights, noises, unet_py, preset, steps) == ("faces", None, None, "paper", None),
        "--face-weights, --noises, --unet-py, --preset and --steps are for faces and do nothing for digits; leave them "
        "out, or leave --only digits out",
    )
    check(
        only != "faces" or weights == "digits",
        "--weights are those of digits and do nothing for faces; give --face-weights, or leave --only faces out",
    )
    model = load_denoiser(weights, device=device) if only != "faces" else None
    denoise = load_denoiser(face_weights, unet_py=unet_py, device=device) if only != "digits" else None
    given_noises, names = (read_noises(noises), [path.stem for path in noise_files(noises)]) if noises else (None, None)
    if given_noises is not None:
        check_noises(denoise, given_noises)
    if model is not None:
        for path in write_digit_figures(out, model, seed=seed):
            print(path)
    if denoise is not None:
        how = {"names": names, "seed": seed, "config": config, "progress": True}
        for path in write_face_figures(out, denoise, given_noises, **how):
            print(path)


@app.command(epilog=examples("dlcv convert report.pt report.safetensors"))
def convert(
    pt: Annotated[Path, typer.Argument(help="a .pt file with the state dict of the report's network")],
    out: Annotated[Path, typer.Argument(help="the .safetensors file to write")],
    timesteps: Annotated[int, typer.Option(help="T of the schedule it was trained with", min=1)] = 350,
) -> None:
    """Turn weights of the report's own format into safetensors."""
    from ..models.convert import convert_report_weights

    model = convert_report_weights(pt, out, timesteps=timesteps).model
    print(f"{out}: {type(model).__name__} with {sum(p.numel() for p in model.parameters()):,} parameters")


@app.command(epilog=examples("dlcv info"))
def info() -> None:
    """Versions, the device, and what weights and data are found."""
    from .info import describe_installation

    print(describe_installation())
