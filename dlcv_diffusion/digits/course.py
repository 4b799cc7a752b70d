"""The course's own layout: `hw2_data/digits/{mnistm,svhn}` with `data/*.png`, `train.csv` and `val.csv`."""

import csv
from pathlib import Path

import torch

from ..errors import UserError
from ..images.arrays import ImageArrays, spread
from ..images.pictures import read_digits

HALVES = ("mnistm", "svhn")
"""Folder names of label // 10."""

SPLITS = {"train": ("train.csv",), "held_out": ("val.csv", "test.csv")}


def digits_folder(folder: str | Path) -> Path | None:
    """The course's folder of `mnistm/` and `svhn/`, known by a list in one of them: the one given, or `digits/` in it.

    None where neither is; a half that is missing is told by `hw2_half`.

    >>> digits_folder("no/such/folder") is None
    True
    """
    for candidate in (Path(folder) / "digits", Path(folder)):
        if any((candidate / half / name).is_file() for half in HALVES for names in SPLITS.values() for name in names):
            return candidate
    return None


def read_list(path: str | Path) -> list[tuple[str, int]]:
    """The rows `(file name, label 0-9)` of one of the course's CSV files, whose first row is a header.

    Raises `UserError` where the file is missing, has no header, no row, a row too short or a label that is none.

    >>> read_list("hw2_data/digits/svhn/train.csv")[0]   # doctest: +SKIP
    ('00000.png', 1)
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except FileNotFoundError as error:
        raise UserError(f"no such list of pictures: '{path}'; the course's folder has it beside data/") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read as a CSV file: {error}") from error
    if rows and (len(rows[0]) < 2 or rows[0][1].strip().lstrip("-").isdigit()):
        raise UserError(
            f"'{path}' begins with {','.join(rows[0])!r}; its first row must be a header such as 'image_name,label'"
        )
    listed = []
    for line, row in enumerate(rows[1:], start=2):
        try:
            name, label = row[0].strip(), int(row[1])
        except (IndexError, ValueError) as error:
            raise UserError(f"'{path}', row {line}: {','.join(row)!r} is not 'file name,label'") from error
        if not 0 <= label <= 9:
            raise UserError(f"'{path}', row {line}: label {label} of '{name}' is not a digit 0-9")
        listed.append((name, label))
    if not listed:
        raise UserError(f"'{path}' lists no picture")
    return listed


def hw2_half(folder: str | Path, half: str, split: str = "train", limit: int | None = None) -> ImageArrays:
    """`mnistm` (labels 0-9) or `svhn` (labels 10-19) of the course's digits, split "train" or "held_out" (`val.csv`).

    `folder` is `hw2_data/digits`. Raises `UserError` for whatever is missing or wrong, by its file name and row.

    >>> hw2_half("hw2_data/digits", "svhn", "held_out")   # doctest: +SKIP
    ImageArrays(18251 images (3, 28, 28), 10 classes)
    """
    home = Path(folder) / half
    if not home.is_dir():
        raise UserError(f"no such folder: '{home}'; the course's digits/ has {' and '.join(HALVES)} in it")
    lists = [home / name for name in SPLITS[split]]
    listed = read_list(next((path for path in lists if path.is_file()), lists[0]))
    if limit is not None:
        listed = [listed[row] for row in spread(torch.tensor([label for _, label in listed]), limit).tolist()]
    images = read_digits([home / "data" / name for name, _ in listed])
    offset = 10 * HALVES.index(half)
    return ImageArrays(images, torch.tensor([label + offset for _, label in listed]))
