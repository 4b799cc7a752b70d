"""The course's own layout: `hw2_data/digits/{mnistm,svhn}` with `data/*.png`, `train.csv` and `val.csv`."""

import csv
import io
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

from ..errors import check
from ..images.arrays import ImageArrays, spread
from ..images.folders import PICTURE_SUFFIXES
from ..images.pictures import read_digits
from ..reading import reading

HALF_FOLDERS = ("mnistm", "svhn")
"""Folder names of label // 10."""

SPLITS = {"train": ("train.csv",), "held_out": ("val.csv", "test.csv")}
NAMES = ("image_name", "image", "image_path", "img", "filename", "file_name", "file", "name", "path")
LABELS = ("label", "labels", "class", "digit", "target", "y")
INDEX = re.compile(r"|index|unnamed: .*")
"""What columns are called that hold file names, labels, and pandas' row numbers; the course's own word comes first."""

WHOLE = re.compile(r"([+-]?\d{1,9})(\.0*)?")


def digits_folder(folder: str | Path) -> Path | None:
    """The course's folder of `mnistm/` and `svhn/`, known by a list in one of them: the one given, or `digits/` in it.

    None where neither is; a half that is missing is told by `hw2_half`.

    >>> digits_folder("no/such/folder") is None
    True
    """
    lists = [Path(half, name) for half in HALF_FOLDERS for names in SPLITS.values() for name in names]
    places = (Path(folder) / "digits", Path(folder))
    return next((place for place in places if any(os.path.isfile(place / name) for name in lists)), None)


def read_list(path: str | Path) -> list[tuple[str, int]]:
    """The rows `(file name, label 0-9)` of one of the course's CSV files, whose first row is a header.

    What pandas writes is read: columns in any order that are known by `NAMES` and `LABELS` (other names: just two), its
    index column, labels such as "7.0", quotes, commas, semicolons or tabs, any line ends.

    Raises `UserError` where the file is missing, has no header, no row, a row too short or a label that is none.

    >>> read_list("hw2_data/digits/svhn/train.csv")[0]   # doctest: +SKIP
    ('00000.png', 1)
    """
    with reading(path, "is not a CSV file in UTF-8", "the course's folder has one beside data/"):
        text = Path(path).read_bytes().decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
    lines, rows = io.StringIO(text, newline=""), None
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    with suppress(csv.Error):
        rows = [(reader.line_num, row) for row in reader]
    wrong = reader.line_num if rows is None else next((n for n, row in rows if re.search(r"[\r\n]", "".join(row))), 0)
    fault = 'a quote (") is not closed or in the wrong place, or a cell is too long or has a line break'
    check(not wrong, f"'{path}', line {wrong}: {fault}; mend it")
    rows = [(line, [cell.strip() for cell in row]) for line, row in rows if "".join(row).strip()]
    check(rows, f"'{path}' lists no picture")
    name_column, label_column = _columns(path, rows[0][1])
    listed = []
    for line, row in rows[1:]:
        name, label = (row[column] if column < len(row) else "" for column in (name_column, label_column))
        whole = WHOLE.fullmatch(label)
        check(name and whole, f"'{path}', line {line}: {delimiter.join(row)[:80]!r} is not 'file name,label'")
        number = int(whole[1])
        check(0 <= number <= 9, f"'{path}', line {line}: label {number} of '{name}' is not a digit 0-9")
        listed.append((name, number))
    check(listed, f"'{path}' lists no picture")
    return listed


def _columns(path: str | Path, header: list[str]) -> tuple[int, int]:
    """Which columns hold the file names and the labels: the course's own words win, of others there must be one."""
    columns = {number: cell.lower() for number, cell in enumerate(header) if not INDEX.fullmatch(cell.lower())}
    begins, wanted = f"'{path}' begins with {','.join(header)[:80]!r}", "a header such as 'image_name,label'"
    data = any(cell.endswith(PICTURE_SUFFIXES) or WHOLE.fullmatch(cell) for cell in columns.values())
    check(len(columns) > 1 and not data, f"{begins}; its first line must be {wanted}")
    found = []
    for known in (NAMES, LABELS):
        fits = [n for n in columns if columns[n] == known[0]] or [n for n in columns if columns[n] in known]
        check(len(fits) <= 1, f"{begins}: {[header[n] for n in fits]} may all hold the {known[0]}; call only one so")
        check(fits or len(columns) == 2, f"{begins}: which column holds the {known[0]} is not known; give {wanted}")
        found.append(fits[0] if fits else None)
    others = (number for number in columns if number not in found)
    return tuple(next(others) if number is None else number for number in found)


def hw2_half(folder: str | Path, half: str, split: str = "train", limit: int | None = None) -> ImageArrays:
    """`mnistm` (labels 0-9) or `svhn` (labels 10-19) of the course's digits, split "train" or "held_out" (`val.csv`).

    `folder` is `hw2_data/digits`. Raises `UserError` for whatever is missing or wrong, by its file name and line.

    >>> hw2_half("hw2_data/digits", "svhn", "held_out")   # doctest: +SKIP
    ImageArrays(18251 images (3, 28, 28), 10 classes)
    """
    home = Path(folder) / half
    check(os.path.isdir(home), f"no such folder: '{home}'; the course's digits/ has {' and '.join(HALF_FOLDERS)} in it")
    lists = [home / name for name in SPLITS[split]]
    listed = read_list(next((path for path in lists if os.path.isfile(path)), lists[0]))
    names, labels = zip(*listed, strict=True)
    rows = spread(torch.tensor(labels), limit)
    images = read_digits(home / "data", [names[row] for row in rows.tolist()])
    return ImageArrays(images, torch.tensor(labels)[rows] + 10 * HALF_FOLDERS.index(half))
