"""Measure a text-to-image model of the emoji world: does it draw what the prompt says, as the judge reads it?

    python tools/measure_text_to_image.py --model runs/text_to_image/model --out measured.json --sheet drawn.png

A hundred pictures of each kind of prompt: a thing on white, on a colour, in a style, next to another, and things in
styles that it never saw them in.
"""

import argparse
import json
from pathlib import Path

import torch

from dlcv_diffusion.emoji.drawn import markdown, measure_drawn, sheet_order
from dlcv_diffusion.emoji.judge import JUDGE, load_judge
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.models.text_to_image import load_text_to_image
from dlcv_diffusion.training.recipe import write_sheet


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="emoji", help="what ships, or a pipeline's folder")
    add("--judge", type=Path, default=JUDGE)
    add("--count", type=int, default=100, help="pictures of each kind")
    add("--scale", type=float, default=3.0)
    add("--steps", type=int, default=25)
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default=None)
    add("--out", type=Path, default=None, help="JSON to write")
    add("--sheet", type=Path, default=None, help="PNG of some of the pictures, 24 of each kind")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    sd, how = load_text_to_image(args.model, args.device), {"scale": args.scale, "steps": args.steps}
    judge, world = load_judge(args.judge), load_world()
    rows, images = measure_drawn(sd, judge, world, args.count, **how, seed=args.seed, progress=True)
    print(markdown(rows))
    if args.out:
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps([{"model": sd.name, **row} for row in rows], indent=1) + "\n")
    if args.sheet:
        write_sheet(sheet_order(images), args.sheet, columns=12)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
