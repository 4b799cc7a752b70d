"""`dlcv …`: every verb calls one public function of the package. Bad input is one sentence and exit code 2."""

import os
import re
import signal
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..errors import check
from . import export, figures, grade, options, personalise, sample, train, zero_shot
from .options import examples, group, numbers, speaks, written
from .progress import STOPPED
from .sentences import of_the_output, sentence

TERMINATED = 143  # the exit code after `kill` or a time limit

app = group(
    "Diffusion models for the DLCV homework: train, sample, grade and draw.",
    *("dlcv info", "dlcv sample digits out", "dlcv grade digits out", "dlcv figures"),
    *("dlcv noise noise --seeds 0-9 --like faces", "dlcv sample faces noise out"),
)
app.add_typer(train.app, name="train")
app.add_typer(sample.app, name="sample")
app.add_typer(grade.app, name="grade")
app.add_typer(personalise.app, name="personalise")
app.command("zero-shot", epilog=zero_shot.EXAMPLES)(zero_shot.zero_shot)
app.command("figures", epilog=figures.EXAMPLES)(figures.figures)
app.command("export", epilog=export.EXAMPLES)(export.export)


def main() -> None:
    """Run the command line. Whatever goes wrong is one sentence on the standard error, and exit code 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that half-written folders are removed
    with suppress(AttributeError):  # of a standard output that is no stream of text
        sys.stdout.reconfigure(errors="backslashreplace")  # names that are not UTF-8, and terminals that are not
    try:
        try:
            _check_words(sys.argv[1:])
            with warnings.catch_warnings():
                if not sys.warnoptions:
                    warnings.simplefilter("ignore")  # those of libraries would hide the sentence
                code = app(prog_name="dlcv", standalone_mode=False)
        finally:
            if sys.stdout:  # which `>&-` closes
                sys.stdout.flush()  # a full disk is found out now, where it can still be told
    except (KeyboardInterrupt, typer.Abort):  # as older versions of typer let it through
        code = STOPPED
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        if of_the_output(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more when it ends
        code = 1 if isinstance(error, BrokenPipeError) else 2  # 1: whoever read has read enough, as `head` does
        if code == 2 and speaks():
            print(said if said.startswith("Usage: ") else f"dlcv: {' '.join(said.splitlines())}", file=sys.stderr)
        elif code == 2:
            time.sleep(10)  # a launcher stops all processes when the first one ends; that one has to print the sentence
    if code == STOPPED and speaks():
        print("dlcv: stopped", file=sys.stderr)
    sys.exit(code)


def _check_words(words: list[str]) -> None:
    empty = [word for word in words if re.fullmatch("(--[a-z0-9-]+=)?", word)]
    check(not empty, "an argument is empty (an unset shell variable?); give a value, or leave it out")


@app.command(
    epilog=examples(
        "dlcv noise noise                       (the course's: ten, 3×256×256)",
        "dlcv noise noise --like faces          (of the size that the shipped model takes)",
        "dlcv noise noise --seeds 0-3,7 --size 64 --channels 1",
    )
)
def noise(
    out: Annotated[Path, Argument(metavar="OUT_DIR", help="gets 00.pt …, named after their seeds")],
    seeds: Annotated[str, Option(help="numbers and ranges, such as 0-9 or 0-3,7")] = "0-9",
    size: Annotated[int | None, Option(help="pixels a side; 256 by default", min=1, max=4096)] = None,
    channels: Annotated[int | None, Option(help="3 (RGB, by default) or 1 (grey)", min=1, max=16)] = None,
    like: Annotated[str | None, Option(help="the weights that will draw: noises of their size")] = None,
    unet_py: options.UnetPy = None,
) -> None:
    """Draw noises N(0, I) for `sample faces` in the course's way."""
    from ..denoiser import load_denoiser
    from ..faces.noises import write_noises

    wanted = numbers(seeds)
    fits = like is not None or unet_py is None
    check(fits, "unet_py (--unet-py) does nothing without --like; leave it out, or give the weights")
    fits = like is None or size is channels is None
    check(fits, "--like takes size and channels from the weights; leave out --size and --channels, or --like")
    shape = (channels or 3, size or 256, size or 256)
    if like is not None:
        shape = load_denoiser(like, unet_py=unet_py, device="cpu").shape
        check(shape, f"the weights '{like}' draw any size; give --size and --channels instead of --like")
    paths = write_noises(out, wanted, (1, *shape))
    print(written(paths, "noise", f"of {'×'.join(map(str, shape))}"))


@app.command(epilog=examples("dlcv convert report.pt report.safetensors"))
def convert(
    pt: Annotated[Path, Argument(metavar="PT_FILE", help="the state dict of the report's network")],
    out: Annotated[Path, Argument(metavar="OUT_FILE", help="the .safetensors file to write")],
    timesteps: Annotated[int, Option(help="T of the schedule it was trained with", min=1, max=100_000)] = 350,
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
