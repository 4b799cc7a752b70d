"""The parts of a Stable Diffusion pipeline that personalisation works with, and copies of them that train."""

from collections.abc import Container, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import check
from ..models.diffusers_unet import schedule_from
from ..models.text_to_image.latents import downsampling
from ..schedule import NoiseSchedule

PARTS = ("U-Net", "text encoder", "tokenizer", "autoencoder")
SMALL = 100_000_000
"""Weights of a U-Net below which settings are those of the small world: Stable Diffusion has 860 million."""


@dataclass(frozen=True)
class Parts:
    """A latent diffusion model by its parts (arXiv 2112.10752): ε_θ(z_t, t, τ(y)), z = E(x), and the schedule of z_t.

    - unet: diffusers' `UNet2DConditionModel`; autoencoder: its `AutoencoderKL`; text_encoder: transformers'
      `CLIPTextModel`, τ; tokenizer: its `CLIPTokenizer`. They are the caller's own, not copies.
    - prediction: what the U-Net gives, "eps", "v" or "x0".
    """

    unet: Any
    text_encoder: Any
    tokenizer: Any
    autoencoder: Any
    schedule: NoiseSchedule
    prediction: str
    name: str

    @property
    def table(self) -> nn.Embedding:
        """The text encoder's lookup table: a row for each token."""
        return self.text_encoder.get_input_embeddings()

    @property
    def width(self) -> int:
        """Numbers in a token's vector: 768 in Stable Diffusion 1.x, 1,024 in 2.x."""
        return self.table.weight.shape[1]

    @property
    def small(self) -> bool:
        return sum(weight.numel() for weight in self.unet.parameters()) < SMALL

    @property
    def factor(self) -> int:
        """Pixels a side that one latent stands for."""
        return downsampling(self.autoencoder)

    @property
    def side(self) -> int:
        """Pixels a side of the pictures that the model draws."""
        return self.unet.config.sample_size * self.factor


def parts_of(model: Any) -> Parts:
    """The parts of a `TextToImage`, or of a `StableDiffusionPipeline` of diffusers.

    Raises `UserError` for a pipeline without text encoder or another part, or with a scheduler that is none of DDPM's.

    >>> parts_of(load_text_to_image("CompVis/stable-diffusion-v1-4")).width   # doctest: +SKIP
    768
    """
    if isinstance(model, Parts):
        return model
    found = {name: getattr(model, name.lower().replace(" ", "_").replace("-", ""), None) for name in PARTS}
    found["autoencoder"] = found["autoencoder"] or getattr(model, "vae", None)
    missing = [name for name, part in found.items() if part is None]
    advice = "give a whole text-to-image model, as load_text_to_image reads it"
    check(not missing, f"the {type(model).__name__} has no {' and no '.join(missing)}; {advice}")
    if hasattr(model, "schedule"):
        schedule, prediction = model.schedule, model.prediction
    else:
        config = {**model.scheduler.config, "_class_name": type(model.scheduler).__name__}
        schedule, prediction = schedule_from(config, "the pipeline")
    name = getattr(model, "name", "") or Path(str(getattr(model, "name_or_path", None) or "")).name
    return Parts(*found.values(), schedule, prediction, str(name))


def frozen_copy(network: nn.Module, dtype: torch.dtype | None = None, trained: Container[str] = ()) -> Any:
    """A copy that shares its weights with the network and trains none of them: the network stays as it is, to the bit.

    - dtype: of the frozen weights; where it is another than theirs, they are copied.
    - trained: names of weights that the copy has for itself, in float32, to train.

    >>> linear = nn.Linear(2, 2)
    >>> copy = frozen_copy(linear, trained=["bias"])
    >>> copy.weight.data_ptr() == linear.weight.data_ptr(), copy.bias.data_ptr() == linear.bias.data_ptr()
    (True, False)
    """
    memo: dict[int, Any] = {id(buffer): buffer.detach() for buffer in network.buffers()}
    for name, weight in network.named_parameters():
        own = name in trained
        value = weight.detach().to(torch.float32, copy=True) if own else weight.detach().to(dtype or weight.dtype)
        memo[id(weight)] = nn.Parameter(value, requires_grad=own)
    return deepcopy(network, memo).eval()


def token_ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Ids (B, L) int64 of prompts, filled up to the length L that the model reads, as Stable Diffusion does it.

    Raises `UserError` for a prompt that is longer.
    """
    length = tokenizer.model_max_length
    found = [tokenizer(prompt, padding="max_length", max_length=length).input_ids for prompt in prompts]
    for prompt, ids in zip(prompts, found, strict=True):
        check(len(ids) == length, f"'{prompt:.60}' is {len(ids)} tokens long, and the model reads {length}; shorten it")
    return torch.tensor(found)


def cross_attention(unet: nn.Module) -> list[str]:
    """Names of the weights of every cross-attention's keys and values, W^k and W^v, (channels, width of the text).

    Raises `UserError` for a network without any.

    >>> cross_attention(pipeline.unet)[0]   # doctest: +SKIP
    'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight'
    """
    found = [name for name, _ in unet.named_parameters() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    advice = "Custom Diffusion trains its keys and values; give a Stable Diffusion model"
    check(found, f"this {type(unet).__name__} has no cross-attention (attn2.to_k); {advice}")
    return found
