"""Faces from a folder or a zip of pictures: cropped to a square, resized, grey or in colour."""

import io
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from ..errors import check
from ..images.arrays import ImageArrays
from ..images.folders import picture_names, read_pictures
from ..images.pictures import MAX_SIDE, REPLACE, fit_square, open_picture

SPLITS = ("train", "held_out", "all")
HELD_OUT_EVERY = 10  # the last of every so many pictures, in the order of their names, is held out


def load_faces(source: str | Path, split: str = "train", *, size: int = 64, channels: int = 1) -> ImageArrays:
    """Every picture below a folder or inside a zip, in the order of their names, as images uint8 (N, C, size, size).

    - split: "train"; "held_out", every tenth picture, unless a training picture is the same file byte for byte; or
      "all". Names do not tell who is on a picture, so a person may be on both sides.
    - size: pixels a side, 1 to 4096; a picture is cut to its middle square and resized (antialiased).
    - channels: 1 (grey) or 3 (RGB).
    - Labels are 0: an unconditional model looks at none.

    Raises `UserError` for a missing or broken source, or one of fewer pictures than a split needs.

    >>> load_faces("faces64.zip", "held_out")   # doctest: +SKIP
    ImageArrays(1200 images (1, 64, 64), 1 classes)
    """
    check(split in SPLITS, f"unknown split '{split}'; choose one of {', '.join(SPLITS)}")
    check(channels in (1, 3), f"faces have 1 (grey) or 3 (RGB) channels, not {channels}")
    check(1 <= size <= MAX_SIDE, f"faces cannot have a side of {size} pixels; choose one from 1 to {MAX_SIDE}")
    names = picture_names(source)
    others = names[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    train = sorted({*names} - {*others})
    if split == "held_out":
        seen = set(_digests(source, train)) if others else set()
        others = [n for n, digest in zip(others, _digests(source, others), strict=True) if digest not in seen]
    names = {"train": train, "held_out": others, "all": names}[split]
    check(names, f"'{source}' has too few pictures for the split '{split}'; every tenth is held out")
    images = np.empty((len(names), channels, size, size), np.uint8)
    mode = "L" if channels == 1 else "RGB"
    for row, content in enumerate(read_pictures(source, names)):
        picture = open_picture(io.BytesIO(content), REPLACE, f"{source}/{names[row]}", mode=mode, upright=True)
        images[row] = fit_square(picture, size)
    return ImageArrays(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64))


def _digests(source: str | Path, names: list[str]) -> Iterator[bytes]:
    return (sha256(content).digest() for content in read_pictures(source, names))
