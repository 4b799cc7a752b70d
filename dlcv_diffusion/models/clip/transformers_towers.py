"""A CLIP in transformers' format: a folder with `config.json`, weights, tokenizer and image processor, or a name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ...errors import check
from ..foreign import foreign, quietly

GIVE = "give a folder that CLIPModel.save_pretrained and CLIPProcessor.save_pretrained wrote"


class TransformersTowers(nn.Module):
    """See `encoder.Towers`. Pictures are prepared, and texts padded, as transformers' own pipeline does it."""

    def __init__(self, model: nn.Module, tokenizer: Any, processor: Any):
        super().__init__()
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        side = model.config.vision_config.image_size
        self.size = (side, side) if isinstance(side, int) else tuple(side)
        self.context = model.config.text_config.max_position_embeddings

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]

    def prepare_pixels(self, images: Tensor) -> Tensor | None:
        return None  # what the processor does is its own affair

    def images(self, x: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(pixel_values=x))

    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        with quietly():
            tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        for text, count in zip(texts, tokens["attention_mask"].sum(1).tolist(), strict=True):
            fits = count <= self.context
            check(fits, f"'{text:.60}' is {count} tokens long, and this CLIP reads {self.context}; say it shorter")
        return _pooled(self.model.get_text_features(**tokens.to(device)))

    def scale(self) -> Tensor:
        return self.model.logit_scale.detach().exp().squeeze()


def _pooled(found: Any) -> Tensor:
    """The projected features; newer versions of transformers wrap them."""
    return found if isinstance(found, Tensor) else found.pooler_output


def transformers_towers(source: str | Path) -> TransformersTowers:
    """The towers of a `CLIPModel`, in eval mode and float32 on the CPU, from a folder or a name on the hub.

    No code in the folder is run. Raises `UserError` for a folder that lacks a part or holds another model, and weights
    that are missing, damaged or not its own.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

    source = str(source)
    with quietly(), foreign(f"'{source}' has no config that can be read", GIVE):
        kind = AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    check(kind == "clip", f"'{source}' holds a model of the kind '{kind:.60}', no CLIP; {GIVE}")
    with quietly(), foreign(f"the weights in '{source}' cannot be read", GIVE):
        safe = _safe(source)
        model, found = CLIPModel.from_pretrained(source, output_loading_info=True, **safe)
    wrong = [*found["missing_keys"], *found.get("mismatched_keys", [])]
    check(not wrong, f"the weights in '{source}' are not whole: {str(wrong[:1]):.100} is missing or does not fit")
    with quietly(), foreign(f"'{source}' has no tokenizer that can be read", GIVE):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    with quietly(), foreign(f"'{source}' has no image processor that can be read", GIVE):
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
    return TransformersTowers(model.float().eval(), tokenizer, processor)


def _safe(source: str) -> dict[str, bool]:
    """Safetensors where the folder has them; else transformers reads `.bin` with `weights_only=True`."""
    here = os.path.isdir(source) and any(Path(source).glob("*.safetensors"))
    return {"use_safetensors": True} if here else {}
