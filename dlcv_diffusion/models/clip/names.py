"""Names of a CLIP's weights: open_clip's, and transformers', which keeps queries, keys and values apart."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

BLOCKS = "transformer.resblocks."
BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
BLOCK |= {"attn.out_proj": "self_attn.out_proj"}
TEXT = {"token_embedding.weight": "embeddings.token_embedding.weight"}
TEXT |= {"positional_embedding": "embeddings.position_embedding.weight"}
TEXT |= {f"ln_final.{kind}": f"final_layer_norm.{kind}" for kind in ("weight", "bias")}
VISION = {"class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight"}
VISION |= {"positional_embedding": "embeddings.position_embedding.weight"}
VISION |= {f"ln_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")}  # as transformers spells it
VISION |= {f"ln_post.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")}


def as_transformers(state: Mapping[str, Tensor], names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The weights of one half, TEXT or VISION, under transformers' names; those of the other are left out."""
    for name, value in state.items():
        if name in names:
            yield names[name], value
        elif name.startswith(BLOCKS):
            number, _, inner = name.removeprefix(BLOCKS).partition(".")
            layer = f"encoder.layers.{number}."
            if inner.startswith("attn.in_proj_"):
                for part, third in zip("qkv", value.chunk(3), strict=True):
                    yield f"{layer}self_attn.{part}_proj.{inner.removeprefix('attn.in_proj_')}", third
            else:
                module, _, kind = inner.rpartition(".")
                yield f"{layer}{BLOCK[module]}.{kind}", value


def text_names(layers: int) -> set[str]:
    """open_clip's names of the text half's weights, but for the projection to the common space.

    >>> sorted(text_names(0))
    ['ln_final.bias', 'ln_final.weight', 'positional_embedding', 'token_embedding.weight']
    """
    kinds = ("weight", "bias")
    inner = [f"{module}.{kind}" for module in BLOCK for kind in kinds] + [f"attn.in_proj_{kind}" for kind in kinds]
    return {*TEXT, *(f"{BLOCKS}{number}.{name}" for number in range(layers) for name in inner)}


def as_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text half of `CLIPTextModel` under open_clip's names: the inverse of `as_transformers(state, TEXT)`.

    What is not a weight of it is left out, such as the numbers of the positions in files of transformers before 5.
    """
    weights = {name.removeprefix("text_model."): value for name, value in weights.items()}
    found = {name: weights[theirs] for name, theirs in TEXT.items() if theirs in weights}
    layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}
    for number in sorted(layers):
        for kind in ("weight", "bias"):
            attention = [f"encoder.layers.{number}.self_attn.{part}_proj.{kind}" for part in "qkv"]
            if all(name in weights for name in attention):
                found[f"{BLOCKS}{number}.attn.in_proj_{kind}"] = torch.cat([weights[name] for name in attention])
            for ours, theirs in BLOCK.items():
                if (name := f"encoder.layers.{number}.{theirs}.{kind}") in weights:
                    found[f"{BLOCKS}{number}.{ours}.{kind}"] = weights[name]
    return found
