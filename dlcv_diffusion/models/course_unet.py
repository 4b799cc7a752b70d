"""The course's face network: the class `UNet` in the user's own `UNet.py`, with the weights `UNet.pt`."""

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import check
from ..schedule import NoiseSchedule
from ..tensors import read_state_dict
from .foreign import foreign
from .registry import load_state

SHAPE = (3, 256, 256)
MEND = "mend it, or give another file"


def course_unet(unet_py: str | Path, weights: str | Path, *, shape: tuple[int, int, int] = SHAPE) -> Denoiser:
    """The course's `UNet.pt` in the network of the user's `UNet.py`, as a denoiser in eval mode on the CPU.

    The file `unet_py` is run, as `import` would: name only code that you trust. Of the weights nothing is run. The
    network gives ε as `net(x, t)`; its schedule is the course's, β linear 1e-4 → 2e-2 over 1,000 timesteps.

    Raises `UserError` for files that are missing, code that fails, now or when the network is asked, or has no `UNet`
    that is made without arguments and called with x and t, and weights that do not fit it.

    >>> denoise = course_unet("UNet.py", "hw2_data/face/UNet.pt")                        # doctest: +SKIP
    >>> face = last(ddim(denoise, seeded_noise((1, 3, 256, 256), [0]), denoise.schedule)).x   # doctest: +SKIP
    """
    network = _network(Path(unet_py))
    load_state(network, read_state_dict(weights), weights)
    return Denoiser(_Foreign(network).eval(), NoiseSchedule.linear(1000), shape=tuple(shape), name=Path(weights).stem)


def _network(path: Path) -> nn.Module:
    """`UNet()` of the user's file; what it imports from the files beside it, then too, is found."""
    check(os.path.isfile(path), f"no such file: '{path}'; give the course's UNet.py, which defines the network")
    with _importable(path.resolve().parent):
        made = getattr(_module(path), "UNet", None)
        check(made is not None, f"'{path}' has no class UNet; give the UNet.py that came with the weights")
        with foreign(f"UNet in '{path}' cannot be made without arguments", "give each of them a default"):
            inspect.signature(made).bind()
        with foreign(f"UNet() in '{path}' fails", MEND):
            network = made()
        what = type(network).__name__
        check(isinstance(network, nn.Module), f"UNet in '{path}' makes a {what}; it must be a torch.nn.Module")
        with foreign(f"UNet in '{path}' cannot be called as net(x, t)", "give the course's UNet.py"):
            inspect.signature(network.forward).bind("x", "t")
        return network


def _module(path: Path) -> ModuleType:
    """The user's file as a module."""
    name = f"_user_unet_{abs(hash(path.resolve()))}"
    module = sys.modules[name] = ModuleType(name)  # where dataclasses look for it
    module.__file__ = str(path)
    with foreign(f"'{path}' cannot be run", MEND):
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Files of the folder can be imported, and leave no trace in `sys.modules` and no `__pycache__` behind."""
    before, bytecode = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = bytecode
        for new in set(sys.modules) - before:  # another UNet.py may have other files of the same names beside it
            file = getattr(sys.modules[new], "__file__", None)
            if file and Path(file).resolve().parent == folder:
                del sys.modules[new]


class _Foreign(nn.Module):
    """A network whose code may fail in any way, called as ours are."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        advice = "mend its code, or run it on a machine that has what it asks for"
        with foreign("the course's UNet fails when it is called", advice):
            return self.network(x, t)
