"""Folders of pictures that are handed in to be graded, and what operating systems leave in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import check
from ..images.pictures import read_rgb

LITTER = ("thumbs.db", "desktop.ini")
"""What Windows leaves in folders; ignored as hidden files are."""


def names_in(folder: Path, holds: str) -> list[str]:
    """The names in a folder, sorted, without hidden files and `LITTER`.

    Raises `UserError`, "give the one that holds …", where there is no such folder.

    >>> names_in(Path("hw2_data/face/GT"), "the course's images")   # doctest: +SKIP
    ['00.png', '01.png', '02.png']
    """
    check(folder.is_dir(), f"no such folder: '{folder}'; give the one that holds {holds}")
    names = (path.name for path in folder.iterdir())
    return sorted(name for name in names if not name.startswith(".") and name.lower() not in LITTER)


def first_of(names: Sequence[str]) -> str:
    """The first name and how many more there are, for a sentence.

    >>> first_of(["0_001.png", "0_002.png"])
    "'0_001.png' and 1 more"
    """
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{''.join(names[:1])}'{more}"


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, grey pictures as RGB. Raises `UserError` for what is no picture."""
    check(path.exists(), f"'{path}' is a link to a picture that is not there; copy the picture")
    return read_rgb(path, "write it again as PNG")
