"""One door for every network: shipped or trained here, the course's, or diffusers'; each becomes a `Denoiser`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import device as devices
from ..denoiser import Denoiser
from ..errors import check
from ..schedule import NoiseSchedule
from .registry import read_model, shipped_weights

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
DIGIT = (3, 28, 28)  # what a network with labels draws, where its file does not say


def load(name_or_path: str | Path, *, unet_py: str | Path | None, device: torch.device | str | None) -> Denoiser:
    """See `denoiser.load_denoiser`."""
    name, path = str(name_or_path), Path(name_or_path)
    if path.suffix in (".pt", ".pth"):
        from .course_unet import course_unet

        check(
            unet_py,
            f"'{path}' holds weights without a network; give its code too, unet_py (--unet-py UNet.py); the report's "
            "own ContextUnet becomes a .safetensors file by `dlcv convert`",
        )
        denoiser = course_unet(unet_py, path)
    else:
        check(
            unet_py is None,
            f"unet_py (--unet-py) does nothing for the weights '{name}'; it goes with a .pt file",
        )
        if name not in shipped_weights() and (path.is_dir() or _may_be_on_the_hub(name)):
            from .diffusers_unet import diffusers_unet

            denoiser = diffusers_unet(name)
        else:
            denoiser = own_denoiser(*read_model(name_or_path), name=path.stem)
    denoiser.model = devices.prepare(denoiser.model, device, channels_last=True)
    return denoiser.eval()


def own_denoiser(model: nn.Module, facts: Mapping[str, Any], name: str = "") -> Denoiser:
    """The denoiser of a network of this package, by the facts that are saved with it.

    >>> from dlcv_diffusion.models import UNet
    >>> own_denoiser(UNet(num_classes=20, channels=(8, 16), blocks=1), {"prediction": "v"}).null
    20
    """
    labels, saved, config = getattr(model, "num_classes", 0), facts.get("schedule"), getattr(model, "config", {})
    schedule = NoiseSchedule.from_config(saved) if saved else NoiseSchedule.linear(model.timesteps)
    shape = facts.get("image_size")
    if shape is None and "height" in config:
        shape = (model.in_channels, config["height"], config["width"])
    elif shape is None and labels:
        shape = (model.in_channels, *DIGIT[1:])
    return Denoiser(
        model,
        schedule,
        facts.get("prediction") or facts.get("train", {}).get("prediction", "eps"),
        shape=shape,
        null=labels or None,
        name=facts.get("name", name or type(model).__name__),
        facts=facts,
    )


def _may_be_on_the_hub(name: str) -> bool:
    """Whether it is "owner/name" and not a path that was mistyped: of that, the folder above exists."""
    path = Path(name)
    return HUB_NAME.fullmatch(name) is not None and path.suffix != ".safetensors" and not path.parent.exists()
