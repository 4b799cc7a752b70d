"""What `torch.save` wrote, loaded so that nothing in it can run."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import check
from .reading import reading

STATE_KEYS = ("state_dict", "model_state_dict", "ema_state_dict", "model", "net", "network", "unet")
STATE_KEYS += ("params", "params_ema", "ema", "ema_model")
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")


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


def load_tensors(path: str | Path, what: str, advice: str = "give another, made by torch.save") -> Any:
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


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a `.pt`/`.pth` file, or under one of `STATE_KEYS` in it, without wrappers' prefixes.

    Nothing in it is run (`weights_only=True`). Raises `UserError` for a missing, damaged or foreign file.

    >>> read_state_dict("hw2_data/face/UNet.pt")   # doctest: +SKIP
    """
    state = load_tensors(path, "plain tensors", "save model.state_dict() with torch.save")
    state = state if isinstance(state, dict) else {}
    for _ in STATE_KEYS:  # a damaged file may hold itself
        state = next((state[key] for key in STATE_KEYS if isinstance(state.get(key), dict)), state)
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor) and k != "n_averaged"}  # of an average
    check(tensors, f"'{path}' holds no state dict (a dict of tensors); save model.state_dict() with torch.save")
    for key, tensor in tensors.items():
        check(stored(tensor), f"'{key}' in '{path}' is no plain tensor, all of whose numbers are in the file")
    return unwrapped(tensors)


def stored(tensor: Tensor) -> bool:
    """Whether all of its numbers are there: a crafted one can be of any size, with a single number repeated."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefixes of compiled, parallel and averaged models.

    >>> unwrapped({"module._orig_mod.bias": torch.zeros(1)})
    {'bias': tensor([0.])}
    """
    return {WRAPPED.sub("", str(key)): value for key, value in state.items()}
