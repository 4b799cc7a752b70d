"""`dlcv sample …`"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ..errors import check
from . import options
from .options import SEED, examples, given, group, written

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
    out: Annotated[Path, Argument(metavar="OUT_DIR", help="gets mnistm/0_001.png … and svhn/9_050.png")],
    weights: options.Weights = "digits",
    sampler: Annotated[Literal["dpm_solver", "ddim", "ddpm"], Option(help="ddpm is the report's")] = "dpm_solver",
    steps: Annotated[int | None, Option(help="15 by default; for ddpm all timesteps", min=1)] = None,
    w: Annotated[float, Option(help="guidance weight; 0 is none")] = 2.0,
    interval: Annotated[tuple[float, float] | None, Option(metavar="LO HI", help="of σ, where guidance acts")] = None,
    signal_leak: Annotated[bool, Option(help="start with the trace of a mean colour, as training did")] = True,
    count: Annotated[int, Option(help="images of each class", min=1, max=999)] = 50,
    seed: Annotated[int, Option(help="image k of the class c takes SEED + 20·k + c, both from 0", **SEED)] = 0,
    spacing: Annotated[options.Spacing, Option(help="which timesteps few steps visit")] = "trailing",
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    fast: options.Fast = False,
) -> None:
    """Write 50 images of each digit, for both halves."""
    from ..denoiser import load_denoiser
    from ..digits.sampling import SamplingConfig, write_hw2_digits

    check(interval is None or w, "--interval does nothing where --w is 0; leave it out")
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
    noises: Annotated[Path, Argument(metavar="NOISE_DIR", help="holds 00.pt …, each a tensor (1, C, H, W)")],
    out: Annotated[Path, Argument(metavar="OUT_DIR", help="gets 00.png …, named after the noises")],
    weights: options.FaceWeights = "faces",
    unet_py: options.UnetPy = None,
    preset: options.FacesPreset = "paper",
    steps: options.FacesSteps = None,
    eta: Annotated[float | None, Option(help="0 (deterministic, both presets) … 1 (as DDPM)")] = None,
    spacing: Annotated[options.Spacing | None, Option(help="which timesteps; uniform in both presets")] = None,
    offset: Annotated[int | None, Option(help="added to each timestep; paper: 0, course: 1")] = None,
    final_alpha: Annotated[Literal["one", "first"] | None, Option(help="ᾱ at the end; paper: one, course: ᾱ_0")] = None,
    clip_x0: Annotated[str | None, Option(metavar="NUMBER|none", help="clamps x0 to ±; paper: none, course: 1")] = None,
    rederive_eps: Annotated[bool | None, Option(help="take ε from the clamped x0; neither preset does")] = None,
    save: Annotated[Literal["clamp", "min_max"] | None, Option(help="paper: clamp, course: stretch each image")] = None,
    seed: Annotated[int | None, Option(help="for eta > 0: the noise k.pt takes SEED + k; 0 by default", **SEED)] = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    fast: options.Fast = False,
) -> None:
    """Write a face for each noise of a folder, by DDIM."""
    from ..denoiser import load_denoiser
    from ..faces.sampling import PRESETS, write_hw2_faces

    changes = given(steps=steps, eta=eta, spacing=spacing, offset=offset, final_alpha=final_alpha, clip_x0=clip_x0)
    changes |= given(rederive_eps=rederive_eps, save=save)
    if clip_x0 == "none":
        changes["clip_x0"] = None
    config = replace(PRESETS[preset], fast=fast, **changes)
    drawn = seed is None or config.eta > 0
    check(drawn, "seed (--seed) does nothing where eta is 0: no noise is drawn; leave it out, or give --eta")
    denoise = load_denoiser(weights, unet_py=unet_py, device=device)
    paths = write_hw2_faces(noises, out, denoise, config, seed=seed or 0, batch_size=batch_size, progress=True)
    print(written(paths, "face"))
