"""Where and how to compute, asked for once, at the edge of a program."""

from contextlib import AbstractContextManager, nullcontext, suppress

import torch
from torch import nn

from .errors import check


def best_device() -> torch.device:
    """CUDA if there is a GPU, else Apple's MPS, else the CPU.

    >>> best_device()   # doctest: +SKIP
    device(type='cuda')
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def named_device(name: str | torch.device | None = None) -> torch.device:
    """The device of this name, such as cpu, cuda:1 or mps, `best_device()` for None; `UserError` if it is not here.

    >>> named_device("cpu")
    device(type='cpu')
    """
    mps = int(torch.backends.mps.is_available())
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": mps, "xpu": torch.xpu.device_count()}
    device = None
    with suppress(RuntimeError, TypeError):  # of a name that torch does not know
        device = torch.device(best_device() if name is None else name)
    some = {kind: f"{kind}:0 … {kind}:{count - 1}" if count > 1 else kind for kind, count in counts.items() if count}
    found = device is not None and (device.index or 0) < counts.get(device.type, 0)
    check(found, f"cannot use device '{name}'; this machine has {', '.join(some.values())}")
    return device


def has_fast_bf16(device: str | torch.device) -> bool:
    """Whether bfloat16 multiplies faster: GPUs since Ampere, CPUs with AMX, AVX512-BF16 or ARM's BF16.

    Measured in `benchmarks/training.py`. On MPS the answer is no: its support varies.

    >>> has_fast_bf16("mps")
    False
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return any(features.get(name) for name in ("amx_bf16", "avx512_bf16", "arm_bf16", "bf16"))
    return False


def autocast(device: str | torch.device, fast: bool = True) -> AbstractContextManager:
    """A context where matrix products and convolutions run in bfloat16, if that is asked for and `has_fast_bf16`.

    >>> with autocast(device):                                     # doctest: +SKIP
    ...     image = last(ddim(denoise, x_T, schedule)).x
    """
    quick = fast and has_fast_bf16(device)
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16) if quick else nullcontext()


def prepare(model: nn.Module, device: str | torch.device | None = None) -> nn.Module:
    """The model itself, moved to a device (see `named_device`), its weights channels-last, which convolutions want.

    >>> model = prepare(network)   # doctest: +SKIP
    """
    return model.to(named_device(device)).to(memory_format=torch.channels_last)
