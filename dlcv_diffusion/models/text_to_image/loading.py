"""One door to every latent text-to-image model: what ships, a folder of diffusers, a single file, a name on the hub."""

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import torch

from ... import device as devices
from ...errors import UserError, check
from ...reading import reading
from ..clip.network import hub_answers
from ..foreign import foreign, quietly
from ..loading import HUB_NAME
from ..registry import ASSETS, OBJECT, shipped_path
from .denoiser import TextToImage, from_pipeline
from .saving import FACTS

SHIPPED = {"emoji": ASSETS / "emoji_text_to_image"}
SINGLE_FILES = (".ckpt", ".safetensors")
WITHOUT = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
"""What Stable Diffusion's pipelines bring along and nothing here uses."""


def load_text_to_image(
    name: str | Path = "emoji",
    device: torch.device | str | None = None,
    *,
    config: str | Path | None = None,
    fast: bool = False,
) -> TextToImage:
    """A text-to-image model of Stable Diffusion's kind as a denoiser of latents, in eval mode and float32.

    - name: "emoji", the one that ships; a folder that diffusers' `StableDiffusionPipeline` reads, such as that of a run
      of `dlcv train text-to-image`; a single `.ckpt` or `.safetensors` in Stable Diffusion's original layout; or a name
      on the hub, such as "CompVis/stable-diffusion-v1-4".
    - device: the best there is by default. fast: bfloat16 where the device is quick at it.
    - config: for a single file, the folder of a pipeline whose configs and tokenizer belong to it; without one
      diffusers finds out which, and fetches them.

    Raises `UserError` for what is missing, damaged or does not fit, and at once where weights would have to be fetched
    without a network.

    >>> sd = load_text_to_image("CompVis/stable-diffusion-v1-4")   # doctest: +SKIP
    >>> sd.shape, sd.prediction                                    # doctest: +SKIP
    ((4, 64, 64), 'eps')
    """
    text = str(name)
    devices.named_device(device)
    trained = "train it by `dlcv train text-to-image` and give runs/text_to_image/model"
    shipped = shipped_path(text, SHIPPED, "text-to-image model", trained)
    if text.endswith(SINGLE_FILES):
        pipeline, facts = _single_file(text, config), {}
    else:
        said = f"config goes with a single file ({' or '.join(SINGLE_FILES)}); '{text}' brings its own"
        check(config is None, said)
        folder = str(shipped or text)
        if os.path.isdir(folder):
            pipeline, facts = _folder(folder), _facts(folder)
        else:
            pipeline, facts = _hub(text), {}
    known = Path(text).resolve()
    here = shipped or not (known.is_dir() or known.is_file())
    called = facts.get("name", text if here else known.stem if known.is_file() else known.name)
    return devices.prepare(from_pipeline(pipeline, str(called), facts, fast), device).eval()


def _folder(folder: str) -> Any:
    """The pipeline of a local folder."""
    from diffusers import StableDiffusionPipeline

    index = Path(folder, "model_index.json")
    known = "give the folder of a whole pipeline, such as runs/text_to_image/model"
    check(index.is_file(), f"'{folder}' holds no model_index.json, so no pipeline of diffusers; {known}")
    with reading(index, "cannot be read as JSON of diffusers", "save the pipeline again"):
        kind = str(OBJECT.validate_json(index.read_bytes()).get("_class_name", "pipeline"))
    fits = kind.startswith(("StableDiffusionPipeline", "StableDiffusionImg2Img", "StableDiffusionSafe"))
    check(fits, f"'{folder}' holds a {kind:.60}; give a StableDiffusionPipeline")
    with quietly(), foreign(f"the pipeline in '{folder}' cannot be read", "save or download it again"):
        return StableDiffusionPipeline.from_pretrained(folder, **_options(), local_files_only=True)


def _hub(name: str) -> Any:
    """The pipeline of a repository of the hub: from this machine's cache, or fetched."""
    from diffusers import StableDiffusionPipeline

    known = 'give "emoji", a folder, a .ckpt or .safetensors file, or a name on the hub, "owner/name"'
    check(HUB_NAME.fullmatch(name) and not Path(name).parent.exists(), f"no text-to-image model '{name}' here; {known}")
    advice = f"download the repository '{name}' where there is a network, and give its folder"
    with quietly(), foreign(f"'{name}' cannot be read from the cache of the hub", advice):
        try:
            return StableDiffusionPipeline.from_pretrained(name, **_options(), local_files_only=True)
        except (OSError, ValueError):  # it is not in the cache, or not as a whole
            pass
    check(hub_answers(), f"'{name}' is no folder, nor in the cache of the hub, and there is no network; {advice}")
    with quietly(), foreign(f"'{name}' is no folder, and could not be fetched", advice):
        return StableDiffusionPipeline.from_pretrained(name, **_options())


def _single_file(path: str, config: str | Path | None) -> Any:
    """The pipeline of a file in Stable Diffusion's original layout; of a `.ckpt`, no code is run."""
    from diffusers import StableDiffusionPipeline

    check(os.path.isfile(path), f"no weights at '{path}'; give a .ckpt or .safetensors file, or a folder")
    advice = "give the folder of such a pipeline, whose configs and tokenizer belong to it: config=…"
    there = config is None or os.path.isfile(Path(config, "model_index.json"))
    check(there, f"'{config}' holds no model_index.json; {advice}")
    options = {**_options(), "config": str(config), "local_files_only": True} if config else _options()
    said = "give the .safetensors of the same weights, or another config"
    with quietly():
        try:
            with named_alone(path):
                return StableDiffusionPipeline.from_single_file(path, **options)
        except Exception as error:
            alone = config is None and not hub_answers()
            where = f"the configs that belong to '{path}' are not here, and there is no network; {advice}"
            check(not alone, where)
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"'{path}' cannot be read as Stable Diffusion's ({reason}); {said}") from error


class Named:
    """What stands for a class that a checkpoint names and nothing here needs."""


def named_alone(path: str) -> AbstractContextManager:
    """Inside, classes of pytorch-lightning that a `.ckpt` names, as `sd-v1-4.ckpt` does, are read as empty ones.

    torch would refuse the file otherwise, as it does where any other class is named. Nothing in it is run.

    >>> with named_alone("sd-v1-4.ckpt"):                    # doctest: +SKIP
    ...     torch.load("sd-v1-4.ckpt", weights_only=True)
    """
    names: list[str] = []
    with suppress(Exception):  # of a file that is no checkpoint, which its reader says better
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    ours = [(Named, name) for name in names if name.startswith(("pytorch_lightning.", "lightning."))]
    return torch.serialization.safe_globals(ours)


def _options() -> dict[str, Any]:
    return {**WITHOUT, "torch_dtype": torch.float32}


def _facts(folder: str) -> dict[str, Any]:
    """What a run of ours wrote beside the networks; {} where there is nothing."""
    path = Path(folder, FACTS)
    if not path.is_file():
        return {}
    with reading(path, "cannot be read as JSON", "save the pipeline again"):
        return OBJECT.validate_json(path.read_bytes())
