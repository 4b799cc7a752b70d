"""How long a scene of the emoji world takes one CPU thread: drawn and rendered, plain and in each style.

python benchmarks/emoji.py --out benchmarks/results/emoji.md
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from side_by_side import Page, machine, table

from dlcv_diffusion.emoji.scenes import KINDS, random_scene, render
from dlcv_diffusion.emoji.splits import scene
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import load_world


def milliseconds(job, arguments) -> float:
    """Median over the arguments of the processor's time for one call, after a round to warm up."""
    for argument in arguments:
        job(argument)
    seconds = []
    for argument in arguments:
        start = time.process_time()
        job(argument)
        seconds.append(time.process_time() - start)
    return 1000 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=300, help="scenes of each kind and style")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few scenes: does the script run?")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    count, page, world = 5 if args.quick else args.repeats, Page(args.out), load_world()
    page.add(f"# Scenes of the emoji world\n\n{machine()}; the processor's time, medians of {count} scenes")
    rows = []
    for kind in KINDS[:3]:
        drawn = milliseconds(lambda i, kind=kind: scene(world, "train", i, 0, kinds={kind: 1}), range(count))
        shown = [scene(world, "train", i, 0, kinds={kind: 1}) for i in range(count)]
        rows.append([kind, f"{drawn:.2f}", f"{milliseconds(lambda each: render(world, each), shown):.2f}"])
    page.add(table(["kind", "drawing a scene, ms", "rendering it, ms"], rows))
    rows = []
    for style in STYLES:
        shown = [random_scene(world, seed, style=style) for seed in range(count)]
        rows.append([style, f"{milliseconds(lambda each: render(world, each), shown):.1f}"])
    page.add(table(["style", "rendering, ms"], rows))
    page.close()


if __name__ == "__main__":
    main()
