"""Pack sample grids of a training run into the film of the package: the same noises as the weights grew.

    python tools/make_milestones.py runs/digits/samples        # writes dlcv_diffusion/assets/digits_milestones.png

Takes the previews that `dlcv train digits` writes (rows are digits; left half MNIST-M, right half street digits).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from dlcv_diffusion.digits.measured import MILESTONES
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.figures import png_bytes, tile
from dlcv_diffusion.files import atomic_write

STEPS = (500, 1000, 1500, 2000, 3000, 4000, 6000)
LABELS = (0, 3, 5, 8, 10, 13, 15, 18)
SIDE = 28


def cells(path: Path) -> np.ndarray:
    """The cells of a preview, (10, columns, 3, 28, 28) uint8; whatever the width of the lines between them."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    gap = (sheet.shape[0] - 10 * SIDE) // 11
    columns = (sheet.shape[1] - gap) // (SIDE + gap)
    pitch = SIDE + gap
    sheet = sheet[gap:, gap:]
    rows = [[sheet[r * pitch :, c * pitch :][:SIDE, :SIDE] for c in range(columns)] for r in range(10)]
    return np.array(rows).transpose(0, 1, 4, 2, 3)


def chosen(grid: np.ndarray) -> np.ndarray:
    """One cell for each of `LABELS`, another noise for each."""
    noises = grid.shape[1] // 2
    picked = [grid[label % 10, label // 10 * noises + place % noises] for place, label in enumerate(LABELS)]
    return np.array(picked)


def pack(pictures: dict[int, np.ndarray], path: Path) -> None:
    """{step: (labels, 3, 28, 28)} as one PNG without gaps; steps and labels stand in its metadata."""
    facts = {"steps": list(pictures), "labels": list(LABELS)}
    sheet = tile(np.concatenate(list(pictures.values())), columns=len(LABELS), gap=0)
    with atomic_write(path) as temporary:
        temporary.write_bytes(png_bytes(sheet, {"Facts": json.dumps(facts)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="the folder samples/ of a run")
    parser.add_argument("--out", default=MILESTONES, type=Path)
    args = parser.parse_args()
    there = {int(path.stem.removeprefix("step_")): path for path in sorted(args.samples.glob("step_*.png"))}
    if not there:
        raise UserError(f"no previews in '{args.samples}'; give the folder samples/ of a run")
    steps = [step for step in STEPS if step in there and step < max(there)] + [max(there)]
    pack({step: chosen(cells(there[step])) for step in steps}, args.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
