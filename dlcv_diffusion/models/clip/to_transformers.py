"""A CLIP of ours in transformers' format: its text half, which Stable Diffusion freezes, and the whole if it is a ViT.

The networks are the same; only names differ, and transformers keeps queries, keys and values apart.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import check
from ...files import staging_folder
from ..foreign import quietly
from ..registry import load_state
from .names import TEXT, VISION, as_transformers
from .small import MEAN_STD, SmallClip
from .tokenizer import write_tokenizer


def text_model(clip: SmallClip) -> nn.Module:
    """The text half as transformers' `CLIPTextModel`, in eval mode, with copies of the weights.

    `text_model(clip)(ids).last_hidden_state` is what Stable Diffusion's U-Net looks at; `pooler_output`, that at the
    first end token, is what the projection to the common space begins with.

    >>> encoder = text_model(read_small_clip("model.safetensors"))       # doctest: +SKIP
    >>> encoder(ids).last_hidden_state.shape                             # doctest: +SKIP
    torch.Size([1, 16, 128])
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        model = CLIPTextModel(CLIPTextConfig(**_text_config(clip)))
    _fill(model, dict(as_transformers(clip.model.state_dict(), TEXT)), "text_model.")
    return model.eval()


def text_tokenizer(clip: SmallClip) -> Any:
    """transformers' `CLIPTokenizer` with the merges of this CLIP, which fills up to its context.

    >>> text_tokenizer(clip)("a fox").input_ids   # doctest: +SKIP
    [1200, 320, 871, 1201]
    """
    from transformers import CLIPTokenizer

    with TemporaryDirectory() as folder, quietly():
        write_tokenizer(folder, clip.merges, clip.config.context)
        return CLIPTokenizer.from_pretrained(folder)


def write_text_encoder(clip: SmallClip, folder: str | Path) -> None:
    """Write `text_encoder/` and `tokenizer/`, the parts of a Stable Diffusion pipeline's folder.

    Raises `UserError` where they cannot be written.

    >>> write_text_encoder(read_small_clip("model.safetensors"), "pipeline")   # doctest: +SKIP
    """
    with staging_folder(folder) as staging:
        with quietly():
            text_model(clip).save_pretrained(staging / "text_encoder")
        write_tokenizer(staging / "tokenizer", clip.merges, clip.config.context)


def whole_model(clip: SmallClip) -> nn.Module:
    """Both halves as transformers' `CLIPModel`, in eval mode. Raises `UserError` for a CLIP with a ResNet.

    >>> model = whole_model(read_small_clip("model.safetensors"))   # doctest: +SKIP
    """
    from transformers import CLIPConfig, CLIPModel

    config, state = clip.config, clip.model.state_dict()
    of_vit = isinstance(config.vision_layers, int)
    check(of_vit, "transformers' CLIPModel has a ViT, and this CLIP a ResNet; text_model(clip) gives its text half")
    vision = {"hidden_size": config.vision_width, "intermediate_size": 4 * config.vision_width}
    vision |= {"num_hidden_layers": config.vision_layers, "image_size": config.image_size, "hidden_act": "gelu"}
    vision |= {"patch_size": config.patch_size, "num_attention_heads": config.vision_width // config.head_width}
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(
            CLIPConfig(text_config=_text_config(clip), vision_config=vision, projection_dim=config.embed_dim)
        )
    seen = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    halves = {"text_model.": as_transformers(state, TEXT)}
    halves["vision_model."] = as_transformers(seen, VISION)
    found = {prefix + name: value for prefix, half in halves.items() for name, value in half}
    found |= {"text_projection.weight": state["text_projection"].T, "visual_projection.weight": seen["proj"].T}
    _fill(model, {**found, "logit_scale": state["logit_scale"]})
    return model.eval()


def write_transformers_folder(clip: SmallClip, folder: str | Path) -> None:
    """Write a folder that `CLIPModel`, `CLIPProcessor` and transformers' pipelines read. Raises `UserError` as
    `whole_model` does, and where it cannot be written.

    >>> write_transformers_folder(clip, "clip")                                     # doctest: +SKIP
    >>> pipeline("zero-shot-image-classification", "clip")                          # doctest: +SKIP
    """
    from transformers import CLIPImageProcessor

    model, side = whole_model(clip), clip.config.image_size
    sides = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    with staging_folder(folder) as staging:
        with quietly():
            model.save_pretrained(staging)
            CLIPImageProcessor(**sides, image_mean=MEAN_STD, image_std=MEAN_STD).save_pretrained(staging)
        write_tokenizer(staging, clip.merges, clip.config.context)


def _text_config(clip: SmallClip) -> dict[str, Any]:
    config, end = clip.config, len(clip.model.token_embedding.weight) - 1
    found = {"vocab_size": end + 1, "hidden_size": config.text_width, "intermediate_size": 4 * config.text_width}
    found |= {"num_hidden_layers": config.text_layers, "num_attention_heads": config.text_heads, "hidden_act": "gelu"}
    found |= {"max_position_embeddings": config.context, "projection_dim": config.embed_dim}
    return {**found, "eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}


def _fill(model: nn.Module, weights: Mapping[str, Tensor], older: str = "") -> None:
    """Copy the weights in; versions of transformers before 5 have one more name before those of the text half."""
    wanted = model.state_dict()
    prefix = older if older and all(name.startswith(older) for name in wanted) else ""
    kept = {name: value for name, value in wanted.items() if name.endswith("position_ids")}
    load_state(model, {**kept, **{prefix + name: value for name, value in weights.items()}}, "the CLIP of ours")
