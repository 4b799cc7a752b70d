"""The report's own checkpoints, `.pt` files with a bare state dict, turned into safetensors."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError, check
from .context_unet import ContextUnet
from .loading import own_denoiser
from .registry import load_state, save_model

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "ema", "ema_model")
WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a `.pt`/`.pth` file, read with `weights_only=True`, so that nothing in it can run.

    A state dict that was saved under a usual key, such as "state_dict", "model" or "ema", is found there; the prefixes
    of compiled, parallel and averaged models are taken off.

    Raises `UserError` for a missing file, a truncated or foreign one, or one that holds more than tensors.

    >>> read_state_dict("hw2_data/face/UNet.pt")   # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: '{path}'; give the .pt file with the network's state dict")
    if not os.access(path, os.R_OK):
        raise UserError(f"you may not read '{path}'; change its permissions")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from IndexError to struct.error in torch's reader
        raise UserError(
            f"'{path}' is not a whole .pt file of plain tensors; save model.state_dict() with torch.save"
        ) from error
    for key in STATE_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    numbers = len(tensors) and all(isinstance(v, Tensor | int | float) for v in state.values())
    check(numbers, f"'{path}' holds no state dict (a dict of tensors); save model.state_dict() with torch.save")
    tensors.pop("n_averaged", None)  # an average's counter
    return {WRAPPED.sub("", str(key)): value for key, value in tensors.items()}


def context_unet_from(
    state: dict[str, Tensor], *, timesteps: int = 350, source: str | Path = "state dict"
) -> ContextUnet:
    """A `ContextUnet` with these weights; its sizes are read off their shapes. In eval mode.

    Raises `UserError` where the weights are not a `ContextUnet`'s.

    >>> context_unet_from(ContextUnet(n_feat=8, n_cfeat=20).state_dict()).num_classes
    20
    """
    try:
        n_feat, in_channels, *_ = state["init_conv.conv1.0.weight"].shape
        _, n_cfeat = state["contextembs.0.model.0.weight"].shape
        _, _, bottom_height, bottom_width = state["up0.0.weight"].shape
        n_downs = len({key.split(".")[1] for key in state if key.startswith("down_blocks.")})
        height, width = bottom_height * 2**n_downs, bottom_width * 2**n_downs
        model = ContextUnet(in_channels, height, width, n_feat, n_cfeat, n_downs, timesteps)
    except KeyError as error:
        raise UserError(f"the weights in '{source}' are not a ContextUnet's: {error} is missing") from error
    except ValueError as error:
        raise UserError(f"the weights in '{source}' are not a ContextUnet's: {error}") from error
    load_state(model, state, source)
    return model.eval()


def convert_report_weights(pt: str | Path, out: str | Path, *, timesteps: int = 350) -> Denoiser:
    """Read the report's `.pt` (key names of byrkbrk/conditional-ddpm, models.py), write safetensors; the denoiser.

    - timesteps: T of the schedule it was trained with, linear 1e-4 → 2e-2. Its second half is SVHN.

    Raises `UserError` as `read_state_dict` and `context_unet_from` do, or where `out` cannot be written.

    >>> convert_report_weights("report.pt", "report.safetensors")   # doctest: +SKIP
    """
    from ..schedule import NoiseSchedule

    same = Path(pt).resolve() == Path(out).resolve()
    check(not same, f"'{out}' is the file to be read; give another name for the safetensors file")
    model = context_unet_from(read_state_dict(pt), timesteps=timesteps, source=pt)
    schedule = NoiseSchedule.linear(timesteps).config
    facts = {"name": Path(out).stem, "schedule": schedule, "second_half": "SVHN"}
    save_model(model, out, facts)
    return own_denoiser(model, facts)
