"""Zero-shot classification against transformers' pipeline: the same weights, the same files, the same answers.

    python benchmarks/zero_shot.py --threads 2 --out benchmarks/results/zero_shot.md

Both open the files, classify all of them and give all probabilities. The pipeline is timed as it comes, one picture at
a time, and with our batch size. Weights are random, of two sizes: a small ViT, and one of ViT-B/32's, which no network
is needed for; the shipped CLIP has a ResNet, which transformers does not have, and is timed beside them alone.
"""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from side_by_side import Page, arguments, in_turns, machine, ratio, table

from dlcv_diffusion.emoji.clip_data import world_merges
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.errors import check
from dlcv_diffusion.models.clip.small import SmallClip, SmallClipConfig, build_small_clip
from dlcv_diffusion.models.clip.to_transformers import write_transformers_folder
from dlcv_diffusion.zero_shot import classify, load_clip, load_pictures
from dlcv_diffusion.zero_shot.pictures import Pictures, world_pictures
from dlcv_diffusion.zero_shot.templates import COURSE

BATCH = 64
VIT_B_32 = {"vision_layers": 12, "vision_width": 768, "head_width": 64, "patch_size": 32, "image_size": 224}
VIT_B_32 |= {"text_width": 512, "text_layers": 12, "text_heads": 8, "embed_dim": 512, "context": 77}
SMALL = {"vision_layers": 6, "vision_width": 192, "head_width": 48, "patch_size": 8, "context": 24}
TINY = {"vision_layers": 2, "vision_width": 32, "head_width": 16, "patch_size": 16, "context": 24}


def written(folder: Path, pictures: Pictures) -> Pictures:
    """The pictures as a folder in the course's layout, opened again from there."""
    for row, name in enumerate(pictures.files):
        pictures.read(row).save(folder / name)
    names = {str(label): name for label, name in enumerate(pictures.classes)}
    (folder / "id2label.json").write_text(json.dumps(names), encoding="utf-8")
    return load_pictures(folder)


def side_by_side(
    name: str, folder: Path, pictures: Pictures, paths: Sequence[Path], repeats: int, device: str
) -> list[list[str]]:
    """Rows of the table: ours, in float32 and `fast`, and the pipeline in two batch sizes, on one folder of weights."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    clip = load_clip(folder, device=device)
    theirs = pipeline("zero-shot-image-classification", str(folder), device=device)
    words = {"candidate_labels": list(pictures.classes), "hypothesis_template": COURSE}
    files, found = [str(path) for path in paths], {}

    def ours(fast: bool = False) -> None:
        found["ours"] = classify(clip, pictures, batch_size=BATCH, fast=fast)

    def pipe(batch_size: int) -> None:
        found["theirs"] = theirs(files, batch_size=batch_size, **words)

    jobs = {"transformers' pipeline, one at a time": lambda: pipe(1)}
    jobs |= {f"transformers' pipeline, {BATCH} at a time": lambda: pipe(BATCH)}
    jobs |= {f"ours, {BATCH} at a time, fast": lambda: ours(fast=True), f"ours, {BATCH} at a time": ours}
    seconds = in_turns(jobs, repeats)
    ours(), pipe(BATCH)
    p = [{each["label"]: each["score"] for each in answer} for answer in found["theirs"]]
    p = torch.tensor([[answer[label] for label in pictures.classes] for answer in p])
    apart = (p - found["ours"].probabilities).abs().max().item()
    check(apart < 1e-4, f"ours and the pipeline's probabilities differ by {apart:.1e}; they should be the same")
    reference = seconds[f"transformers' pipeline, {BATCH} at a time"]
    rows = []
    for job, taken in seconds.items():
        rate = len(paths) / statistics.median(taken)
        rows.append([name, job, f"{rate:,.0f}", f"{1 / ratio(taken, reference):.2f} ×"])
    rows[-1].append(f"{apart:.0e}")
    return [[*row, ""][:5] for row in rows]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], repeats=3)
    parser.add_argument("--device", default="cpu", help="cpu, by default, or cuda")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    page, world = Page(args.out), load_world()
    count, sizes = (12, {"tiny": TINY}) if args.quick else (200, {"small ViT": SMALL, "ViT-B/32": VIT_B_32})
    repeats = 1 if args.quick else args.repeats
    merges = world_merges(world, 50 if args.quick else 4_000)
    drawn, _ = world_pictures(world, "unseen", 20 * count, seed=0)
    classes = drawn.classes[: count // 4]  # 50, as the course has
    rows_of = [row for row in range(len(drawn)) if int(drawn.labels[row]) < len(classes)][:count]
    few = drawn.subset(rows_of)
    asked = Pictures(few.files, few.labels, classes, few.read)
    words = f"{len(asked)} PNG files of 64×64 (a fifth of them for ViT-B/32), {len(classes)} classes"
    words += f", medians of {repeats} rounds"
    page.add(f"# Zero-shot classification\n\n{machine(args.device)}\n\n{words}")
    rows = []
    with TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        images.mkdir()
        opened = written(images, asked)
        paths = [images / name for name in opened.files]
        for name, size in sizes.items():
            config, folder = SmallClipConfig(**size), Path(scratch) / name.replace("/", "_")
            write_transformers_folder(SmallClip(build_small_clip(config, merges), config, merges, {}), folder)
            few = range(len(paths) // (5 if name == "ViT-B/32" else 1))  # the pipeline reads all names for each picture
            rows += side_by_side(name, folder, opened.subset(few), paths[: len(few)], repeats, args.device)
        if not args.quick:
            clip = load_clip("emoji", device=args.device)
            jobs = {"ours": lambda: classify(clip, opened), "ours, fast": lambda: classify(clip, opened, fast=True)}
            for job, taken in in_turns(jobs, repeats).items():
                rows.append(["shipped (ResNet)", job, f"{len(paths) / statistics.median(taken):,.0f}", "", ""])
    header = ["weights", "", "images/s", "times as fast", "probabilities apart, at most"]
    page.add(table(header, rows, text=2))
    page.close()


if __name__ == "__main__":
    main()
