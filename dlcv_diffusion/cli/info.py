"""What is installed and found here, for `dlcv info` and for bug reports."""

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..device import best_device, has_fast_bf16
from ..errors import UserError, check

PACKAGES = (
    "torch torchvision accelerate diffusers transformers open_clip_torch safetensors matplotlib ipywidgets jupyterlab"
)


def describe_installation() -> str:
    """Versions, device, shipped weights and data, one fact a line.

    >>> print(describe_installation())   # doctest: +SKIP
    """
    from ..digits.data import load_digits
    from ..models.registry import read_header, shipped_weights
    from ..models.text_to_image.loading import SHIPPED as pipelines

    lines = [
        f"dlcv_diffusion   {__version__}",
        f"Python           {platform.python_version()} on {platform.platform()}",
    ]
    for package in PACKAGES.split():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        lines.append(f"{package:<17}{version}")
    device = best_device()
    gpu = ""
    if device.type == "cuda":
        gpu = f" ({torch.cuda.get_device_name(device)}, {torch.cuda.device_count()} in all)"
    bf16 = "bfloat16 is fast" if has_fast_bf16(device) else "float32 is used"
    lines.append(f"device           {device}{gpu}, {torch.get_num_threads()} CPU threads, {bf16}")
    for name, path in shipped_weights().items():
        found = _found(lambda path=path: f"{_kind(read_header(path))}, {path.stat().st_size / 1e6:.1f} MB")
        lines.append(f"weights          {name}: {found}")
    for folder in pipelines.values():
        lines.append(f"weights          {folder.name}: {_found(lambda folder=folder: _pipeline(folder))}")
    for split in ("train", "held_out"):
        count = _found(lambda split=split: f"{len(load_digits('sample', split=split)):,} digits")
        lines.append(f"data             embedded sample, {split}: {count}")
    return "\n".join(lines)


def _kind(header: Mapping[str, Any]) -> str:
    """What weights are those of: a network that draws, by its class, or what is measured with."""
    others = {"clip": "CLIP", "face_encoder": "encoder", "judge": "classifiers", "scene_judge": "classifier"}
    return header.get("model") or next((said for key, said in others.items() if key in header), "tensors")


def _pipeline(folder: Path) -> str:
    check((folder / "model_index.json").is_file(), f"'{folder}' is not there")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"text-to-image model, {size / 1e6:.1f} MB"


def _found(describe: Callable[[], str]) -> str:
    """What is found, or why it is not: this page is read where something is broken."""
    try:
        return describe()
    except (UserError, OSError) as error:
        return f"not readable: {error}"
