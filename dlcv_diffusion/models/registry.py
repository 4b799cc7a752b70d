"""Weights on disk: safetensors, with the model's name, config and facts as JSON in the file's own metadata."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..errors import UserError, check
from ..files import atomic_write
from .context_unet import ContextUnet
from .unet import UNet

FORMAT = 1
MODELS: dict[str, type[nn.Module]] = {"ContextUnet": ContextUnet, "UNet": UNet}
ASSETS = Path(__file__).parent.parent / "assets"


def shipped_weights() -> dict[str, Path]:
    """Names and files of the weights inside the package, e.g. `{"digits": …/assets/digits.safetensors}`.

    >>> shipped_weights()["digits"].name
    'digits.safetensors'
    """
    return {path.stem: path for path in sorted(ASSETS.glob("[!.]*.safetensors"))}


def _give_weights() -> str:
    """What to do instead: a file, or the names of the shipped weights that are models and can be read."""
    names = []
    for name, path in shipped_weights().items():
        with suppress(UserError):
            if path.is_file() and "model" in read_header(path):
                names.append(name)
    return f"give a .safetensors file{' or one of: ' + ', '.join(names) if names else ''}"


def build_model(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A new model of a registered class; `UserError` for an unknown name or a config that does not fit it.

    >>> build_model("UNet", {"num_classes": 20, "channels": [32, 64]}).num_classes
    20
    """
    if name not in MODELS:
        raise UserError(f"unknown model '{name}'; this version of dlcv_diffusion knows {', '.join(MODELS)}")
    try:
        return MODELS[name](**config)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the settings do not fit the model '{name}' ({error}); was the file written by a newer version?"
        ) from error


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file whole or not at all; `header` is any JSON and goes into its metadata.

    Raises `UserError` where the file cannot be written.

    >>> write_tensors("means.safetensors", {"mean": torch.zeros(3)}, {"of": "digits"})   # doctest: +SKIP
    """
    metadata = {"dlcv_diffusion": json.dumps({"format": FORMAT, **header})}
    # safetensors keeps no strides: a channels-last weight is stored as the contiguous tensor it stands for
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(contiguous, metadata))  # safetensors' own `save_file` leaves temporaries of its own


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header of a file of ours. Raises `UserError` where the file is missing, truncated, foreign or newer.

    >>> read_header(shipped_weights()["digits"])["model"]
    'UNet'
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; give the .safetensors file in it")
    if not path.is_file():
        raise UserError(f"no weights at '{path}'; {_give_weights()}")
    if not os.access(path, os.R_OK):
        raise UserError(f"you may not read '{path}'; change its permissions, or give other weights")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        hint = "; a course's .pt file is read by `dlcv convert`" if path.suffix in (".pt", ".pth") else ""
        raise UserError(f"'{path}' is not a whole safetensors file (truncated, or of another format){hint}") from error
    try:
        header = json.loads(metadata["dlcv_diffusion"])
        newer = header["format"] > FORMAT
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"'{path}' holds tensors but not the header of dlcv_diffusion; was it saved by another program?"
        ) from error
    if newer:
        raise UserError(
            f"'{path}' was written by a newer dlcv_diffusion (format {header['format']}); upgrade to read it"
        )
    return header


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a file written by `write_tensors`. Raises `UserError` as `read_header` does.

    >>> tensors, header = read_tensors(shipped_weights()["digits"])
    """
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 – not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"'{path}' is not a whole safetensors file (truncated, or of another format)") from error


def save_model(
    model: nn.Module,
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model's weights with what is needed to build it again; atomic.

    `metadata` is any JSON (the schedule's config, training facts). `dtype=torch.float16` halves the file; loading
    always gives float32. A compiled or parallel model is saved as the one inside. Raises `UserError` where
    the file cannot be written, and for weights that are not finite.

    >>> save_model(model, "runs/digits/model.safetensors", {"schedule": schedule.config})   # doctest: +SKIP
    """
    model = plain(model)
    _check_finite(model.state_dict(), path)
    state = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in model.state_dict().items()}
    write_tensors(
        path, state, {"model": type(model).__name__, "config": model.config, "metadata": dict(metadata or {})}
    )


def read_model(name_or_path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """A network from a safetensors file, or shipped weights by name, in eval mode, and what was saved as its metadata.

    It does not know what it predicts: `load_denoiser` is what to sample from. Raises `UserError` for a file that is
    missing, truncated, foreign, newer, or whose weights are not finite or do not fit its own config.

    >>> read_model("digits")[0].num_classes
    20
    """
    shipped = shipped_weights()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    state, header = read_tensors(path)
    check(
        "model" in header or path not in shipped.values(),
        f"'{path.stem}' is shipped with the package, but no model that draws; {_give_weights()}",
    )
    check("model" in header, f"'{path}' is a checkpoint or other data, not a model; give the run's model.safetensors")
    model = build_model(header["model"], header.get("config", {}))
    load_state(model, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, path)
    _check_finite(model.state_dict(), path)
    return model.eval(), header.get("metadata", {})


def plain(model: nn.Module) -> nn.Module:
    """The model itself, out of what `torch.compile` and data parallelism wrap it in.

    >>> type(plain(nn.DataParallel(nn.Linear(1, 1)))).__name__
    'Linear'
    """
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _check_finite(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    for name, tensor in state.items():
        finite = not tensor.is_floating_point() or tensor.isfinite().all()
        check(finite, f"the weights for '{path}' are not finite: '{name}' has NaN or infinite numbers; use others")


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """`model.load_state_dict`, with one sentence instead of a page in the `UserError` that it raises.

    >>> tensors, header = read_tensors(shipped_weights()["digits"])
    >>> load_state(build_model(header["model"], header["config"]), tensors, "digits")
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = shorten(" ".join(str(error).splitlines()[1:2]) or str(error), 160)
        raise UserError(f"the weights in '{source}' are not those of this {type(model).__name__}: {first}") from error
