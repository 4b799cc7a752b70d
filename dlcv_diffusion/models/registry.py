"""Weights on disk: safetensors, with the model's name, config and facts as JSON in the file's own metadata."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, with_config
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import TypedDict

from ..declared import declared, validated
from ..errors import UserError, check
from ..files import atomic_write
from ..reading import reading
from ..schedule import NoiseSchedule
from ..tensors import unwrapped
from .context_unet import ContextUnet
from .sizes import Shape
from .unet import UNet

FORMAT = 1
GIVE_WEIGHTS = "give a .safetensors file or one of: digits, faces"
MODELS: dict[str, type[nn.Module]] = {"ContextUnet": ContextUnet, "UNet": UNet}
ASSETS = Path(__file__).parent.parent / "assets"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OBJECT = TypeAdapter(dict[str, Any])  # of JSON, which is refused where it is nested 200 deep

Name = Annotated[str, Field(max_length=200)]
Prediction = Literal["eps", "v", "x0"]
ScheduleConfig = Annotated[dict[str, Any], AfterValidator(lambda config: NoiseSchedule.from_config(config).config)]


open_ended = with_config(ConfigDict(extra="allow"))  # any other key may stand there too, with any JSON
TrainFacts = open_ended(TypedDict("TrainFacts", {"prediction": Prediction}, total=False))


@open_ended
class Facts(TypedDict, total=False):
    """What a file says of its model: shape is (C, H, W) of one image, signal_leak what `SignalLeak` takes."""

    name: Name
    schedule: ScheduleConfig
    prediction: Prediction
    shape: Shape
    train: TrainFacts
    second_half: Name | None
    signal_leak: dict[str, Any] | None


def renamed(facts: Any) -> Any:
    """Facts of any age by the names of today: older versions call the shape image_size."""
    return {"shape" if key == "image_size" else key: facts[key] for key in facts} if isinstance(facts, dict) else facts


Metadata = Annotated[Facts, BeforeValidator(renamed)]


@declared
class ModelHeader:
    """The header of a model's file, beside its tensors."""

    model: Name
    config: dict[str, Any] = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=dict)
    format: int = FORMAT


def shipped_weights() -> dict[str, Path]:
    """Names and files of the weights inside the package, e.g. `{"digits": …/assets/digits.safetensors}`.

    >>> shipped_weights()["digits"].name
    'digits.safetensors'
    """
    return {path.stem: path for path in sorted(ASSETS.glob("[!.]*.safetensors"))}


def build_model(name: str, config: Mapping[str, Any], source: str | Path = "") -> nn.Module:
    """A new model of a registered class; `UserError`, naming `source`, for an unknown name or an unfit config.

    >>> build_model("UNet", {"num_classes": 20, "channels": [32, 64]}).num_classes
    20
    """
    where = f"'{source}': " if source else ""
    check(name in MODELS, f"{where}unknown model '{name}'; this version of dlcv_diffusion knows {', '.join(MODELS)}")
    try:
        return MODELS[name](**config)
    except (UserError, TypeError) as error:
        said = shorten(str(error), 200, placeholder=" …")
        what = f"{where}the settings do not fit the model '{name}' ({said})"
        raise UserError(f"{what}; was the file written by a newer version?") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file, with any JSON as its header, whole or not at all; `UserError` where that cannot be.

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
    return _opened(path, tensors=False)[1]


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file written by `write_tensors`. Raises `UserError` as `read_header` does.

    >>> tensors, header = read_tensors(shipped_weights()["digits"])
    """
    return _opened(path, tensors=True)


def _opened(path: str | Path, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = Path(path)
    check(not os.path.isdir(path), f"'{path}' is a folder; give the .safetensors file in it")
    if not os.path.isfile(path):
        raise UserError(f"no weights at '{path}'; {GIVE_WEIGHTS}")
    check(os.access(path, os.R_OK), f"you may not read '{path}'; change its permissions, or give other weights")
    advice = "a course's .pt file is read by `dlcv convert`" if path.suffix in (".pt", ".pth") else "give another"
    whole = "is not a whole safetensors file (truncated, or of another format)"
    with reading(path, whole, advice), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        found = {name: file.get_tensor(name) for name in file.keys() if tensors}  # noqa: SIM118 – not a dict
    header = None
    with suppress(ValueError):
        header = OBJECT.validate_json(metadata.get("dlcv_diffusion", "null"))
    written = (header or {}).get("format")
    foreign = f"'{path}' holds tensors but not the header of dlcv_diffusion; was it saved by another program?"
    check(isinstance(written, int) and written >= 1, foreign)
    newer = f"'{path}' was written by a newer dlcv_diffusion (format {str(written)[:9]}); upgrade to read it"
    check(written <= FORMAT, newer)
    return found, header


def save_model(
    model: nn.Module, path: str | Path, metadata: Mapping[str, Any] | None = None, *, dtype: torch.dtype | None = None
) -> None:
    """Write a model's weights and `Facts`, with what is needed to build it again; atomic.

    `dtype=torch.float16` halves the file; loading gives float32. Of a compiled or parallel model, the one inside is
    saved. Raises `UserError` for another class, weights that are not finite in `dtype`, and a path not to be written.

    >>> save_model(model, "runs/digits/model.safetensors", {"schedule": schedule.config})   # doctest: +SKIP
    """
    model, name = plain(model), type(plain(model)).__name__
    check(dtype in (None, *FLOATS), f"weights are saved in floating-point numbers of 16 bits or more, not in {dtype}")
    check(name in MODELS, f"cannot save a {name} in '{path}'; give a {' or '.join(MODELS)}, such as denoiser.model")
    metadata = validated(Metadata, dict(metadata or {}), f"the metadata for '{path}'")
    state = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in model.state_dict().items()}
    _check_finite(state, path)
    write_tensors(path, state, {"model": name, "config": model.config, "metadata": metadata})


def read_model(name_or_path: str | Path) -> tuple[nn.Module, Facts]:
    """A bare network from a safetensors file, or shipped weights by name, in eval mode, and its facts.

    To sample, `load_denoiser`. Raises `UserError` as `read_header` and `model_from` do.

    >>> read_model("digits")[0].num_classes
    20
    """
    shipped = shipped_weights()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    state, header = read_tensors(path)
    if "model" not in header and path in shipped.values():
        raise UserError(f"'{path.stem}' is shipped with the package, but no model that draws; {GIVE_WEIGHTS}")
    check("model" in header, f"'{path}' is a checkpoint or other data, not a model; give the run's model.safetensors")
    header = validated(ModelHeader, header, f"'{path}'")
    return model_from(header.model, header.config, state, path), header.metadata


class Undrawn(TorchFunctionMode):
    """Inside, initial weights are not drawn: on the meta device, where they take no memory, others take their place."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        drawn = func in (nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_)
        return kwargs["tensor"] if drawn else func(*args, **(kwargs or {}))


def model_from(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor], source: str | Path) -> nn.Module:
    """A model with copies of these weights, in eval mode on the CPU; `UserError` as of `build_model` and `filled`.

    >>> unet = UNet(channels=(8, 16))
    >>> again = model_from("UNet", unet.config, unet.state_dict(), "unet")
    """
    with torch.device("meta"), Undrawn():
        model = build_model(name, config, source)
    return filled(model, state, source).eval()


def filled(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> nn.Module:
    """The model, of the meta device, with copies of these weights in its own types: sizes fit before there is memory.

    Raises `UserError` for weights that do not fit, are no floating-point numbers, or are not finite.
    """
    state, wanted = unwrapped(state), model.state_dict()
    for key in [key for key in wanted if key in state]:
        kind = state[key].dtype
        fits = kind in FLOATS or kind == wanted[key].dtype
        check(fits, f"the weights in '{source}' are no floating-point numbers of 16 bits or more: '{key}' is {kind}")
    state = {k: v.to(wanted[k].dtype, copy=True) if k in wanted else v for k, v in state.items()}
    load_state(model, state, source, assign=True)
    _check_finite(model.state_dict(), source)
    return model


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


def _check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    for name, tensor in state.items():
        finite = not tensor.is_floating_point() or tensor.isfinite().all()
        check(finite, f"the weights for '{path}' are not finite: '{name}' has NaN or infinite numbers; use others")


def shipped_path(name: str, shipped: Mapping[str, Path], what: str, advice: str) -> Path | None:
    """Where what ships under this name is, None for a name of none; `UserError` for weights that did not come along.

    >>> shipped_path("runs/new/model", {}, "CLIP", "train it")
    """
    path = shipped.get(name)
    here = path is None or path.exists()
    check(here, f"the weights of the {what} '{name}' are not in this version; {advice}")
    return path


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str | Path, *, assign: bool = False) -> None:
    """`model.load_state_dict`, with one sentence instead of a page in the `UserError` that it raises.

    >>> tensors, header = read_tensors(shipped_weights()["digits"])
    >>> load_state(build_model(header["model"], header["config"]), tensors, "digits")
    """
    try:
        model.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        first = shorten(" ".join(str(error).splitlines()[1:2]) or str(error), 160)
        raise UserError(f"the weights in '{source}' are not those of this {type(model).__name__}: {first}") from error


def short_hash(tensors: Iterable[Tensor]) -> str:
    """16 hexadecimal digits of a SHA-256 over the tensors' bytes.

    >>> short_hash([torch.arange(3)]) == short_hash([torch.arange(3)]) != short_hash([torch.arange(4)])
    True
    """
    arrays = (tensor.detach().cpu().flatten().view(torch.uint8).numpy() for tensor in tensors)
    return sha256(b"".join(sha256(array).digest() for array in arrays)).hexdigest()[:16]
