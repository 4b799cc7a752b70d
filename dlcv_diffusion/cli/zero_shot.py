"""`dlcv zero-shot …`"""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..errors import check
from ..files import atomic_write
from . import options
from .options import IMAGES, SEED, examples

EXAMPLES = examples(
    "dlcv zero-shot clip_zeroshot/val clip_zeroshot/id2label.json --model ViT-B-32 --pretrained openai",
    "dlcv zero-shot val id2label.json --model ViT-L-14 --pretrained ViT-L-14.pt --templates ensemble --csv found.csv",
    "dlcv zero-shot val id2label.json --model clip-vit-base-patch32/        (a folder of transformers)",
)


def zero_shot(
    images: Annotated[
        Path,
        Argument(metavar="IMAGES_DIR", help="with {label}_{n}.png; or emoji, emoji-woodcuts: small worlds' scenes"),
    ],
    labels: Annotated[
        Path | None, Argument(metavar="LABELS_JSON", help="id2label.json; beside them by default")
    ] = None,
    model: options.Clip = "emoji",
    pretrained: options.Pretrained = None,
    templates: options.Templates = "single",
    csv: Annotated[Path | None, Option(help="file for every prediction")] = None,
    right: Annotated[int, Option(help="cases to show that were read right", min=0, max=1000)] = 5,
    wrong: Annotated[int, Option(help="and cases that were not", min=0, max=1000)] = 5,
    seed: Annotated[int, Option(help="of the choice of cases", **SEED)] = 0,
    keep_underscores: Annotated[
        bool, Option("--keep-underscores", help="do not read willow_tree as two words")
    ] = False,
    quick_gelu: options.QuickGelu = None,
    batch_size: Annotated[int, Option(help="images at a time", **IMAGES)] = 64,
    device: options.Device = None,
    fast: options.Fast = False,
) -> None:
    """Classify pictures by the names of their classes, with CLIP."""
    from ..zero_shot import classify, load_clip, load_pictures, read_templates

    chosen = templates if templates in ("single", "ensemble") else read_templates(templates)
    pictures = load_pictures(images, labels, keep_underscores=keep_underscores)  # before weights are read
    taken = csv is not None and csv.is_file() and csv.suffix.lower() != ".csv"
    check(not taken, f"'{csv}' is there and is no CSV; give the predictions another name, such as predictions.csv")
    clip = load_clip(model, pretrained, device, quick_gelu=quick_gelu)
    with nullcontext() if csv is None else atomic_write(csv) as table:  # what cannot be written is found out now
        found = classify(clip, pictures, templates=chosen, batch_size=batch_size, fast=fast, progress=True)
        if table is not None:
            found.write_csv(table)
    print(found)
    if right or wrong:
        print(f"\ncases, by seed {seed}:\n{found.report_table(right, wrong, seed)}")
    if csv is not None:
        print(f"\nevery prediction: {csv}")
