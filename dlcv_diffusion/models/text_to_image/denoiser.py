"""A latent text-to-image model as a `Denoiser` of latents, told by embeddings of prompts (arXiv 2112.10752, 3.3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ... import device as devices
from ...denoiser import Denoiser
from ...errors import check
from ...samplers import evaluating
from ...schedule import NoiseSchedule
from ..foreign import foreign
from . import latents
from .prompts import token_ids

PROMPTS_AT_ONCE = 256
PARTS = {"unet": "U-Net", "vae": "autoencoder", "text_encoder": "text encoder", "tokenizer": "tokenizer"}
"""What a pipeline of diffusers calls the parts of a model."""


class ConditionalUNet(nn.Module):
    """diffusers' `UNet2DConditionModel` called as our networks are: z (B, c, h, w), t (B,), prompts (B, L, D) to z."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, t: Tensor, prompts: Tensor) -> Tensor:
        return self.unet(z, t, encoder_hidden_states=prompts, return_dict=False)[0]


class TextToImage(Denoiser):
    """A U-Net of latents, with the autoencoder and the text encoder that belong to it.

    It is a `Denoiser`: `shape` is that of one latent, `null` the embedding of the empty prompt, (L, D), and

        sd = load_text_to_image("emoji")
        denoise = guided(sd, sd.encode_prompts(["a fox"] * 4), w=guidance_weight(7.5))
        z = last(dpm_solver(denoise, seeded_noise((4, *sd.shape), range(4)), steps=25)).x
        images = sd.decode(z)

    - unet, autoencoder, text_encoder: diffusers' `UNet2DConditionModel` and `AutoencoderKL`, transformers'
      `CLIPTextModel`; tokenizer: its `CLIPTokenizer`.
    - schedule, prediction, name, facts: as of `Denoiser`. fast: bfloat16 where the device is quick at it.

    Raises `UserError` for parts that do not belong together.
    """

    def __init__(
        self,
        unet: nn.Module,
        autoencoder: nn.Module,
        text_encoder: nn.Module,
        tokenizer: Any,
        schedule: NoiseSchedule,
        prediction: str = "eps",
        *,
        name: str = "",
        facts: Mapping[str, Any] | None = None,
        fast: bool = False,
    ):
        check_parts(unet, autoencoder, text_encoder, tokenizer, name)
        size = unet.config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        shape = (unet.config.in_channels, *sides)
        super().__init__(ConditionalUNet(unet), schedule, prediction, shape=shape, name=name, facts=facts)
        self.autoencoder, self.text_encoder, self.tokenizer, self.fast = autoencoder, text_encoder, tokenizer, fast
        self.null = self.encode_prompts([""])[0]

    @property
    def unet(self) -> nn.Module:
        """diffusers' `UNet2DConditionModel`."""
        return self.model.unet

    @property
    def table(self) -> nn.Embedding:
        """The text encoder's lookup table: (tokens, d); d is 768 in Stable Diffusion 1.x."""
        return self.text_encoder.get_input_embeddings()

    @property
    def side(self) -> int:
        """Pixels a side of the pictures that it draws."""
        return self.shape[1] * latents.downsampling(self.autoencoder)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """ε, like x (B, c, h, w), for t (B,) int64 and embeddings of prompts (B, L, D); None: of the empty one."""
        with devices.autocast(x.device, self.fast):
            return super().forward(x, t, condition)

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Ids (B, L) int64 on the model's device, see `prompts.token_ids`."""
        return token_ids(prompts, self.tokenizer, f"'{self.name}'").to(self.device)

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (B, L, D) float32 on the model's device: the condition that `guided` takes.

        A learnt word of several vectors is read as all of them. Raises `UserError` for no list of texts, and for a
        prompt that is longer than the model reads.

        >>> sd.encode_prompts(["a fox", "an owl"]).shape   # doctest: +SKIP
        torch.Size([2, 77, 768])
        """
        ids = self.tokens(prompts)
        with evaluating([*self.text_encoder.modules()]):
            return torch.cat([self.text_encoder(part)[0].float() for part in ids.split(PROMPTS_AT_ONCE)])

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, c, h, w) float32 of uint8 images (B, 3, H, W), see `latents.encode`.

        >>> sd.encode(images).shape   # doctest: +SKIP
        torch.Size([4, 4, 64, 64])
        """
        return latents.encode(self.autoencoder, images, generator)

    def decode(self, z: Tensor) -> Tensor:
        """Images, uint8 (B, 3, H, W) on the CPU, of latents (B, c, h, w), see `latents.decode`.

        >>> sd.decode(z).shape   # doctest: +SKIP
        torch.Size([4, 3, 512, 512])
        """
        return latents.decode(self.autoencoder, z)


def check_parts(unet: Any, autoencoder: Any, text_encoder: Any, tokenizer: Any, name: str) -> None:
    """Raise `UserError` unless they make one model: latents of as many channels, embeddings of one width and length."""
    takes, gives, width = unet.config.in_channels, unet.config.out_channels, unet.config.cross_attention_dim
    channels, hidden = autoencoder.config.latent_channels, text_encoder.config.hidden_size
    said = f"the U-Net of '{name}' takes {takes} channels and gives {gives}, and its latents have {channels}"
    check(takes == gives == channels, f"{said}; give a model that draws from text alone")
    said = f"the U-Net of '{name}' attends to embeddings of {width} numbers, and its text encoder gives {hidden}"
    check(width == hidden, f"{said}; give the whole folder of one model")
    reads, length = text_encoder.config.max_position_embeddings, tokenizer.model_max_length
    said = f"the tokenizer of '{name}' gives up to {length} tokens, and its text encoder reads {reads}"
    check(length <= reads, f"{said}; give the whole folder of one model")
    check(unet.config.sample_size, f"the U-Net of '{name}' does not say how large its latents are (sample_size)")


def from_pipeline(pipeline: Any, name: str, facts: Mapping[str, Any] | None = None, fast: bool = False) -> TextToImage:
    """A `StableDiffusionPipeline` of diffusers as a `TextToImage`, which shares its networks, in the mode they are in.

    Raises `UserError` for a pipeline without one of its parts, a scheduler that has no betas or predicts something
    unknown, and parts that do not fit.

    >>> sd = from_pipeline(StableDiffusionPipeline.from_pretrained(folder), "mine")   # doctest: +SKIP
    """
    from ..diffusers_unet import schedule_from

    parts = [getattr(pipeline, part, None) for part in PARTS]
    lacking = [said for said, part in zip(PARTS.values(), parts, strict=True) if part is None]
    check(not lacking, f"'{name}' has no {' and no '.join(lacking)}; give a whole text-to-image model")
    config = {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
    schedule, prediction = schedule_from(config, name)
    with foreign(f"the parts of '{name}' do not make a model", "give another"):
        return TextToImage(*parts, schedule, prediction, name=name, facts=facts, fast=fast)


def as_text_to_image(model: Any) -> TextToImage:
    """A `TextToImage` as it is, and a `StableDiffusionPipeline` of diffusers by `from_pipeline`, which raises.

    >>> as_text_to_image(StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-4")).name   # doctest: +SKIP
    'stable-diffusion-v1-4'
    """
    if isinstance(model, TextToImage):
        return model
    return from_pipeline(model, Path(str(getattr(model, "name_or_path", None) or type(model).__name__)).name)
