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
    with suppress(RuntimeError):  # of a name that torch does not know
        device = torch.device(name or best_device())
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


def autocast(device: str | torch.device, dtype: torch.dtype | str = "auto") -> AbstractContextManager:
    """A context where matrix products and convolutions run in `dtype`, the rest in float32.

    - dtype: "auto" (bfloat16 where `has_fast_bf16`, else float32), `torch.bfloat16`, `torch.float16`, `torch.float32`.

    >>> with autocast(device):                                     # doctest: +SKIP
    ...     image = last(ddim(denoise, x_T, schedule)).x
    """
    device = torch.device(device)
    if dtype == "auto":
        dtype = torch.bfloat16 if has_fast_bf16(device) else torch.float32
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def prepare(
    model: nn.Module,
    device: str | torch.device | None = None,
    *,
    channels_last: bool | None = None,
    compile: bool | str = False,
) -> nn.Module:
    """The model on its device, laid out and compiled for speed; the numbers stay the same up to float error.

    - device: see `named_device`. channels_last: NHWC weights; by default where `has_fast_bf16`.
    - compile: True for `torch.compile(model)`, or one of its modes. Under "reduce-overhead" (CUDA graphs) the next call
      overwrites the last output: clone it, or go through `guided`.

    >>> model = prepare(network)   # doctest: +SKIP
    """
    device = named_device(device)
    model = model.to(device)
    if has_fast_bf16(device) if channels_last is None else channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compile:
        return torch.compile(model, mode=None if compile is True else compile)
    return model
