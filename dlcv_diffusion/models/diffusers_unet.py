"""A `UNet2DModel` of diffusers, from a folder or by its name on the hub, with the scheduler it was trained with."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import UserError
from ..schedule import NoiseSchedule

PREDICTION_TYPES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
DRAWERS = ("unet", "scheduler")  # the components of a pipeline that draws pictures themselves


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` called as our networks are: x (B, C, H, W), t (B,) to (B, C, H, W), the variances left out."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet
        self.in_channels = unet.config.in_channels

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t, return_dict=False)[0][:, : self.in_channels]


def diffusers_unet(source: str | Path) -> Denoiser:
    """An unconditional `UNet2DModel` as a denoiser, in eval mode and float32 on the CPU.

    - source: a pipeline's folder, with `unet/` and `scheduler/` or with all files beside each other; the folder of a
      `UNet2DModel` alone, for which DDPM's schedule and ε are taken where it has no `scheduler_config.json`; or a name
      on the hub, such as "google/ddpm-celebahq-256", which is fetched and kept by diffusers.

    Schedule, prediction (ε, v or x0), channels and size are those of the configs. How to sample is not taken from them
    but from the caller: where a config clips x̂0 (`clip_sample`, the default of diffusers' schedulers), diffusers' own
    pictures come with `clip_x0=clip_sample_range`, which is 1 (`--clip-x0 1`). Weights are read from safetensors; a
    `.bin` file is read, with `weights_only=True`, where there is no other. A network that gives variances too
    (Improved DDPM) is used for the mean.

    Raises `UserError` for a folder without such a network, files that are damaged or do not fit, a name that cannot be
    fetched, a network that wants labels or draws latents, and a schedule that is none of ours.

    >>> denoise = diffusers_unet("google/ddpm-celebahq-256")   # doctest: +SKIP
    >>> denoise.shape, denoise.prediction                 # doctest: +SKIP
    ((3, 256, 256), 'eps')
    """
    from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel

    source = str(source)
    index = _config(DiffusionPipeline, source, reach=True)
    others = [name for name, value in index.items() if isinstance(value, list) and name not in DRAWERS and value[0]]
    if others:
        raise UserError(
            f"'{source}' needs its '{others[0]}' beside the network, to decode what it draws or to be told what to; "
            "give a pipeline of a UNet2DModel alone"
        )
    folder, config = _first_config(UNet2DModel, source, "unet")
    if config is None:
        raise UserError(_no_network(source))
    if config.get("_class_name") != "UNet2DModel":
        raise UserError(f"'{source}' holds a {config.get('_class_name', 'network')}; give one with a UNet2DModel")
    unet = _weights(UNet2DModel, source, folder)
    _check_unconditional(unet.config, source)
    _, scheduler = _first_config(SchedulerMixin, source, "scheduler")
    if scheduler is None and "scheduler" in index:
        raise UserError(
            f"'{source}' lacks its scheduler's config (scheduler/scheduler_config.json); save it again whole"
        )
    schedule, prediction = schedule_from(scheduler or {}, source)
    size = unet.config.sample_size
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    image_size = (unet.config.in_channels, *sides) if sides else None
    name = Path(source).resolve().name if Path(source).is_dir() else source
    return Denoiser(DiffusersUNet(unet).eval(), schedule, prediction, shape=image_size, name=name)


def schedule_from(config: Mapping[str, Any], source: str = "scheduler_config.json") -> tuple[NoiseSchedule, str]:
    """The schedule of a diffusers scheduler's config, and what its network predicts: "eps", "v" or "x0".

    What a config leaves out is what diffusers takes then: DDPM's linear betas over 1,000 timesteps, and ε.

    Raises `UserError` for a scheduler without betas, one of other betas, or another prediction; `source` is named.

    >>> schedule_from({"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"})
    (NoiseSchedule.cosine(T=1000, s=0.008), 'v')
    """
    name = config.get("_class_name", "scheduler")
    if "_class_name" in config and not {"beta_schedule", "trained_betas"} & set(config):
        raise UserError(f"the {name} of '{source}' has no betas; give a network that was trained as DDPM is")
    if config.get("rescale_betas_zero_snr"):
        raise UserError(
            f"the {name} of '{source}' was rescaled to ᾱ_T = 0 (rescale_betas_zero_snr), where no ε can be told; "
            "give a network that was trained without it"
        )
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        raise UserError(f"the {name} of '{source}' predicts '{kind}'; known are {', '.join(PREDICTION_TYPES)}")
    T = config.get("num_train_timesteps", 1000)
    ends = config.get("beta_start", 1e-4), config.get("beta_end", 2e-2)
    betas = config.get("beta_schedule", "linear")
    try:
        if config.get("trained_betas") is not None:
            return NoiseSchedule(config["trained_betas"]), PREDICTION_TYPES[kind]
        makers = {
            "linear": lambda: NoiseSchedule.linear(T, *ends),
            "scaled_linear": lambda: NoiseSchedule.scaled_linear(T, *ends),
            "squaredcos_cap_v2": lambda: NoiseSchedule.cosine(T),
        }
        if betas not in makers:
            raise UserError(f"unknown beta_schedule '{betas}'; known are {', '.join(makers)} and trained_betas")
        return makers[betas](), PREDICTION_TYPES[kind]
    except (UserError, TypeError) as error:
        raise UserError(f"the {name} of '{source}' makes no schedule: {error}") from error


def _check_unconditional(config: Any, source: str) -> None:
    channels = config.in_channels
    if config.class_embed_type is not None or config.num_class_embeds is not None:
        raise UserError(f"the UNet2DModel of '{source}' draws by label; give an unconditional one")
    if config.time_embedding_type == "fourier":
        raise UserError(f"the UNet2DModel of '{source}' is told noise levels; give one that is told timesteps, as DDPM")
    if config.out_channels not in (channels, 2 * channels):
        raise UserError(
            f"the UNet2DModel of '{source}' takes {channels} channels and gives {config.out_channels}; ε has as many"
        )


def _first_config(of: Any, source: str, subfolder: str) -> tuple[str | None, dict | None]:
    """The config in the subfolder or else in `source` itself, and where it was; (None, None) for none."""
    for folder in (subfolder, None):
        config = _config(of, source, folder)
        if config:
            return folder, config
    return None, None


def _config(of: Any, source: str, subfolder: str | None = None, *, reach: bool = False) -> dict:
    """A config file of a class of diffusers, from a folder or the hub; {} where there is none.

    With `reach`, a hub that cannot be reached and kept nothing is an error, so that it is asked (for long) only once.
    """
    path = Path(source, subfolder or "", of.config_name)
    if Path(source).is_dir():
        if not path.is_file():
            return {}
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"'{path}' cannot be read as JSON; save the network again") from error
        if not isinstance(config, dict):
            raise UserError(f"'{path}' is no config of diffusers; save the network again")
        return config
    try:
        with _quietly():
            return of.load_config(source, subfolder=subfolder)
    except (OSError, ValueError) as error:  # of a missing file and of a missing hub: the cause tells them apart
        if reach and "Entry" not in type(error.__context__).__name__.removeprefix("LocalEntry"):
            raise UserError(_no_network(source)) from error
        return {}


def _weights(unet_class: Any, source: str, folder: str | None) -> nn.Module:
    """The network with its weights: from safetensors, else from a `.bin` file, read with `weights_only=True`."""
    failure: Exception | None = None
    here = Path(source, folder or "")
    kinds = [any(here.glob("*.safetensors"))] if here.is_dir() else [True, False]
    for safetensors in kinds:
        try:
            with _quietly():
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
        if wrong:
            raise UserError(f"the weights in '{source}' are not those of its config: {wrong[0]} does not fit")
        return unet.float()
    said = " ".join(str(failure).split())[:200]
    raise UserError(f"'{source}' has no weights that can be read ({said}); save the network again") from failure


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings about arguments that libraries below pass to each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
