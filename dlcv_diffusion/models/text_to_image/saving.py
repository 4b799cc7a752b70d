"""A text-to-image model on disk: a folder that `StableDiffusionPipeline.from_pretrained` reads by itself."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import check
from ...files import staging_folder
from ...schedule import NoiseSchedule
from ..clip.small import SmallClip
from ..clip.to_transformers import text_model
from ..clip.tokenizer import write_tokenizer
from ..diffusers_unet import PREDICTION_TYPES, SCHEDULES
from ..foreign import foreign, quietly

PARTS = {
    "scheduler": ("diffusers", "DDIMScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "safety_checker": (None, None),
    "feature_extractor": (None, None),
}
"""What a pipeline is made of, and whose class each part is."""

FACTS = "facts.json"
"""What is known of a run, beside the networks that it left."""


def write_pipeline(
    folder: str | Path,
    unet: nn.Module,
    autoencoder: nn.Module,
    clip: SmallClip,
    schedule: NoiseSchedule,
    prediction: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write the networks in half precision, the tokenizer, the scheduler and the facts; whole or not at all.

    - unet, autoencoder: of diffusers; clip: whose text half the U-Net attends to.

    Raises `UserError` for weights that are not finite in half precision, and a folder that cannot be written.

    >>> write_pipeline("runs/new/model", unet, autoencoder, clip, schedule, "v")    # doctest: +SKIP
    >>> StableDiffusionPipeline.from_pretrained("runs/new/model")("a fox").images   # doctest: +SKIP
    """
    import diffusers

    networks = {"unet": unet, "vae": autoencoder, "text_encoder": text_model(clip)}
    with staging_folder(folder) as staging, quietly():
        for part, network in networks.items():
            write_half(network, staging / part)
        diffusers.DDIMScheduler(**scheduler_config(schedule, prediction)).save_pretrained(staging / "scheduler")
        write_tokenizer(staging / "tokenizer", clip.merges, clip.config.context)
        index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__}
        index |= {**PARTS, "requires_safety_checker": False}
        (staging / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        write_facts(staging, facts or {})


def write_facts(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """Write `facts.json`, which `load_text_to_image` reads.

    >>> write_facts("runs/new/model", {"name": "new"})   # doctest: +SKIP
    """
    text = json.dumps(dict(facts), indent=1, ensure_ascii=False)
    Path(folder, FACTS).write_text(text + "\n", encoding="utf-8")


def write_half(network: Any, folder: str | Path) -> None:
    """`save_pretrained` of a copy in half precision, which the network itself does not become.

    Raises `UserError` for weights that are not finite in it, and where they cannot be written.

    >>> write_half(autoencoder, "runs/new/model/vae")   # doctest: +SKIP
    """
    weights = f"the weights of the {type(network).__name__}"
    with quietly():
        half = deepcopy(network).half()
        finite = all(weight.isfinite().all() for weight in half.state_dict().values())
        check(finite, f"{weights} are not finite in half precision; train with a lower learning rate")
        with foreign(
            f"{weights} cannot be written", "make room, or choose another folder"
        ):  # no OSError of safetensors'
            half.save_pretrained(folder)
    path = Path(folder, "config.json")
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # where it was read from is nobody's business
    config |= {"dtype": "float32"} if "dtype" in config else {}  # transformers' default, whatever is saved
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def scheduler_config(schedule: NoiseSchedule, prediction: str) -> dict[str, Any]:
    """The settings of a diffusers scheduler with our conventions: trailing timesteps, ᾱ = 1 at the end, no clipping.

    >>> scheduler_config(NoiseSchedule.linear(1000), "v")["prediction_type"]
    'v_prediction'
    """
    given = schedule.config
    kinds = {ours: theirs for theirs, ours in SCHEDULES.items()}
    found = {"num_train_timesteps": schedule.T, "timestep_spacing": "trailing", "clip_sample": False}
    found |= {"set_alpha_to_one": True, "steps_offset": 1}  # the offset does nothing here, and is warned of at 0
    found |= {"prediction_type": {ours: theirs for theirs, ours in PREDICTION_TYPES.items()}[prediction]}
    if given["schedule"] in ("linear", "scaled_linear"):
        curve = {"beta_start": given["beta_1"], "beta_end": given["beta_T"]}
        return {**found, **curve, "beta_schedule": kinds[given["schedule"]]}
    return {**found, "trained_betas": schedule.betas.tolist()}
