"""A CLIP small enough to be trained on a CPU and to ship: one of open_clip's own `CLIP`, from a config of ours.

Its file holds the weights, the config, the merges of its tokenizer and its facts. Where a pipeline beside it holds the
same text half, it may name that instead of holding it a second time.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from ...declared import declared, validated
from ...errors import check
from ...noise import seeded_weights
from ...reading import reading
from ..registry import FORMAT, Name, filled, open_ended, plain, read_tensors, short_hash, write_tensors
from .names import as_open_clip, text_names
from .tokenizer import Merge, checked_merges

MEAN_STD = (0.5, 0.5, 0.5)
"""Both of the pixels' mean and of their standard deviation: x in [−1, 1], as everywhere in this package."""

Small = Annotated[int, Field(strict=True, ge=1, le=64)]
Width = Annotated[int, Field(strict=True, ge=8, le=1024)]
Layers = Annotated[int, Field(strict=True, ge=1, le=24)]


@declared
class SmallClipConfig:
    """Sizes of both halves.

    - vision_layers: four numbers make CLIP's ResNet (`ModifiedResNet`: anti-aliased strides, attention pooling), one
      makes a ViT of patches of `patch_size`. Attention heads have `head_width` channels each.
    - text_width, text_layers, text_heads: of the text transformer; context: tokens it reads, the two special ones too.

    >>> SmallClipConfig(vision_layers=6, vision_width=128).image_size
    64
    """

    embed_dim: Width = 128
    image_size: Annotated[int, Field(strict=True, ge=8, le=512)] = 64
    vision_layers: Layers | tuple[Layers, Layers, Layers, Layers] = (1, 1, 1, 1)
    vision_width: Width = 16
    head_width: Width = 64
    patch_size: Small = 8
    text_width: Width = 128
    text_layers: Layers = 4
    text_heads: Small = 4
    context: Annotated[int, Field(strict=True, ge=4, le=512)] = 16

    def for_open_clip(self, words: int) -> dict[str, Any]:
        """The arguments of open_clip's `CLIP` for a vocabulary of so many tokens, the end token the last of them.

        The features of a text are those at its first end token, wherever tokens that are added later come to stand.
        """
        of_resnet = isinstance(self.vision_layers, tuple)
        vision = {"image_size": self.image_size, "width": self.vision_width, "head_width": self.head_width}
        vision |= {"layers": list(self.vision_layers)} if of_resnet else {"layers": self.vision_layers}
        vision |= {} if of_resnet else {"patch_size": self.patch_size}
        text = {"context_length": self.context, "vocab_size": words, "width": self.text_width}
        text |= {"heads": self.text_heads, "layers": self.text_layers, "pool_type": "eos", "eos_id": words - 1}
        return {"embed_dim": self.embed_dim, "vision_cfg": vision, "text_cfg": text}


Names = list[Annotated[str, Field(max_length=200)]]


@open_ended
class ClipFacts(TypedDict, total=False):
    """What its file says of it: what it was trained on, and the templates that suit it."""

    name: Name
    artists: Names
    classes: Names
    styles: Names
    templates: Names


def below(path: str) -> str:
    """The path of a safetensors file below a folder; `ValueError` for any other."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or not path.endswith(".safetensors"):
        raise ValueError(f"'{path}' is not a .safetensors file in a folder below that of the CLIP")
    return path


@declared
class SmallClipHeader:
    """What its file says beside the tensors; the format is `models.registry`'s.

    - text_half: where the weights of a `CLIPTextModel` lie that are its text half, below its own folder, and their
      hash.
    """

    clip: SmallClipConfig
    merges: Annotated[Names, Field(max_length=65_536)]
    text_half: tuple[Annotated[str, Field(max_length=200), AfterValidator(below)], Name] | None = None
    metadata: ClipFacts = Field(default_factory=dict)
    format: Literal[1] = FORMAT


@dataclass(frozen=True)
class SmallClip:
    """open_clip's `model`, with what it was built of: `config`, and the `merges` of its tokenizer; and its `facts`."""

    model: nn.Module
    config: SmallClipConfig
    merges: Sequence[Merge]
    facts: Mapping[str, Any]


def build_small_clip(config: SmallClipConfig, merges: Sequence[Merge], seed: int = 0) -> nn.Module:
    """A new `open_clip.CLIP`, whose initial weights follow from `seed` alone; torch's own generator stays as it was.

    Raises `UserError` for sizes that do not fit together.

    >>> model = build_small_clip(SmallClipConfig(), merges=[])
    >>> [tuple(part.shape) for part in model(torch.zeros(2, 3, 64, 64), torch.zeros(3, 16, dtype=torch.int64))]
    [(2, 128), (3, 128), ()]
    """
    from open_clip.model import CLIP

    heads = config.vision_width * (32 if isinstance(config.vision_layers, tuple) else 1) / config.head_width
    fits = heads.is_integer() and config.text_width % config.text_heads == 0 and config.image_size % 32 == 0
    check(fits, f"the widths of {config} do not divide among the heads, or its image_size is no multiple of 32")
    with seeded_weights(seed):
        return CLIP(**config.for_open_clip(512 + len(merges) + 2))


def save_small_clip(
    clip: SmallClip, path: str | Path, *, dtype: torch.dtype | None = None, text_half: str | None = None
) -> None:
    """Write its weights (`dtype=torch.float16` halves the file), config, merges and facts; atomic.

    - text_half: weights of a `CLIPTextModel` in a folder beside `path`, equal to the text half in `dtype`, such as
      "pipeline/text_encoder/model.safetensors": the file names them and leaves its own out.

    Raises `UserError` for weights that are not finite in `dtype`, a text half that is another one or elsewhere, and a
    path not to be written.

    >>> save_small_clip(clip, "runs/clip/model.safetensors")   # doctest: +SKIP
    """
    state = plain(clip.model).state_dict()
    state = {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in state.items()}
    finite = all(v.isfinite().all() for v in state.values())
    check(finite, f"the weights for '{path}' are not finite; train with a lower learning rate, or save in float32")
    header = {"clip": asdict(clip.config), "merges": [" ".join(merge) for merge in clip.merges]}
    header["metadata"] = dict(clip.facts)
    if text_half is not None:
        validated(SmallClipHeader, {**header, "text_half": (text_half, "")}, "text_half")
        theirs = _text_half(Path(path).parent / text_half, clip.config.text_layers)
        same = all(_alike(state.get(name), theirs[name]) for name in theirs)
        check(same, f"'{text_half}' is not the text half of this CLIP, weight for weight; leave text_half out")
        state = {name: value for name, value in state.items() if name not in theirs}
        header["text_half"] = text_half, short_hash([*theirs.values()])
    write_tensors(path, state, header)


def read_small_clip(path: str | Path) -> SmallClip:
    """What `save_small_clip` wrote: float32, in eval mode, on the CPU.

    Raises `UserError` for a file that is missing, damaged, foreign or newer, or whose weights do not fit; also where
    the text half that it names is so.

    >>> read_small_clip("runs/clip/model.safetensors").config.image_size   # doctest: +SKIP
    64
    """
    known = "give a model.safetensors of `dlcv train clip`; other weights go into pretrained, with their model's name"
    check(os.path.exists(path), f"no CLIP at '{path}'; {known}")
    tensors, header = read_tensors(path)
    check("clip" in header, f"'{path}' holds no CLIP of ours; {known}")
    header = validated(SmallClipHeader, header, f"'{path}'")
    if header.text_half:
        beside, its_hash = Path(path).parent / header.text_half[0], header.text_half[1]
        theirs = _text_half(beside, header.clip.text_layers)
        same = short_hash([*theirs.values()]) == its_hash
        check(same, f"'{beside}' is no longer the text half that '{path}' was saved with; put that one back")
        tensors = {**theirs, **tensors}
    merges = checked_merges(header.merges, f"'{path}'")
    words = tensors.get("token_embedding.weight")
    fits = words is not None and words.ndim == 2 and len(words) == 512 + len(merges) + 2
    check(fits, f"the vocabulary in '{path}' does not fit its weights; was the file written by another program?")
    model = filled(build_small_clip(header.clip, merges), tensors, path).eval()
    return SmallClip(model, header.clip, merges, header.metadata)


def _text_half(path: Path, layers: int) -> dict[str, Tensor]:
    """The weights of a `CLIPTextModel` of so many layers under open_clip's names, in a fixed order."""
    check(path.is_file(), f"no text half of a CLIP at '{path}'; keep the CLIP and the pipeline's folder together")
    with reading(path, "is not a whole safetensors file", "copy it again"):
        found = as_open_clip(load_file(path))
    whole = found.keys() == text_names(layers)
    check(whole, f"'{path}' does not hold the weights of a CLIPTextModel of {layers} layers; was it written anew?")
    return dict(sorted(found.items()))


def _alike(ours: Tensor | None, theirs: Tensor) -> bool:
    return ours is not None and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
