"""Where and how to compute, asked for once, at the edge of a program."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from .errors import UserError


def best_device() -> torch.device:
    """CUDA if there is a GPU, else Apple's MPS, else the CPU.

    >>> best_device()   # doctest: +SKIP
    device(type='cuda')
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_fast_bf16(device: str | torch.device) -> bool:
    """Whether the device multiplies faster in bfloat16: GPUs since Ampere, CPUs with AMX or ARM's BF16.

    Elsewhere it is emulated, or, as with AVX512-BF16, what it wins is spent in converting: this package's U-Net
    takes twice as long there as in float32. On MPS the answer is no: its support varies with the system.

    >>> has_fast_bf16("mps")
    False
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return any(features.get(name) for name in ("amx_bf16", "arm_bf16", "bf16"))
    return False


def autocast(device: str | torch.device, dtype: torch.dtype | str = "auto") -> AbstractContextManager:
    """A context where matrix products and convolutions run in bfloat16 if that is fast, the rest in float32.

    - dtype: `"auto"` (bfloat16 where `has_fast_bf16`, else float32), or `torch.bfloat16`, `torch.float16`,
      `torch.float32`. float32 switches nothing.

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

    - device: cpu, cuda, cuda:1, mps (or xpu); `best_device()` by default.
    - channels_last: NHWC weights, which convolutions in bfloat16 want; by default where `has_fast_bf16`.
    - compile: True for `torch.compile(model)`, or the name of one of its modes. Compiling takes from seconds
      to a minute and pays for long runs. Under "reduce-overhead" (CUDA graphs) the next call overwrites the
      last output: go through `guided`, which makes a new one, or clone it.

    Raises `UserError` for a device of another kind, and for one that this machine does not have.

    >>> model = prepare(network)   # doctest: +SKIP
    """
    choose = f"cannot use device '{device}'; choose cpu, cuda, cuda:1 or mps"
    try:
        device = torch.device(device or best_device())
    except RuntimeError as error:
        raise UserError(choose) from error
    if device.type not in ("cpu", "cuda", "mps", "xpu") or (device.type in ("cpu", "mps") and device.index):
        raise UserError(choose)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use device '{device}': {str(error).splitlines()[0]}") from error
    if has_fast_bf16(device) if channels_last is None else channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compile:
        return torch.compile(model, mode=None if compile is True else compile)
    return model
