"""Digits of the homework's Problem 1: four doors to one dataset, 3×28×28, labels 0-9 MNIST-M and 10-19 the other half.

The other half is SVHN where SVHN is to be had (the course's folder, torchvision's download), and elsewhere the street
digits that stand in for it. `svhn=True` is the switch.
"""

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import UserError, check
from ..images.arrays import ImageArrays, place_in_class, spread
from ..images.folders import picture_names
from ..images.pictures import read_digits, shrink
from ..reading import reading
from .course import HALF_FOLDERS, digits_folder, hw2_half
from .mnist_m import load_photos, mnist_m

SAMPLE = Path(__file__).parents[1] / "assets" / "digits_sample.webp"
SOURCES = ("sample", "torchvision", "street")
"""Sources that are no path."""
SAMPLE_COLUMNS, SAMPLE_HELD_OUT = 200, 40
"""Tiles in each of the sample's 20 rows, and how many of them, the last, are held out."""


def load_digits(
    source: str | Path = "sample",
    *,
    split: str = "train",
    svhn: bool = False,
    root: str | Path | None = None,
    photos: str | Path | Sequence[np.ndarray] | None = None,
    fonts: Sequence[str | Path] = (),
    labels: Sequence[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    download: bool = True,
    processes: int = 1,
) -> ImageArrays:
    """The digits of a source: images (N, 3, 28, 28) uint8, labels 0-9 MNIST-M and 10-19 SVHN or street digits.

    source
        - `"sample"`: the 4,000 embedded images; nothing is downloaded.
        - `"torchvision"`: MNIST from torchvision's download in `root`, made into MNIST-M with `photos`.
        - `"street"`: street digits alone, rendered with the fonts of this machine (`fonts`: folders of others).
        - a path: the course's `hw2_data`, an `.npz` with `images` and `labels`, a folder of `digits_train.npz` and
          `digits_held_out.npz`, or a folder or zip of pictures by class (`7/*.png`, `svhn/7/*.png`, `svhn/7_001.png`;
          of labels 10-19 where the folder that is given is called `svhn` or `street` itself).
    split
        `"train"` or `"held_out"`. A source without a split of its own holds out every tenth image of each class.
    svhn
        True: labels 10-19 are the real SVHN, from torchvision's download in `root` if the source has none.
        False: what the source has, which is street digits for "sample" and "torchvision".
    photos
        A folder or zip of photographs, or arrays (H, W, 3) uint8, for MNIST-M's backgrounds.
    labels
        Only the images of these labels, such as [10, 11, 17].
    limit
        At most so many images of each half, spread over its classes.

    Raises `UserError` that says what is missing or wrong, where, and what to do; `root` and `photos` that a source does
    not use are refused.

    >>> load_digits("sample", split="held_out")
    ImageArrays(800 images (3, 28, 28), 20 classes)
    """
    check(split in ("train", "held_out"), f"no such split: {split!r}; there are 'train' and 'held_out'")
    check(limit is None or limit >= 1, f"limit is {limit}; it must be at least 1")
    check(seed >= 0, f"seed is {seed}; it must be at least 0")
    for label in () if labels is None else labels:
        check(label in range(20), f"there is no label {label!r}; labels are whole numbers from 0 to 19")
    name, has_svhn = str(source), False
    check(name, f"the data has no name; give a folder, an .npz or one of {', '.join(SOURCES)}")
    course = digits_folder(name) if name not in SOURCES else None
    _check_used("photos", photos is None or (name != "sample" and course is None), name)
    _check_used("root", root is None or name == "torchvision" or (svhn and course is None), name)
    if name == "torchvision" or (svhn and course is None):  # found out before anything is rendered
        check(root is not None, "torchvision's data needs a folder: give root (--root), of MNIST/ or train_32x32.mat")
    if name == "sample":
        data = embedded_sample(split)
    elif name == "torchvision":
        first = torchvision_mnist_m(root, _photographs(photos), split, seed=seed, download=download, limit=limit)
        data = first if svhn else joined(first, rendered(len(first), split, seed, fonts, photos, processes))
    elif name == "street":
        data = rendered(limit or 10_000, split, seed, fonts, photos, processes)
    elif course is not None:
        data, has_svhn = joined(*(hw2_half(course, half, split, limit) for half in HALF_FOLDERS)), True
    else:
        data = local_digits(name, split, photos=photos, seed=seed)
    if svhn and not has_svhn:
        data = joined(data.subset(data.labels < 10), torchvision_svhn(root, split, download=download, limit=limit))
    if labels is not None:
        data = data.subset(torch.isin(data.labels, torch.tensor([int(label) for label in labels], dtype=torch.int64)))
        check(len(data), f"the data '{source}' has no image of the labels {list(labels)}; choose others")
    return data if limit is None else limited(data, limit)


def embedded_sample(split: str = "train") -> ImageArrays:
    """The images inside the package: 3,200 to train on, 800 held out, as many of each of the 20 classes.

    >>> embedded_sample("train")
    ImageArrays(3200 images (3, 28, 28), 20 classes)
    """
    with Image.open(SAMPLE) as image:
        sheet = np.asarray(image.convert("RGB"))
    tiles = sheet.reshape(20, 28, SAMPLE_COLUMNS, 28, 3).transpose(0, 2, 4, 1, 3)
    edge = SAMPLE_COLUMNS - SAMPLE_HELD_OUT
    tiles = tiles[:, :edge] if split == "train" else tiles[:, edge:]
    labels = torch.arange(20).repeat_interleave(tiles.shape[1])
    return ImageArrays(torch.from_numpy(tiles.reshape(-1, 3, 28, 28).copy()), labels)


def rendered(
    count: int,
    split: str,
    seed: int,
    fonts: Sequence[str | Path] = (),
    photos: str | Path | Sequence[np.ndarray] | None = None,
    processes: int = 1,
) -> ImageArrays:
    """`count` street digits, labels 10-19, from the fonts of this machine or of the folders `fonts`.

    >>> rendered(20, "train", seed=0)   # doctest: +SKIP
    ImageArrays(20 images (3, 28, 28), 10 classes)
    """
    from .fonts import find_fonts
    from .street_digits import street_digits
    from .walls import SMALLEST_CROP

    pictures = _photographs(photos, SMALLEST_CROP) if photos is not None else ()
    stream = 2 * seed + (split == "held_out")  # held-out images never share a seed with the others
    images, digits = street_digits(count, stream, find_fonts(*fonts), pictures, processes=processes)
    return ImageArrays(torch.from_numpy(images), torch.from_numpy(digits + 10))


def torchvision_mnist_m(
    root: str | Path,
    photos: Sequence[np.ndarray],
    split: str = "train",
    *,
    seed: int = 0,
    download: bool = True,
    limit: int | None = None,
) -> ImageArrays:
    """MNIST-M (labels 0-9) from torchvision's MNIST in `root`: training set, or test set as "held_out".

    >>> torchvision_mnist_m("data", load_photos("BSDS300"))   # doctest: +SKIP
    ImageArrays(60000 images (3, 28, 28), 10 classes)
    """
    from torchvision.datasets import MNIST

    mnist = _torchvision(MNIST, root, download, train=split == "train")
    rows = spread(mnist.targets, limit)
    return ImageArrays(torch.from_numpy(mnist_m(mnist.data[rows].numpy(), photos, seed)), mnist.targets[rows])


def torchvision_svhn(
    root: str | Path, split: str = "train", *, download: bool = True, limit: int | None = None
) -> ImageArrays:
    """The real SVHN (labels 10-19), cropped digits, 32×32 made 28×28 with antialiasing; the test set is "held_out".

    >>> torchvision_svhn("data")   # doctest: +SKIP
    ImageArrays(73257 images (3, 28, 28), 10 classes)
    """
    from torchvision.datasets import SVHN

    svhn = _torchvision(SVHN, root, download, split="train" if split == "train" else "test")
    labels = torch.as_tensor(svhn.labels, dtype=torch.int64)
    rows = spread(labels, limit)
    return ImageArrays(shrink(torch.from_numpy(svhn.data)[rows]), labels[rows] + 10)


def _torchvision(dataset: type, root: str | Path, download: bool, **options: object):
    try:
        return dataset(str(root), download=download, **options)
    except Exception as error:  # torchvision raises whatever the network, the disk or the file gave it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice = "put its files there, let it download them, or use source 'sample'"
        raise UserError(f"torchvision has no {dataset.__name__} in '{root}' ({reason}); {advice}") from error


def local_digits(
    path: str | Path, split: str = "train", *, photos: str | Path | Sequence[np.ndarray] | None = None, seed: int = 0
) -> ImageArrays:
    """Digits of any local folder or `.npz`, as `load_digits` describes them.

    A folder of `digits_train.npz` and `digits_held_out.npz` is split already; of a single file, or of pictures, every
    tenth image of each class is held out. Raises `UserError` as `load_digits` does.

    >>> local_digits("data")   # a folder of digits_train.npz   # doctest: +SKIP
    ImageArrays(120000 images (3, 28, 28), 20 classes)
    >>> local_digits("data/digits_train.npz")   # doctest: +SKIP
    ImageArrays(108000 images (3, 28, 28), 20 classes)
    """
    path = Path(path)
    prepared = path / f"digits_{split}.npz"
    if os.path.isfile(prepared):
        return _npz(prepared, photos, seed)
    if os.path.isfile(path) and not _zip_of_pictures(path):
        data = _npz(path, photos, seed)
        return data.subset(split_rows(data.labels, split, path))
    names = picture_names(path, advice="give hw2_data, an .npz, or pictures named as '7/a.png' or 'svhn/7_001.png'")
    _check_used("photos", photos is None, path)
    labels = torch.tensor([_label(path, name) for name in names])
    rows = split_rows(labels, split, path)
    return ImageArrays(read_digits(path, [names[row] for row in rows.tolist()]), labels[rows])


def second_half(source: str | Path, *, svhn: bool = False) -> str:
    """What labels 10-19 of a source are known to show: "SVHN", "street digits", or else "second half".

    SVHN are torchvision's download and the course's layout; street digits are what this package makes: the sources of
    `SOURCES` and the files of `tools/make_digits_data.py`. A folder that is called `svhn` can hold anything.

    >>> second_half("sample")
    'street digits'
    """
    if svhn or (str(source) not in SOURCES and digits_folder(source) is not None):
        return "SVHN"
    path, ours = Path(source), ("digits_train.npz", "digits_held_out.npz")
    made = str(source) in SOURCES or path.name in ours or any(os.path.isfile(path / name) for name in ours)
    return "street digits" if made else "second half"


def _zip_of_pictures(path: Path) -> bool:
    """Whether a file is a zip, by its suffix or else its content, and not an .npz, which is a zip of arrays."""
    if path.suffix.lower() in (".zip", ".npz") or not zipfile.is_zipfile(path):
        return path.suffix.lower() == ".zip"
    with reading(path, "is not a zip of pictures", "give another"), zipfile.ZipFile(path) as archive:
        return "images.npy" not in archive.namelist()


def _label(source: str | Path, name: str) -> int:
    """The label that a path tells: `7/a.png`, `17/a.png`, `svhn/7/a.png`, `svhn/7_001.png`, `7_001.png`."""
    *folders, file = name.split("/")
    half = 10 if {"svhn", "street"} & {f.lower() for f in (Path(os.path.abspath(source)).stem, *folders)} else 0
    digits = [f for f in folders if re.fullmatch("[0-9]{1,9}", f)] or re.findall("^([0-9]{1,9})_", file)
    wanted = "name it as '7/a.png', 'svhn/7/a.png' or 'svhn/7_001.png'"
    check(digits, f"'{source}/{name}' has no class in its path; {wanted}")
    label = int(digits[-1])
    label += half if label < 10 else 0  # a folder 17 says it already
    check(label <= 19, f"'{source}/{name}' would have label {label}; labels are 0-9 (MNIST-M) and 10-19 (SVHN)")
    return label


def _npz(path: str | Path, photos: str | Path | Sequence[np.ndarray] | None, seed: int) -> ImageArrays:
    fault = "is not an .npz with 'images' and 'labels', or it is damaged"
    with reading(path, fault, "write it with numpy.savez"), open(path, "rb") as file, np.load(file) as arrays:
        images, labels = (np.asarray(arrays[name]) for name in ("images", "labels"))
    held = f"'{path}' holds images {images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}"
    fits = images.ndim in (3, 4) and images.dtype == np.uint8 and labels.shape == images.shape[:1]
    numbers = labels.dtype.kind in "iuf"
    check(fits and numbers, f"{held}; there should be uint8 (N, 3, 28, 28) or (N, 28, 28), and as many labels, numbers")
    check(len(images), f"'{path}' holds no image")
    grey = images.ndim == 3
    if not grey and images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    top = 9 if grey else 19
    wrong = labels[~np.isin(labels, range(top + 1))][:1]
    check(not len(wrong), f"'{path}' has the label {wrong}; labels must be whole numbers, 0-{top}")
    fits = images.shape[-2:] in ((28, 28), (32, 32)) and (grey or images.shape[1] == 3)
    check(fits, f"'{path}' holds images of shape {images.shape[1:]}; digits must be 28×28 or 32×32, in RGB")
    _check_used("photos", grey or photos is None, path)
    images = mnist_m(images, _photographs(photos, images.shape[-1]), seed) if grey else np.ascontiguousarray(images)
    return ImageArrays(shrink(torch.from_numpy(images)), torch.from_numpy(labels.astype(np.int64)))


def split_rows(labels: torch.Tensor, split: str, source: str | Path) -> torch.Tensor:
    """Which rows of a set without a split of its own belong to a split: every tenth of each class is held out.

    Raises `UserError` where none does.

    >>> split_rows(torch.zeros(20), "held_out", "data")
    tensor([ 9, 19])
    """
    held_out = place_in_class(labels) % 10 == 9
    rows = torch.nonzero(held_out if split == "held_out" else ~held_out)[:, 0]
    check(len(rows), f"'{source}' has fewer than ten images of each class, so none is held out; add some")
    return rows


def limited(data: ImageArrays, limit: int) -> ImageArrays:
    """At most `limit` images of each half, spread over its classes.

    >>> limited(embedded_sample("train"), 10).labels.tolist() == list(range(20))
    True
    """
    halves = (torch.nonzero((data.labels >= 10) == half)[:, 0] for half in (False, True))
    return data.subset(torch.cat([rows[spread(data.labels[rows], limit)] for rows in halves]))


def joined(*parts: ImageArrays) -> ImageArrays:
    """Several sets as one, in their order.

    >>> joined(embedded_sample("train"), embedded_sample("held_out"))
    ImageArrays(4000 images (3, 28, 28), 20 classes)
    """
    return ImageArrays(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def _check_used(option: str, used: bool, source: str | Path) -> None:
    uses = {
        "root": "it is for the source 'torchvision' and for svhn (--svhn)",
        "photos": "it is for the sources 'torchvision' and 'street' and for an .npz of MNIST's grey digits",
    }[option]
    check(used, f"{option} (--{option}) does nothing for the data '{source}'; {uses}, so leave it out")


def _photographs(photos: str | Path | Sequence[np.ndarray] | None, least: int = 28) -> Sequence[np.ndarray]:
    wanted = "give photos (--photos), a folder or zip of pictures"
    check(photos is not None, f"MNIST-M needs photographs for its backgrounds; {wanted}")
    return load_photos(photos, least=least) if isinstance(photos, str | Path) else photos
