"""`dlcv train …`"""

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from . import options
from .options import examples, given, group, with_run
from .progress import show_training

app = group(
    "Train a model.",
    *("dlcv train digits --preset tiny --out runs/tiny", "dlcv train faces --data faces64.zip"),
    *("dlcv train clip --precision auto", "dlcv train autoencoder", "dlcv train text-to-image"),
)

SAMPLE = "the sample of 4,000 digits that ships, of which 800 are held out; --data names more"
TEACHER = "the weights that the preset guided learns from"
WEAKER = "weights after less training, which guide the teacher of the preset guided"
EMOJI = "scenes of the emoji world that ships, made on the fly"


@app.command(
    "digits",
    epilog=examples(
        "dlcv train digits --preset tiny --out runs/tiny",
        "dlcv train digits --data hw2_data --precision bf16 --resume",
        "dlcv train digits --data hw2_data --steps 6000 --out runs/early           (a weaker network, to guide by)",
        "dlcv train digits --data hw2_data --preset guided --teacher runs/digits/model.safetensors "
        "--weaker runs/early/model.safetensors --out runs/guided",
        "accelerate launch --num_processes 4 -m dlcv_diffusion train digits --preset report --data hw2_data",
        "torchrun --nproc-per-node 2 -m dlcv_diffusion train digits --device cpu",
    ),
)
@with_run
def digits(
    preset: Annotated[
        Literal["report", "small", "guided", "tiny"],
        Option(help="small ships; guided is learned from it; tiny: three digits"),
    ] = "small",
    teacher: Annotated[str | None, Option(help=TEACHER)] = None,
    weaker: Annotated[str | None, Option(help=WEAKER)] = None,
    data: Annotated[str, Option(help="sample, torchvision, street, hw2_data, an .npz, or a folder")] = "sample",
    out: options.RunFolder = Path("runs/digits"),
    svhn: Annotated[bool, Option("--svhn", help="the real SVHN instead of street digits")] = False,
    root: Annotated[str | None, Option(help="folder of torchvision's downloads, for --svhn")] = None,
    photos: Annotated[str | None, Option(help="photographs (folder or zip) for MNIST-M's backgrounds")] = None,
    *,
    run: dict[str, Any],
) -> None:
    """Train a digit model: DDPM with classes and label drop."""
    from ..digits.training import train_digits

    run |= given(teacher=teacher, weaker=weaker)
    extra = {name: value for name, value in {"svhn": svhn, "root": root, "photos": photos}.items() if value}
    named = SAMPLE if data == "sample" else f"'{data}', of which some are held out"
    show_training(
        lambda: train_digits(preset, data, out, data_options=extra, **run), out, data=named, resume=run["resume"]
    )


@app.command(
    "faces",
    epilog=examples(
        "dlcv train faces --data faces64.zip",
        "dlcv train faces --data faces64.zip --steps 4800 --out runs/early            (a weaker network, to guide by)",
        "dlcv train faces --data faces64.zip --preset guided --teacher runs/faces/model.safetensors --out runs/guided",
        "dlcv train faces --data faces64.zip --preset guided --teacher runs/guided/model.safetensors "
        "--weaker runs/early/model.safetensors --out runs/third",
        "dlcv train faces --data celeba --size 128 --channels 3 --precision bf16",
        "dlcv train faces --data faces64.zip --preset tiny --out runs/tiny_faces --resume",
    ),
)
@with_run
def faces(
    data: Annotated[Path, Option(help="folder or zip of pictures; every tenth is held out")],
    preset: Annotated[
        Literal["small", "guided", "tiny"],
        Option(help="small; guided, learned from small, ships; tiny is a quick trial"),
    ] = "small",
    teacher: Annotated[str | None, Option(help=TEACHER)] = None,
    weaker: Annotated[str | None, Option(help=WEAKER)] = None,
    size: Annotated[int, Option(help="pixels a side, to which pictures are cut and resized", min=1, max=1024)] = 64,
    channels: Annotated[int, Option(help="1 (grey) or 3 (RGB)", min=1, max=3)] = 1,
    out: options.RunFolder = Path("runs/faces"),
    prediction: Annotated[Literal["eps", "v", "x0"] | None, Option(help="what the network gives; v by default")] = None,
    *,
    run: dict[str, Any],
) -> None:
    """Train a face model: DDPM on a folder or zip of pictures."""
    from ..faces.training import train_faces

    run |= given(prediction=prediction, teacher=teacher, weaker=weaker)
    named = f"the pictures in '{data}', of which every tenth is held out"
    show_training(
        lambda: train_faces(data, preset, out, size=size, channels=channels, **run),
        out,
        data=named,
        resume=run["resume"],
    )


@app.command(
    "clip",
    epilog=examples(
        "dlcv train clip                                          (what ships: some two hours)",
        "dlcv train clip --preset tiny --out runs/tiny_clip",
        "dlcv train clip --leave-out openmoji --out runs/clip_without_openmoji",
    ),
)
@with_run
def clip(
    preset: Annotated[Literal["small", "tiny"], Option(help="small ships, tiny is a quick trial")] = "small",
    leave_out: Annotated[str | None, Option(help="an artist not to train on: noto, twemoji, openmoji, …")] = None,
    out: options.RunFolder = Path("runs/clip"),
    *,
    run: dict[str, Any],
) -> None:
    """Train a small CLIP on the emoji world, by contrast."""
    from ..emoji.clip_training import train_clip

    named = f"{EMOJI}, without {leave_out}" if leave_out else EMOJI
    show_training(lambda: train_clip(preset, out, leave_out=leave_out, **run), out, data=named, resume=run["resume"])


@app.command(
    "autoencoder",
    epilog=examples(
        "dlcv train autoencoder                                   (what ships)",
        "dlcv train autoencoder --preset tiny --out runs/tiny_autoencoder",
    ),
)
@with_run
def autoencoder(
    preset: Annotated[Literal["small", "tiny"], Option(help="small ships, tiny is a quick trial")] = "small",
    out: options.RunFolder = Path("runs/autoencoder"),
    *,
    run: dict[str, Any],
) -> None:
    """Train the text-to-image model's autoencoder."""
    from ..emoji.autoencoder_training import train_autoencoder

    show_training(lambda: train_autoencoder(preset, out, **run), out, "model", data=EMOJI, resume=run["resume"])


@app.command(
    "text-to-image",
    epilog=examples(
        "dlcv train text-to-image                                 (what ships)",
        "dlcv train text-to-image --autoencoder runs/autoencoder/model --clip runs/clip/model.safetensors",
        "dlcv train text-to-image --init runs/text_to_image/model --out runs/further",
    ),
)
@with_run
def text_to_image(
    preset: Annotated[Literal["small", "tiny"], Option(help="small ships, tiny is a quick trial")] = "small",
    autoencoder: Annotated[str, Option(help="folder of an autoencoder or a pipeline; what ships by default")] = "emoji",
    clip: Annotated[str, Option(help="model.safetensors of a CLIP of ours; what ships by default")] = "emoji",
    init: Annotated[str | None, Option(help="folder of a pipeline whose U-Net is gone on with, optimiser new")] = None,
    out: options.RunFolder = Path("runs/text_to_image"),
    *,
    run: dict[str, Any],
) -> None:
    """Train a small Stable Diffusion on the emoji world."""
    from ..emoji.text_to_image_training import train_text_to_image

    parts = {"autoencoder": autoencoder, "clip": clip, "init": init}
    show_training(
        lambda: train_text_to_image(preset, out, **parts, **run), out, "model", data=EMOJI, resume=run["resume"]
    )
