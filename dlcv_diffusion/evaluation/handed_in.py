"""Pictures that are handed in to be graded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..images.pictures import open_picture


def first_of(names: Sequence[str]) -> str:
    """The first name and how many more there are, for a sentence.

    >>> first_of(["0_001.png", "0_002.png"])
    "'0_001.png' and 1 more"
    """
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"'{''.join(names[:1])}'{more}"


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, grey pictures as RGB. Raises `UserError` for what is no picture."""
    return np.asarray(open_picture(path, "write it again as PNG"))
