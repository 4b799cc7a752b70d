"""A `UNet2DModel` of diffusers, from a folder or by its name on the hub, with the scheduler it was trained with."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from ..declared import validated
from ..denoiser import Denoiser
from ..errors import UserError, check
from ..reading import reading
from ..schedule import NoiseSchedule
from .foreign import foreign, quietly
from .registry import OBJECT
from .sizes import Blocks, Channels, Side

PREDICTION_TYPES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
DRAWERS = ("unet", "scheduler")  # the components of a pipeline that draws pictures themselves


@with_config(ConfigDict(extra="allow"))
class UNetConfig(TypedDict, total=False):
    """Of a network's config, what has to be known before it is built."""

    _class_name: str
    sample_size: Side | tuple[Side, Side] | None
    in_channels: Channels
    out_channels: Channels
    block_out_channels: Annotated[tuple[Channels, ...], Field(max_length=16)]
    layers_per_block: Blocks


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` called as our networks are: x (B, C, H, W), t (B,) to (B, C, H, W), the variances left out."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet
        self.in_channels = unet.config.in_channels

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        with foreign("the UNet2DModel fails when it is called", "give it images of the shape it was trained with"):
            return self.unet(x, t, return_dict=False)[0][:, : self.in_channels]


def diffusers_unet(source: str | Path) -> Denoiser:
    """An unconditional `UNet2DModel` as a denoiser, in eval mode and float32 on the CPU.

    - source: a pipeline's folder, with `unet/` and `scheduler/` or with all files beside each other; the folder of a
      `UNet2DModel` alone, with DDPM's schedule and ε where no `scheduler_config.json` says otherwise; or a name on the
      hub, such as "google/ddpm-celebahq-256", which diffusers fetches and keeps.

    Schedule, prediction (ε, v or x0), channels and size are those of the configs. Where a config clips x̂0
    (`clip_sample`, diffusers' default), its own pictures come with `clip_x0=1` (`--clip-x0 1`). Nothing in a `.bin`
    file is run. Of a network that gives variances too, the mean is used.

    Raises `UserError` for a folder or name without such a network, files that are damaged or do not fit, a network that
    wants labels or draws latents, and a schedule that is none of ours.

    >>> denoise = diffusers_unet("google/ddpm-celebahq-256")   # doctest: +SKIP
    >>> denoise.shape, denoise.prediction                 # doctest: +SKIP
    ((3, 256, 256), 'eps')
    """
    from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel

    source = str(source)
    index = _config(DiffusionPipeline, source, reach=True)
    others = [name for name, parts in index.items() if isinstance(parts, list) and any(parts) and name not in DRAWERS]
    alone = "to decode what it draws or to be told what; give a pipeline of a UNet2DModel alone"
    check(not others, f"'{source}' needs its '{''.join(others[:1])}' beside the network, {alone}")
    folder, config = _first_config(UNet2DModel, source, "unet")
    config = _checked(config, source)
    _, scheduler = _first_config(SchedulerMixin, source, "scheduler")
    part = Path(source).resolve().parent
    alone = scheduler or not os.path.isdir(source) or not (part / "scheduler").is_dir()
    check(alone, f"'{source}' is a part of a pipeline, whose scheduler lies beside it; give the whole, '{part}'")
    whole = scheduler or "scheduler" not in index
    check(whole, f"'{source}' lacks its scheduler's config (scheduler/scheduler_config.json); save it again whole")
    schedule, prediction = schedule_from(scheduler, source)
    unet = _weights(UNet2DModel, source, folder)
    size = config.get("sample_size")
    sides = (size, size) if isinstance(size, int) else size
    name = Path(source).resolve().name if os.path.isdir(source) else source
    shape = (unet.config.in_channels, *sides) if sides else None
    return Denoiser(DiffusersUNet(unet).eval(), schedule, prediction, shape=shape, name=name)


def schedule_from(config: Mapping[str, Any], source: str = "scheduler_config.json") -> tuple[NoiseSchedule, str]:
    """The schedule of a diffusers scheduler's config, and what its network predicts: "eps", "v" or "x0".

    By default DDPM's linear betas over 1,000 timesteps, and ε. Raises `UserError`, naming `source`, for any other.

    >>> schedule_from({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"})
    (NoiseSchedule.cosine(T=1000, s=0.008), 'v')
    """
    named = f"the {str(config.get('_class_name', 'scheduler')):.60} of '{source}'"
    kind, curve = str(config.get("prediction_type", "epsilon")), str(config.get("beta_schedule", "linear"))
    of_betas = "_class_name" not in config or {"beta_schedule", "trained_betas"} & set(config)
    check(of_betas, f"{named} has no betas; give a network that was trained as DDPM is")
    rescaled = f"{named} was rescaled to ᾱ_T = 0 (rescale_betas_zero_snr), where no ε can be told; give another"
    check(not config.get("rescale_betas_zero_snr"), rescaled)
    check(kind in PREDICTION_TYPES, f"{named} predicts '{kind:.60}'; known are {', '.join(PREDICTION_TYPES)}")
    ours = {"schedule": SCHEDULES.get(curve), "T": config.get("num_train_timesteps", 1000)}
    if config.get("trained_betas") is not None:
        ours = {"schedule": "betas", "betas": config["trained_betas"]}
    elif curve != "squaredcos_cap_v2":
        known = f"unknown beta_schedule '{curve:.60}'; known are {', '.join(SCHEDULES)} and trained_betas"
        check(curve in SCHEDULES, f"{named} makes no schedule: {known}")
        ours |= {"beta_1": config.get("beta_start", 1e-4), "beta_T": config.get("beta_end", 2e-2)}
    try:
        return NoiseSchedule.from_config(ours), PREDICTION_TYPES[kind]
    except UserError as error:
        raise UserError(f"{named} makes no schedule: {error}") from error


def _checked(config: dict, source: str) -> UNetConfig:
    """The network's config, if it is one that draws pictures alone; nothing is built before it is known."""
    check(config, _no_network(source))
    named, kind = f"the UNet2DModel of '{source}'", str(config.get("_class_name", "network"))
    check(kind == "UNet2DModel", f"'{source}' holds a {kind:.60}; give one with a UNet2DModel")
    config = validated(UNetConfig, config, named)
    labels = [config.get(key) for key in ("class_embed_type", "num_class_embeds")]
    check(labels == [None, None], f"{named} draws by label; give an unconditional one")
    levels = config.get("time_embedding_type") == "fourier"
    check(not levels, f"{named} is told noise levels; give one that is told timesteps, as DDPM")
    takes, gives = config.get("in_channels", 3), config.get("out_channels", 3)
    check(gives in (takes, 2 * takes), f"{named} takes {takes} channels and gives {gives}; ε has as many")
    return config


def _first_config(of: Any, source: str, subfolder: str) -> tuple[str | None, dict]:
    """The config in the subfolder or else in `source` itself, and where it was; {} for none."""
    config = _config(of, source, subfolder)
    return (subfolder, config) if config else (None, _config(of, source))


def _config(of: Any, source: str, subfolder: str | None = None, *, reach: bool = False) -> dict:
    """A config file of a class of diffusers, from a folder or the hub; {} where there is none.

    With `reach`, a hub that cannot be reached and kept nothing is an error, so that it is asked (for long) only once.
    """
    path = Path(source, subfolder or "", of.config_name)
    if os.path.isdir(source):
        if not os.path.isfile(path):
            return {}
        with reading(path, "cannot be read as JSON of diffusers", "save the network again"):
            return OBJECT.validate_json(path.read_bytes())
    try:
        with quietly():
            return of.load_config(source, subfolder=subfolder)
    except (OSError, ValueError) as error:  # of a missing file and of a missing hub: the cause tells them apart
        there = "Entry" in type(error.__context__).__name__.removeprefix("LocalEntry")
        check(there or not reach, _no_network(source))
        return {}


def _weights(unet_class: Any, source: str, folder: str | None) -> nn.Module:
    """The network with its weights: from safetensors, else from a `.bin` file, read with `weights_only=True`."""
    failure: Exception | None = None
    here = Path(source, folder or "")
    kinds = [any(here.glob("*.safetensors"))] if here.is_dir() else [True, False]
    for safetensors in kinds:
        try:
            with quietly():
                unet, found = unet_class.from_pretrained(
                    source, subfolder=folder, use_safetensors=safetensors, output_loading_info=True
                )
        except OSError as error:  # no such file on the hub, or a damaged one
            failure = failure or error
            continue
        except Exception as error:  # what does not fit raises anything from ValueError to SafetensorError
            failure = failure or error
            break
        wrong = [*found["missing_keys"], *found["unexpected_keys"], *found.get("mismatched_keys", [])]
        check(not wrong, f"the weights in '{source}' are not those of its config: {wrong[:1]} does not fit")
        return unet.float()
    said = " ".join(str(failure).split())[:200]
    raise UserError(f"'{source}' has no weights that can be read ({said}); save the network again") from failure


def _no_network(source: str) -> str:
    path = Path(source)
    if (path / "model.safetensors").is_file():
        return f"'{source}' is a folder; give the weights in it, '{path / 'model.safetensors'}'"
    if path.is_dir():
        return f"'{source}' holds no network of diffusers (config.json, or unet/config.json); give a folder that does"
    return (
        f"there is no folder '{source}', and no UNet2DModel of that name could be fetched from the hub; "
        "give the folder of one that was downloaded before"
    )
