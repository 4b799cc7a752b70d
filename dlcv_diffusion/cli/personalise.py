"""`dlcv personalise …`"""

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from ..errors import check
from ..files import atomic_write
from . import options
from .options import SEED, examples, given, group, written
from .progress import show_training

app = group(
    "Teach a text-to-image model new words by a few pictures.",
    'dlcv personalise train --images my_dog --token "<new1>" --initialiser dog --out runs/dog',
    "dlcv personalise merge runs/dog runs/mug --out runs/both.safetensors",
    "dlcv personalise sample input.json out --embeddings runs/dog --embeddings runs/painter",
)

MODEL = "emoji, a folder of diffusers, a .ckpt or .safetensors, or a name on the hub"
Model = Annotated[str, Option(metavar="NAME|FOLDER|FILE", help=MODEL)]
Config = Annotated[Path | None, Option(metavar="FOLDER", help="of a single file: a pipeline's with its configs")]
DRAWS_EMOJI = (
    "note: the small model 'emoji' draws emoji on plain grounds, and learns others like them; for photographs give "
    "Stable Diffusion (--model)"
)
INPUT = """{"0": {"token_name": "<new1>", "prompt": ["a <new1>", "a <new1> next to a pizza"]}}"""
CAPTIONS = "sentences that are to stay as they were, one a line; a thousand of the emoji world by default"
Several = "; once for each concept"
LEARNT = "what was learnt; <word>=FILE gives its one word another name, or chooses one of several; repeatable"
SCALE = "guidance scale, as Stable Diffusion counts it; 1 is none; 6 by default, and 3 for emoji"
PICTURES = "three to six pictures, folder or zip; what 0.txt beside 0.png says of it, with {} for the word, is used"


@app.command(
    "train",
    epilog=examples(
        'dlcv personalise train --images my_dog --token "<new1>" --initialiser dog --model stable-diffusion-v1-4/',
        'dlcv personalise train --images paintings --token "<new2>" --kind style --out runs/painter',
        'dlcv personalise train --method custom-diffusion --images dog --token "<new1>" --images mug --token "<new2>"',
    ),
)
def train(
    images: Annotated[list[Path], Option(metavar="DIR", help=f"{PICTURES}{Several}")],
    token: Annotated[list[str], Option(help=f"the new word, such as <new1>{Several}")],
    initialiser: Annotated[list[str] | None, Option(metavar="WORD", help=f"what kind of thing it is{Several}")] = None,
    kind: Annotated[list[str] | None, Option(metavar="object|style", help=f"object by default{Several}")] = None,
    template: Annotated[list[str] | None, Option(help="a sentence with {}, instead of the kind's; repeatable")] = None,
    prior: Annotated[
        list[str] | None, Option(metavar="DIR|COUNT", help=f"pictures of its kind, or how many to draw{Several}")
    ] = None,
    prior_weight: Annotated[float | None, Option(help="λ of the prior pictures; 1 by default", min=0)] = None,
    method: Annotated[
        Literal["textual-inversion", "custom-diffusion"], Option(help="vectors alone, or keys and values too")
    ] = "textual-inversion",
    model: Model = "emoji",
    config: Config = None,
    cutmix: Annotated[bool | None, Option(help="custom-diffusion: things also side by side, half as large")] = None,
    vectors: Annotated[int | None, Option(help="vectors a word; 1 by default", min=1, max=64)] = None,
    out: Annotated[
        Path, Option(help="folder of the run: checkpoint, metrics.csv, weights", show_default="runs/new1")
    ] = Path("runs/new1"),
    resume: options.Resume = False,
    steps: options.Steps = None,
    batch_size: options.TrainBatchSize = None,
    accumulate: Annotated[int | None, Option(help="parts that a batch is taken in: less memory", min=1)] = None,
    checkpointing: Annotated[bool | None, Option(help="compute activations twice: less memory")] = None,
    lr: options.LearningRate = None,
    seed: options.TrainSeed = 0,
    precision: options.Precision = None,
    device: options.Device = None,
    checkpoint_every: options.CheckpointEvery = 500,
) -> None:
    """Learn a new word for the pictures of each concept."""
    from ..models.text_to_image import load_text_to_image
    from ..personalisation import train_custom_diffusion, train_textual_inversion

    concepts = _concepts(images, token, initialiser, kind, template, prior)
    run = {"resume": resume, "device": device, "checkpoint_every": checkpoint_every, "seed": seed}
    run |= given(steps=steps, batch_size=batch_size, lr=lr, precision=precision, vectors=vectors)
    run |= given(accumulate=accumulate, checkpointing=checkpointing, prior_weight=prior_weight, cutmix=cutmix)
    several = method == "custom-diffusion"
    one_by_one = "textual inversion learns one concept at a time; run it once for each, with another --out"
    check(several or len(concepts) == 1, one_by_one)
    kept = "--prior goes with --method custom-diffusion; textual inversion keeps the kind as it is"
    check(several or prior is None, kept)
    check(several or not cutmix, "--cutmix goes with --method custom-diffusion, which learns several concepts")
    sd = load_text_to_image(model, device, config=config)

    def begin() -> Any:
        if several:
            return train_custom_diffusion(sd, concepts, out, **run)
        return train_textual_inversion(sd, concepts[0], out, **run)

    if model == "emoji":
        print(DRAWS_EMOJI)
    named = ", ".join(f"the pictures in '{folder}'" for folder in images)
    show_training(begin, out, data=named, resume=resume)


def _concepts(
    images: list[Path],
    token: list[str],
    initialiser: list[str] | None,
    kind: list[str] | None,
    template: list[str] | None,
    prior: list[str] | None,
) -> list[Any]:
    """The concepts that options given once for each of them mean."""
    from ..images.folders import picture_names
    from ..personalisation import Concept
    from ..personalisation.pictures import GIVE

    columns: dict[str, Any] = {"--initialiser": initialiser, "--kind": kind, "--prior": prior, "--token": token}
    for name, column in columns.items():
        fits = column is None or len(column) == len(images)
        check(fits, f"{len(images)} --images and {len(column or [])} {name}; give one for each concept, in order")
    for folder in images:
        picture_names(folder, advice=GIVE)  # before weights are read
    blank = [None] * len(images)
    priors = [int(each) if each.isdecimal() else each for each in prior or ["0"] * len(images)]
    rows = zip(images, token, initialiser or blank, kind or ["object"] * len(images), priors, strict=True)
    concepts = [Concept(folder, name, word, which, template, kept) for folder, name, word, which, kept in rows]
    return concepts


@app.command("merge", epilog=examples("dlcv personalise merge runs/dog runs/mug --out runs/both.safetensors"))
def merge(
    learnt: Annotated[list[Path], Argument(metavar="RUN", help="runs or files of --method custom-diffusion")],
    out: Annotated[Path, Option(metavar="FILE", help="the .safetensors file to write")],
    model: Model = "emoji",
    config: Config = None,
    captions: Annotated[Path | None, Option(metavar="FILE", help=CAPTIONS)] = None,
) -> None:
    """Join what Custom Diffusion learnt apart, in closed form."""
    from ..models.text_to_image import load_text_to_image
    from ..personalisation import merge as merged
    from ..personalisation.merging import read_captions

    check(out.suffix == ".safetensors", f"'{out}' is no .safetensors file; name one to write")
    kept = None if captions is None else read_captions(captions)
    with atomic_write(out) as table:  # what cannot be written is found out now
        tokens = merged(load_text_to_image(model, "cpu", config=config), learnt, table, kept)
    print(f"{', '.join(tokens)}: {out}")


@app.command(
    "sample",
    epilog=examples(
        "dlcv personalise sample input.json out --embeddings runs/dog --embeddings runs/painter",
        "dlcv personalise sample input.json out --embeddings runs/both.safetensors --model stable-diffusion-v1-4/",
        'dlcv personalise sample input.json out --embeddings "<new1>=embeddings_from_the_web.pt" --model sd-v1-4.ckpt',
        f"input.json is the course's, or as much of it as {INPUT}",
    ),
)
def sample(
    source: Annotated[Path, Argument(metavar="INPUT_JSON", help="the course's, with its prompts")],
    out: Annotated[Path, Argument(metavar="OUT_DIR", help="gets 0/0/source0_prompt0_0.png …")],
    embeddings: Annotated[list[str], Option(metavar="[<WORD>=]RUN|FILE", help=LEARNT)],
    model: Model = "emoji",
    config: Config = None,
    count: Annotated[int, Option(help="pictures a prompt; the course asks for 25", min=1, max=999)] = 25,
    steps: Annotated[int, Option(help="of DPM-Solver++", min=1, max=1000)] = 25,
    scale: Annotated[float | None, Option(help=SCALE, min=0)] = None,
    seed: Annotated[int, Option(help="picture i of a prompt takes SEED + i", **SEED)] = 0,
    device: options.Device = None,
    fast: options.Fast = False,
) -> None:
    """Draw the course's prompts, 25 pictures of each."""
    from ..models.text_to_image import load_text_to_image
    from ..personalisation import load_concepts
    from ..personalisation.course import read_input, write_hw2_personalisation

    asked = read_input(source)
    sd = load_text_to_image(model, device, config=config, fast=fast)
    load_concepts(sd, *embeddings)
    if scale is None:
        scale = 3.0 if model == "emoji" else 6.0
    how = {"count": count, "seed": seed, "scale": scale, "steps": steps, "progress": True}
    print(written(write_hw2_personalisation(sd, asked, out, **how), "picture"))
