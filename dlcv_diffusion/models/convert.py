"""The report's own checkpoints, `.pt` files with a bare state dict, turned into safetensors."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..denoiser import Denoiser
from ..errors import UserError, check
from ..schedule import NoiseSchedule
from ..tensors import read_state_dict
from .context_unet import ContextUnet
from .loading import own_denoiser
from .registry import model_from, save_model


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
