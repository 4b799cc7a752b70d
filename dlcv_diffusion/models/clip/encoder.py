"""`Clip`: an encoder of pictures and of words, whoever made the network."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ... import device as devices
from ...errors import check
from ...images.pictures import as_rgb
from ...samplers import evaluating

TEXTS = 256
"""Texts encoded at a time."""


class Towers(Protocol):
    """The two halves of a CLIP, an `nn.Module`, as open_clip or transformers have them; features of any length."""

    size: tuple[int, int]

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        """What the model's own preprocessing makes of RGB pictures of any size: (B, 3, H, W) float32 on the CPU."""

    def prepare_pixels(self, images: Tensor) -> Tensor | None:
        """The same of uint8 (B, 3, H, W) where nothing has to be resized; None where it has."""

    def images(self, x: Tensor) -> Tensor:
        """Features (B, D) of what `prepare` made."""

    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Features (B, D). Raises `UserError` for a text that is longer than the model reads."""

    def scale(self) -> Tensor:
        """1 / τ, (), as it was learnt."""


class Clip(nn.Module):
    """A CLIP (arXiv 2103.00020): pictures and texts become features of one space, where the angle tells what fits.

    It is an encoder: `clip(images)`, uint8 (B, C, H, W) to features (B, D) float32 of length 1, can be given wherever
    an encoder is taken. Of grey pictures (C = 1) all three channels are the same. It computes in eval mode, whatever
    mode it is in.

    - name: as it was asked for; facts: what is known of it, plain JSON; notes: sentences that a user should read, such
      as that the activation was switched.

    >>> clip = load_clip("ViT-B-32", "openai")                                       # doctest: +SKIP
    >>> similar = clip.encode_images(images) @ clip.encode_texts(["a fox"]).T        # doctest: +SKIP
    >>> probabilities = (similar / clip.temperature).softmax(dim=1)                  # doctest: +SKIP
    """

    def __init__(
        self, towers: Any, name: str, facts: Mapping[str, Any] | None = None, notes: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.towers = towers
        self.name, self.facts, self.notes = name, dict(facts or {}), tuple(notes)

    @property
    def device(self) -> torch.device:
        return next(self.towers.parameters()).device

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the pictures that the network sees."""
        return self.towers.size

    @property
    def logit_scale(self) -> float:
        """1 / τ, by which cosines are multiplied before the softmax; at most 100 if it was trained as the paper's."""
        return self.towers.scale().item()

    @property
    def temperature(self) -> float:
        """τ, learnt with the weights."""
        return 1 / self.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        return self.encode_images(images)

    def prepare(self, pictures: Tensor | Sequence[Image.Image]) -> Tensor:
        """The network's own input, (B, 3, H, W) float32 on the CPU: resized and normalised as it was trained.

        - pictures: uint8 (B, C, H, W), C = 1 or 3, or a list of PIL's of any size and mode: what is transparent shows
          white.

        Raises `UserError` for anything else; float images have lost what was white.
        """
        if not isinstance(pictures, Tensor):
            wanted = "give CLIP a tensor, or a list of one or more PIL pictures"
            check(len(pictures) and all(isinstance(each, Image.Image) for each in pictures), wanted)
            return self.towers.prepare([as_rgb(picture) for picture in pictures])
        sound = (
            pictures.ndim == 4 and pictures.shape[1] in (1, 3) and pictures.numel() and pictures.dtype == torch.uint8
        )
        given = f"{str(pictures.dtype).removeprefix('torch.')} {tuple(pictures.shape)}"
        wanted = "pictures for CLIP are uint8 (B, 3, H, W), 0 … 255, as files have them"
        check(sound, f"{wanted}, not {given}; images.pixels.to_uint8 makes them of x0")
        pictures = pictures.cpu().expand(-1, 3, -1, -1)
        ready = self.towers.prepare_pixels(pictures)
        return self.towers.prepare(_as_pil(pictures)) if ready is None else ready

    def encode_images(self, pictures: Tensor | Sequence[Image.Image], *, fast: bool = False) -> Tensor:
        """Features (B, D) float32 of length 1, on the model's device; for `pictures` see `prepare`.

        - fast: bfloat16 where the device is quick at it.
        """
        return self.encode_prepared(self.prepare(pictures), fast=fast)

    def encode_prepared(self, x: Tensor, *, fast: bool = False) -> Tensor:
        """The same of what `prepare` gave, (B, 3, H, W)."""
        with evaluating([*self.modules()]), devices.autocast(self.device, fast):
            features = self.towers.images(x.to(self.device, non_blocking=True))
        return F.normalize(features.float(), dim=1)

    def encode_texts(self, texts: Sequence[str], *, fast: bool = False) -> Tensor:
        """Features (B, D) float32 of length 1, on the model's device.

        Raises `UserError` for none, and for a text that is longer than the model reads.
        """
        check(texts and not isinstance(texts, str), "give CLIP a list of texts, one or more")
        with evaluating([*self.modules()]), devices.autocast(self.device, fast):
            parts = [texts[first : first + TEXTS] for first in range(0, len(texts), TEXTS)]
            features = torch.cat([self.towers.texts(part, self.device).float() for part in parts])
        return F.normalize(features, dim=1)


def _as_pil(images: Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()) for image in images]
