"""What `torch.save` wrote, loaded so that nothing in it can run."""

import os
from pathlib import Path
from typing import Any

import torch

from .errors import check
from .reading import reading


class Ignored:
    """Stands for a number or array of numpy, or an option, that was saved beside the weights; nothing of it is run."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


IGNORED = """
    numpy.dtype numpy.ndarray numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct
    numpy._core.multiarray.scalar numpy._core.multiarray._reconstruct argparse.Namespace
    pathlib.PosixPath pathlib.WindowsPath pathlib._local.PosixPath pathlib._local.WindowsPath
"""


def load_tensors(path: str | Path, what: str, advice: str = "write it again with torch.save") -> Any:
    """Whatever a `.pt`/`.pth` file holds, on the CPU; `weights_only=True` refuses all but tensors and plain Python.

    What lies beside them of numpy, or as options of a command line, is `Ignored`.

    - what: what it should hold, such as "a tensor", for the sentence "'x.pt' is not a whole .pt file of a tensor".

    Raises `UserError` for a file that is missing, may not be read, is damaged or foreign.

    >>> load_tensors("hw2_data/face/noise/00.pt", "a tensor").shape   # doctest: +SKIP
    torch.Size([1, 3, 256, 256])
    """
    with reading(path, f"is not a whole .pt file of {what}", advice):
        os.stat(path)
        check(os.path.isfile(path), f"'{path}' is not a file; {advice}")
        with torch.serialization.safe_globals([(Ignored, name) for name in IGNORED.split()]):
            return torch.load(path, map_location="cpu", weights_only=True)
