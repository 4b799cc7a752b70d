"""Measure a CLIP on the emoji world: scenes, pairs, a style, things and artists that it never saw.

    python tools/measure_clip.py --weights runs/clip/model.safetensors --out measured.json
    python tools/measure_clip.py --weights runs/clip_without_openmoji/model.safetensors --artists openmoji
    python tools/measure_clip.py --extra sixth=sixth_artist/          (a folder of fox.png, ice_cream_cone.png …)

Prints top-1 with chance beside it, and the calibration error, with one template and with the ensemble.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm.auto import tqdm

from dlcv_diffusion.emoji.scenes import FULL
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.errors import UserError, check
from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.zero_shot import load_clip
from dlcv_diffusion.zero_shot.measure import ask, markdown, questions, ranks_of_relatives
from dlcv_diffusion.zero_shot.measured import measured_clip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--weights", default="emoji", help="the name of shipped weights, a model file, or another CLIP's name or folder"
    )
    add("--pretrained", default=None, help="a tag or file of the weights of a CLIP that open_clip knows")
    add("--artists", nargs="*", default=[], help="artists that were not trained on, to be asked about on their own")
    add("--extra", nargs="*", default=[], metavar="NAME=FOLDER", help="further artists, asked about too")
    add("--count", type=int, default=2_000, help="pictures a question")
    add("--seed", type=int, default=1)
    add("--threads", default=torch.get_num_threads(), type=int)
    add("--device", default=None)
    add("--out", type=Path, default=None, help="JSON to add the rows to")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    old = measured_clip(args.out) if args.out and args.out.exists() else []
    extra = dict(each.partition("=")[::2] for each in args.extra)
    check(all(extra.values()), "--extra takes NAME=FOLDER, such as sixth=sixth_artist/")
    world, clip = load_world(extra or None), load_clip(args.weights, args.pretrained, args.device)
    trained = list(clip.facts.get("artists", FULL.artists))
    seen = [name for name in args.artists if name in trained and "artists" in clip.facts]
    check(not seen, f"'{clip.name}' was trained on {', '.join(seen)}; give artists that it does not know")
    unseen = [*args.artists, *extra]
    trained = [name for name in trained if name not in unseen]
    asked = tqdm(questions(unseen, trained), disable=None)
    rows = [ask(clip, world, question, args.count, args.seed) for question in asked]
    relatives = ranks_of_relatives(clip, world, min(args.count, 800), args.seed)
    print(f"{clip.name}, τ = {clip.temperature:.4f}\n\n{markdown(rows)}\n")
    for thing, found in relatives.items():
        print(f"{thing}: rank {found['own']}, a relative's {found['relative']}; read as {found['read_as']}")
    if args.out:
        new = [{"trained": trained, "seed": args.seed, **row} for row in rows]
        mine = [(row["trained"], row["question"]) for row in new]
        kept = [row for row in old if (row["trained"], row["question"]) not in mine]
        lines = ",\n".join(json.dumps(row) for row in (*kept, *new))
        with atomic_write(args.out) as temporary:
            temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
