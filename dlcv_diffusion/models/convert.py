"""The report's own checkpoints, `.pt` files with a bare state dict, turned into safetensors."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError, check
from ..schedule import NoiseSchedule
from ..tensors import Ignored, load_tensors
from .context_unet import ContextUnet
from .loading import own_denoiser
from .registry import model_from, save_model, unwrapped

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "ema", "ema_model")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a `.pt`/`.pth` file, or under one of `STATE_KEYS` in it, without wrappers' prefixes.

    Nothing in it is run (`weights_only=True`). Raises `UserError` for a missing, damaged or foreign file.

    >>> read_state_dict("hw2_data/face/UNet.pt")   # doctest: +SKIP
    """
    state = load_tensors(path, "plain tensors", "save model.state_dict() with torch.save")
    for key in STATE_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    state = state if isinstance(state, dict) else {}
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor) and k != "n_averaged"}  # of an average
    plain = tensors and all(isinstance(v, Tensor | int | float | Ignored) for v in state.values())
    check(plain, f"'{path}' holds no state dict (a dict of tensors); save model.state_dict() with torch.save")
    for key, tensor in tensors.items():
        check(_stored(tensor), f"'{key}' in '{path}' is no plain tensor, all of whose numbers are in the file")
    return unwrapped(tensors)


def _stored(tensor: Tensor) -> bool:
    """Whether all of its numbers are there: a crafted one can be of any size, with a single number repeated."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def context_unet_from(
    state: Mapping[str, Tensor], *, timesteps: int = 350, source: str | Path = "state dict"
) -> ContextUnet:
    """A `ContextUnet`, in eval mode, with these weights, whose shapes tell its sizes; `UserError` for other weights.

    >>> context_unet_from(ContextUnet(n_feat=8, n_cfeat=20).state_dict()).num_classes
    20
    """
    try:
        n_feat, in_channels, *_ = state["init_conv.conv1.0.weight"].shape
        _, n_cfeat = state["contextembs.0.model.0.weight"].shape
        _, _, *bottom = state["up0.0.weight"].shape
        n_downs = len({key.split(".")[1] for key in state if key.startswith("down_blocks.")})
        height, width = (side * 2**n_downs for side in bottom)
    except (KeyError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"the weights in '{source}' are not a ContextUnet's: {said}") from error
    sizes = {"in_channels": in_channels, "height": height, "width": width, "n_feat": n_feat, "n_cfeat": n_cfeat}
    return model_from("ContextUnet", {**sizes, "n_downs": n_downs, "timesteps": timesteps}, state, source)


def convert_report_weights(pt: str | Path, out: str | Path, *, timesteps: int = 350) -> Denoiser:
    """Read the report's `.pt` (key names of byrkbrk/conditional-ddpm, models.py), write safetensors; the denoiser.

    - timesteps: T of its linear schedule, 1e-4 → 2e-2. Its second half is SVHN.

    Raises `UserError` for files that cannot be read or written, that are the same, or of other weights.

    >>> convert_report_weights("report.pt", "report.safetensors")   # doctest: +SKIP
    """
    same = os.path.exists(out) and os.path.exists(pt) and os.path.samefile(pt, out)
    check(not same, f"'{out}' is the file to be read; give another name for the safetensors file")
    schedule = NoiseSchedule.linear(timesteps)
    model = context_unet_from(read_state_dict(pt), timesteps=timesteps, source=pt)
    facts = {"name": Path(out).stem, "schedule": schedule.config, "second_half": "SVHN"}
    save_model(model, out, facts)
    return own_denoiser(model, facts)
