"""`dlcv sample …`"""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from . import options
from .options import MAX_SEED, examples, faces_preset, given, group, written

app = group(
    "Sample images and write them to a folder.",
    "dlcv sample digits out",
    "dlcv sample faces hw2_data/face/noise out --weights UNet.pt --unet-py UNet.py --preset course",
)


@app.command(
    "digits",
    epilog=examples(
        "dlcv sample digits out",
        "dlcv sample digits out --sampler ddpm --w 2 --no-signal-leak        (as the report: all 350 steps)",
        "dlcv sample digits out --weights runs/digits/model.safetensors --count 5",
    ),
)
def digits(
    out: Annotated[Path, typer.Argument(help="gets mnistm/0_001.png … and svhn/9_050.png")],
    weights: options.Weights = "digits",
    sampler: Annotated[str, typer.Option(help="dpm_solver, ddim or ddpm")] = "dpm_solver",
    steps: Annotated[int | None, typer.Option(help="20 by default; all of them for ddpm", min=1)] = None,
    w: Annotated[float, typer.Option(help="guidance weight; 0 is none")] = 2.0,
    interval: Annotated[
        tuple[float, float] | None, typer.Option(help="noise levels within which guidance acts")
    ] = None,
    signal_leak: Annotated[bool, typer.Option(help="start with the trace of a mean colour, as training did")] = True,
    count: Annotated[int, typer.Option(help="images of each class", min=1, max=999)] = 50,
    seed: Annotated[
        int, typer.Option(help="image k of the class c takes SEED + 20·k + c, both from 0", min=0, max=MAX_SEED)
    ] = 0,
    spacing: options.Spacing = "trailing",
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    fast: options.Fast = False,
) -> None:
    """Write the course's folder: 50 images of each digit, for both halves."""
    from ..denoiser import load_denoiser
    from ..digits.sampling import SamplingConfig, write_hw2_digits

    config = SamplingConfig(sampler, steps, w, interval, signal_leak, spacing=spacing, fast=fast)
    how = {"count": count, "seed": seed, "batch_size": batch_size, "progress": True}
    write_hw2_digits(out, load_denoiser(weights, device=device), config, **how)
    print(f"{20 * count} images: {out / 'mnistm'} and {out / 'svhn'}")


@app.command(
    "faces",
    epilog=examples(
        "dlcv sample faces hw2_data/face/noise out --weights hw2_data/face/UNet.pt --unet-py UNet.py --preset course",
        "dlcv sample faces noise out                      (the shipped model; noises by `dlcv noise --like faces`)",
        "dlcv sample faces noise out --eta 1 --seed 7",
        "dlcv sample faces noise out --weights google/ddpm-celebahq-256 --steps 100",
    ),
)
def faces(
    noises: Annotated[Path, typer.Argument(metavar="NOISE_DIR", help="holds 00.pt …, each a tensor (1, C, H, W)")],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="gets 00.png …, named after the noises")],
    weights: options.FaceWeights = "faces",
    unet_py: options.UnetPy = None,
    preset: options.FacesPreset = "paper",
    steps: options.FacesSteps = None,
    eta: Annotated[float | None, typer.Option(help="0 (deterministic, both presets) … 1 (as DDPM)")] = None,
    spacing: Annotated[str | None, typer.Option(help="of the timesteps: uniform (both presets) or trailing")] = None,
    offset: Annotated[int | None, typer.Option(help="added to each timestep: paper 0, course 1")] = None,
    final_alpha: Annotated[
        str | None, typer.Option(help="ᾱ after the last step: one (paper), or first, ᾱ_0 (course)")
    ] = None,
    clip_x0: Annotated[
        str | None, typer.Option(help="clamp predicted x0 to ± this number, or none: paper none, course 1")
    ] = None,
    rederive_eps: Annotated[bool | None, typer.Option(help="take ε from the clamped x0; neither preset does")] = None,
    save: Annotated[
        str | None, typer.Option(help="clamp [−1, 1] (paper), or min_max: stretch each image to 0 … 255 (course)")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="for eta > 0: the noise k.pt takes SEED + k; 0 by default", min=0, max=MAX_SEED)
    ] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    fast: options.Fast = False,
) -> None:
    """Write a face for each noise of a folder, by DDIM, as the course asks for it."""
    from ..denoiser import load_denoiser
    from ..faces.sampling import write_hw2_faces

    changes = given(
        steps=steps,
        eta=eta,
        spacing=spacing,
        offset=offset,
        final_alpha=final_alpha,
        rederive_eps=rederive_eps,
        save=save,
        fast=fast,
    )
    if clip_x0 is not None:
        changes["clip_x0"] = number_or_none(clip_x0)
    config = faces_preset(preset, **changes)
    if seed is not None and config.eta == 0:
        raise UserError("seed (--seed) does nothing where eta is 0: no noise is drawn; leave it out, or give --eta")
    denoise = load_denoiser(weights, unet_py=unet_py, device=device)
    paths = write_hw2_faces(noises, out, denoise, config, seed=seed or 0, batch_size=batch_size, progress=True)
    print(written(paths, "face"))


def number_or_none(text: str) -> float | None:
    """A number, or None for "none". Raises `UserError` for anything else."""
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"clip_x0 (--clip-x0) is '{text}'; give a number, such as 1, or none") from error
