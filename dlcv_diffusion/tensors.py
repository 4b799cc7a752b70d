"""What `torch.save` wrote, loaded so that nothing in it can run."""

import os
from pathlib import Path
from typing import Any

import torch

from .errors import check
from .reading import reading


def load_tensors(path: str | Path, what: str, advice: str = "write it again with torch.save") -> Any:
    """Whatever a `.pt`/`.pth` file holds, on the CPU; `weights_only=True` refuses all but tensors and plain Python.

    - what: what it should hold, such as "a tensor", for the sentence "'x.pt' is not a whole .pt file of a tensor".

    Raises `UserError` for a file that is missing, may not be read, is damaged or foreign.

    >>> load_tensors("hw2_data/face/noise/00.pt", "a tensor").shape   # doctest: +SKIP
    torch.Size([1, 3, 256, 256])
    """
    with reading(path, f"is not a whole .pt file of {what}", advice):
        os.stat(path)
        check(os.path.isfile(path), f"'{path}' is not a file; {advice}")
        return torch.load(path, map_location="cpu", weights_only=True)
