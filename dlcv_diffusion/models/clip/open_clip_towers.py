"""A CLIP of open_clip's, by name and tag, from a file, a folder or the hub; and ours, which is one of them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import UserError, check
from ...reading import reading
from ...tensors import read_state_dict
from ..foreign import foreign, quietly
from ..registry import load_state
from .network import fetched
from .small import MEAN_STD, SmallClip

OPENAI = {"input_resolution", "context_length", "vocab_size"}
"""Numbers that OpenAI's own archives hold beside the weights."""
QUICK_FILES = re.compile("openai|quick[-_]?gelu|metaclip", re.IGNORECASE)
"""Names of files whose weights were trained with QuickGELU, where the file is none of a tag's."""


class OpenClipTowers(nn.Module):
    """See `encoder.Towers`. Resizing is open_clip's own, of PIL: bicubic and anti-aliased, then the middle square."""

    def __init__(self, model: nn.Module, tokenizer: Any, preprocess: Mapping[str, Any]):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        config = PreprocessCfg(**preprocess)
        self.size = (config.size, config.size) if isinstance(config.size, int) else tuple(config.size)
        self.transform = image_transform_v2(config, is_train=False)
        self.mean_std = [torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std)]

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        return torch.stack([self.transform(picture) for picture in pictures])

    def prepare_pixels(self, images: Tensor) -> Tensor | None:
        if tuple(images.shape[2:]) != self.size:
            return None
        mean, std = self.mean_std
        return images.float().div_(255).sub_(mean).div_(std)

    def images(self, x: Tensor) -> Tensor:
        return self.model.encode_image(x)

    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        most = self.tokenizer.context_length
        for text in texts:
            count = self._length(text)
            check(count <= most, f"'{text:.60}' is {count} tokens long, and this CLIP reads {most}; say it shorter")
        return self.model.encode_text(self.tokenizer(list(texts)).to(device))

    def _length(self, text: str) -> int:
        """Tokens of a text, the special ones too: open_clip's tokenizers cut it without a word."""
        if hasattr(self.tokenizer, "encode"):
            return len(self.tokenizer.encode(text)) + 2
        with quietly():  # one of transformers' inside
            return len(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text)).input_ids)

    def scale(self) -> Tensor:
        return self.model.logit_scale.detach().exp().squeeze()


def own_towers(clip: SmallClip) -> OpenClipTowers:
    """The towers of a CLIP that was trained here."""
    from .tokenizer import clip_tokenizer

    preprocess = {"size": clip.config.image_size, "mean": MEAN_STD, "std": MEAN_STD}
    return OpenClipTowers(clip.model, clip_tokenizer(clip.merges, clip.config.context), preprocess)


def known_name(name: str) -> str | None:
    """open_clip's own spelling of a model's name, "ViT-B/32" or "vit-b-32" too; None where it knows none of that name.

    >>> known_name("ViT-B/32")
    'ViT-B-32'
    """
    import open_clip

    wanted = name.replace("/", "-").lower()
    return next((known for known in open_clip.list_models() if known.lower() == wanted), None)


def open_clip_towers(
    name: str, pretrained: str | None, quick_gelu: bool | None = None
) -> tuple[OpenClipTowers, list[str]]:
    """The towers of a model that `known_name` knows, with a tag's weights or those in a file; and notes about them.

    OpenAI's weights, and some others, were trained with QuickGELU, x·σ(1.702 x): in a model with plain GELU they load
    and silently lose points (open_clip only warns). Here the activation follows the weights, and a note says so.
    Of a tag it is known, and so is how pictures are normalised; also of a file that is a tag's (`tag_of`), and of
    OpenAI's own archives. Of others the name may tell (`QUICK_FILES`); where nothing does, a note says what is assumed.

    - quick_gelu: decides where it is not known.

    Raises `UserError` for an unknown tag, a file that is missing, damaged or another model's, a `quick_gelu` that
    contradicts what is known, and without a network.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(name)
    some = (
        f"a tag, such as {' or '.join(tags[:2])} (open_clip.list_pretrained() has all)" if tags else "its own weights"
    )
    check(pretrained, f"'{name}' is a network without weights; give pretrained (--pretrained): {some}, or a file")
    tagged = get_pretrained_cfg(name, pretrained)
    if not tagged and not os.path.isfile(pretrained):
        raise UserError(f"'{pretrained}' is neither a file nor a tag of '{name}'; give {some}, or a file")
    path = fetched(name, pretrained, tagged) if tagged else Path(pretrained)
    tagged = tagged or tag_of(name, path)
    state, of_openai = read_weights(path)
    wanted, notes = _activation(name, path, tagged, of_openai, quick_gelu)
    with quietly(), foreign(f"open_clip cannot build '{name}'", "give another name, see open_clip.list_models()"):
        model = open_clip.create_model(name, force_custom_text=False, quick_gelu=wanted, load_weights=False)
        tokenizer = open_clip.get_tokenizer(name)
    load_into(model, state, path)
    return OpenClipTowers(model.eval(), tokenizer, _preprocess(model, tagged or _common(name, tags))), notes


def _activation(
    name: str, path: Path, tagged: Mapping[str, Any], of_openai: bool, asked: bool | None
) -> tuple[bool, list[str]]:
    """Whether to compute with QuickGELU, and what to say of it; see `open_clip_towers`."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    built, kind = bool(open_clip.get_model_config(name).get("quick_gelu")), {True: "QuickGELU", False: "GELU"}
    if tagged or of_openai:
        wanted = of_openai or bool(tagged.get("quick_gelu"))
        said = f"these weights of '{name}' were trained with {kind[wanted]}"
        check(asked in (None, wanted), f"{said}; leave quick_gelu (--quick-gelu, --no-quick-gelu) out")
    else:
        wanted = built or bool(QUICK_FILES.search(path.name)) if asked is None else asked
    if wanted != built:
        said = f"'{name}' has {kind[built]}, but these weights were trained with {kind[wanted]}: computed with that"
        return wanted, [said]
    tags = list_pretrained_tags_by_model(name)
    alike = {bool(get_pretrained_cfg(name, tag).get("quick_gelu")) for tag in tags} <= {built} and _common(name, tags)
    if tagged or of_openai or asked is not None or not tags or alike:
        return wanted, []
    said = f"'{path.name}' does not say which weights of '{name}' it holds: computed with {kind[wanted]}"
    return wanted, [f"{said}; if they are a tag's, name the file after it, such as {tags[0]}{path.suffix}"]


def tag_of(name: str, path: Path) -> Mapping[str, Any]:
    """What open_clip knows of a file: one that is named after a tag, or as it is downloaded, or lies in a folder that
    is named after its repository; empty for any other.

    >>> tag_of("ViT-B-32", Path("openai.safetensors"))["quick_gelu"]
    True
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    found = get_pretrained_cfg(name, path.stem)
    for tag in () if found else list_pretrained_tags_by_model(name):
        tagged = get_pretrained_cfg(name, tag)
        repository = tagged.get("hf_hub", "").rstrip("/")
        folders = {repository.rpartition("/")[2], f"models--{repository.replace('/', '--')}"}
        if path.name == os.path.basename(tagged.get("url", "")) or (repository and folders & set(path.parts[:-1])):
            return tagged
    return found


def open_clip_folder(folder: str | Path) -> OpenClipTowers:
    """The towers of a folder with `open_clip_config.json` and its weights, as open_clip pushes them to the hub."""
    import open_clip
    from open_clip.factory import _find_checkpoint_in_dir

    where = f"local-dir:{folder}"
    with (
        quietly(),
        foreign(f"open_clip cannot read '{folder}'", "give a folder with open_clip_config.json and weights"),
    ):
        path = _find_checkpoint_in_dir(Path(folder))
        model = open_clip.create_model(where, load_weights=False)
        tokenizer = open_clip.get_tokenizer(where)
    check(path, f"'{folder}' holds no weights (open_clip_model.safetensors); download them into it")
    load_into(model, read_weights(path)[0], path)
    return OpenClipTowers(model.eval(), tokenizer, _preprocess(model, {}))


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], bool]:
    """The state dict in a safetensors, `.pt`, `.pth` or `.bin` file, no code of which is run; and whether it is an
    archive of OpenAI's.

    Raises `UserError` for a file that is missing, damaged or foreign.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with reading(path, "is not a whole safetensors file", "give another"):
            return load_file(path), False
    if _is_archive(path):  # TorchScript, as OpenAI's files are: of its code, nothing is called
        with reading(path, "is not a whole TorchScript archive", "give another"):
            state = torch.jit.load(path, map_location="cpu").state_dict()
        beside = OPENAI & state.keys()
        return {name: value.float() for name, value in state.items() if name not in OPENAI}, bool(beside)
    return read_state_dict(path), False


def _is_archive(path: Path) -> bool:
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as file:
            return any(name.split("/")[1:2] == ["constants.pkl"] for name in file.namelist())
    except (OSError, BadZipFile):
        return False


def load_into(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Fill a model of open_clip's with weights of its own, older or foreign names; `UserError` where they do not."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    with quietly(), foreign(f"the weights in '{path}' are none of CLIP's", "give those of the model that was named"):
        state = convert_state_dict(model, dict(state))
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
    state.pop("text.transformer.embeddings.position_ids", None)  # which older transformers saved
    for name in ("logit_scale", "logit_bias"):
        if name in state and getattr(model, name, None) is not None:
            state[name] = state[name].reshape(getattr(model, name).shape)
    load_state(model, state, path)
    wrong = next((name for name, value in model.state_dict().items() if not value.isfinite().all()), None)
    check(wrong is None, f"the weights in '{path}' are not finite: '{wrong}' has NaN or infinite numbers; use others")


def _preprocess(model: nn.Module, tagged: Mapping[str, Any]) -> dict[str, Any]:
    from open_clip.transform import merge_preprocess_dict

    return {**merge_preprocess_dict(model.visual.preprocess_cfg, tagged), "size": model.visual.image_size}


def _common(name: str, tags: Sequence[str]) -> Mapping[str, Any]:
    """How pictures are prepared for a model, whatever its weights, if all its tags say the same."""
    from open_clip.pretrained import get_pretrained_cfg

    keys = ("mean", "std", "interpolation", "resize_mode")
    found = [{key: get_pretrained_cfg(name, tag).get(key) for key in keys} for tag in tags]
    return found[0] if found and all(each == found[0] for each in found) else {}
