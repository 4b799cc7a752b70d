"""One door for every network: shipped or trained here, the course's, or diffusers'; each becomes a `Denoiser`."""

import os
import re
from pathlib import Path

import torch
from torch import nn

from .. import device as devices
from ..denoiser import Denoiser
from ..errors import check
from ..schedule import NoiseSchedule
from .registry import Facts, read_model, shipped_weights

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
DIGIT = (28, 28)  # what a network with labels draws, where its file does not say


def load(name_or_path: str | Path, *, unet_py: str | Path | None, device: torch.device | str | None) -> Denoiser:
    """See `denoiser.load_denoiser`."""
    name, path = str(name_or_path), Path(name_or_path)
    if path.suffix in (".pt", ".pth"):
        from .course_unet import course_unet

        advice = "give its code too, unet_py (--unet-py UNet.py), or make the report's .safetensors by `dlcv convert`"
        check(os.path.exists(path), f"no weights at '{path}'; give the course's UNet.pt, or other weights")
        check(unet_py, f"'{path}' holds weights without a network; {advice}")
        denoiser = course_unet(unet_py, path)
    else:
        check(unet_py is None, f"unet_py (--unet-py) does nothing for the weights '{name}'; it goes with a .pt file")
        if name not in shipped_weights() and (os.path.isdir(path) or _may_be_on_the_hub(name)):
            from .diffusers_unet import diffusers_unet

            denoiser = diffusers_unet(name)
        else:
            denoiser = own_denoiser(*read_model(name_or_path), path)
    denoiser.model = devices.prepare(denoiser.model, device)
    return denoiser.eval()


def own_denoiser(model: nn.Module, facts: Facts, source: str | Path = "") -> Denoiser:
    """The denoiser of a network of ours, by the facts saved in `source`; `UserError` for a shape it cannot draw.

    >>> from dlcv_diffusion.models import UNet
    >>> own_denoiser(UNet(num_classes=20, channels=(8, 16), blocks=1), {"prediction": "v"}).null
    20
    """
    name, labels = facts.get("name", Path(source).stem or type(model).__name__), model.num_classes
    own = getattr(model, "shape", None)  # of a network that draws one size alone
    shape = facts.get("shape") or own or ((model.in_channels, *DIGIT) if labels else None)
    fits = shape is None or (shape[0] == model.in_channels and own in (None, tuple(shape)))
    check(fits, f"the weights '{source or name}' do not draw images of {tuple(shape or ())}, as they say themselves")
    return Denoiser(
        model,
        NoiseSchedule.from_config(facts["schedule"]) if "schedule" in facts else NoiseSchedule.linear(model.timesteps),
        facts.get("prediction") or facts.get("train", {}).get("prediction", "eps"),
        shape=shape,
        null=labels or None,
        name=name,
        facts=facts,
    )


def _may_be_on_the_hub(name: str) -> bool:
    """Whether it is "owner/name" and not a path that was mistyped: of that, the folder above exists."""
    path = Path(name)
    return HUB_NAME.fullmatch(name) is not None and path.suffix != ".safetensors" and not path.parent.exists()
