"""One door for every CLIP: ours, open_clip's by name, a file, a folder, or a name on the hub."""

import os
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from ... import device as devices
from ...errors import check
from ..foreign import foreign, quietly
from ..registry import ASSETS, shipped_path
from .encoder import Clip
from .network import hub_answers
from .open_clip_towers import known_name, open_clip_folder, open_clip_towers, own_towers
from .small import read_small_clip
from .transformers_towers import transformers_towers

SHIPPED = {"emoji": ASSETS / "emoji_clip.safetensors"}
HUB = "hf-hub:"


def load_clip(
    name: str | Path = "emoji",
    pretrained: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    quick_gelu: bool | None = None,
) -> Clip:
    """A CLIP as an encoder of pictures and texts, in eval mode and float32, on `device` (the best there is by default).

    - name: "emoji", the one that ships; a `model.safetensors` of `dlcv train clip`; a name of open_clip's, such as
      "ViT-B-32", with `pretrained`; a folder of transformers' `CLIPModel`, or of open_clip's; a name on the hub,
      "hf-hub:owner/name" or "owner/name", of either.
    - pretrained: one of the model's tags, such as "openai", or a file: safetensors, or `.pt`, of which no code is run.
      Named after its tag, "openai.safetensors", it is treated as that tag's weights are.
    - quick_gelu: which activation the weights of a file were trained with, where it cannot be known, see
      `open_clip_towers`. What is switched is said in `clip.notes`.

    Raises `UserError` for what is missing, damaged or does not fit, and at once where weights would have to be fetched
    without a network.

    >>> clip = load_clip("ViT-B-32", "openai")   # doctest: +SKIP
    >>> clip.notes[0]                            # doctest: +SKIP
    "'ViT-B-32' has GELU, but these weights were trained with QuickGELU: computed with that"
    """
    text, trained = str(name), "train it by `dlcv train clip` and give runs/clip/model.safetensors"
    other = 'or give another CLIP, such as "ViT-B-32" with pretrained (--pretrained) and a tag or file'
    shipped = shipped_path(text, SHIPPED, "CLIP", f"{trained}, {other}")
    known = None if shipped or text.startswith(HUB) or os.path.isdir(text) else known_name(text)
    said = f"quick_gelu (--quick-gelu) does nothing for '{text}', which says itself what it computes"
    check(known is not None or quick_gelu is None, f"{said}; leave it out")
    if pretrained is None and (shipped or text.endswith(".safetensors")):
        clip = read_small_clip(shipped or Path(name))
        return _ready(own_towers(clip), device, str(clip.facts.get("name", text)), clip.facts)
    if known is not None:
        towers, notes = open_clip_towers(known, pretrained and str(pretrained), quick_gelu)
        return _ready(towers, device, f"{known}, {os.path.basename(str(pretrained))}", notes=notes)
    if pretrained is not None and not os.path.exists(text):
        from open_clip import list_models

        near = get_close_matches(text, list_models(), 1)
        check(not near, f"open_clip has no model '{text}'; did you mean '{''.join(near)}'?")
    check(pretrained is None, f"pretrained (--pretrained) does nothing for '{text}', which has weights of its own")
    folder = text if os.path.isdir(text) else _downloaded(text)
    whole = any(os.path.isfile(Path(folder, file)) for file in ("open_clip_config.json", "config.json"))
    check(whole, f"'{text}' holds neither config.json nor open_clip_config.json; give the folder of a whole CLIP")
    of_open_clip = os.path.isfile(Path(folder, "open_clip_config.json"))
    towers = open_clip_folder(folder) if of_open_clip else transformers_towers(folder)
    return _ready(towers, device, Path(text).resolve().name if os.path.isdir(text) else text)


def _ready(towers: nn.Module, device: torch.device | str | None, name: str, facts=None, notes=()) -> Clip:
    return devices.prepare(Clip(towers, name, facts, notes), device).eval()


def _downloaded(name: str) -> str:
    """The folder of a repository of the hub: in this machine's cache, or fetched."""
    from huggingface_hub import snapshot_download

    repository = name.removeprefix(HUB)
    known = 'give "emoji", a name of open_clip.list_models(), a folder, or hf-hub:owner/name'
    known += "; a file of weights goes into pretrained (--pretrained)" if os.path.isfile(name) else ""
    check(repository.count("/") == 1 and not repository.startswith((".", "/", "~")), f"no CLIP '{name}' here; {known}")
    wanted = ["*.json", "*.txt", "*.safetensors", "*.model", "*.gz"]
    advice = f"download the repository '{repository}' where there is a network, and give its folder"
    with suppress(OSError, ValueError):  # it is not in the cache
        folder = snapshot_download(repository, allow_patterns=wanted, local_files_only=True)
        if _has_weights(folder):
            return folder
    check(hub_answers(), f"'{name}' is no folder, nor in the cache of the hub, and there is no network; {advice}")
    with quietly(), foreign(f"'{name}' is no folder, and could not be fetched", advice):
        folder = snapshot_download(repository, allow_patterns=wanted)
        # older repositories have no safetensors; no code in their .bin is run
        return folder if _has_weights(folder) else snapshot_download(repository, allow_patterns=[*wanted, "*.bin"])


def _has_weights(folder: str) -> bool:
    return any(path.suffix in (".safetensors", ".bin") for path in Path(folder).iterdir())
