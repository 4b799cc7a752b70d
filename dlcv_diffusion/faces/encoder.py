"""An encoder of faces: a small network trained on them without labels, by contrast (SimCLR, arXiv 2002.05709).

Two views of one photograph (cropped, turned, mirrored, brighter or darker) are to have similar features, and views of
other photographs different ones. A third view of each is *spoilt*: deformed, blurred, or joined from two people. It is
to be different too (negative data augmentation, arXiv 2102.05113), and to be told apart by one linear layer, so that
spoilt faces lie along an axis. `tools/train_face_encoder.py` trains it, and measures on held-out photographs what it
notices: another light not at all, blur and halves of two people very much, an eye that was lowered clearly, and a mouth
that has slipped a little.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..declared import declared, validated
from ..errors import check
from ..evaluation.encoder import checked_images
from ..images.pixels import to_x0
from ..models.registry import ASSETS, Undrawn, filled, read_tensors, write_tensors

ENCODER = ASSETS / "faces_encoder.safetensors"
SHAPE = (1, 64, 64)

Width = Annotated[int, Field(strict=True, ge=8, le=512, multiple_of=8)]


@declared
class FaceEncoderConfig:
    """Widths of the blocks, each of which halves height and width, and the number of features."""

    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=6)] = (32, 64, 96, 128)
    features: Width = 128


DEFAULT = FaceEncoderConfig()


@declared
class FaceEncoderHeader:
    """What the encoder's file says beside its tensors; the format is `models.registry`'s."""

    face_encoder: FaceEncoderConfig
    metadata: dict[str, Any]
    format: Literal[1] = 1


class Block(nn.Module):
    """(B, C, H, W) to (B, width, H/2, W/2): a strided convolution, and a residual one after it."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.halve = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm1(self.halve(x)))
        return F.silu(self.norm2(h + self.conv(h)))


class FaceEncoder(nn.Module):
    """The encoder of grey faces: uint8 (B, 1, 64, 64) to features (B, D) float32 of length 1.

    >>> FaceEncoder()(torch.zeros(2, 1, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 128])
    """

    def __init__(self, config: FaceEncoderConfig = DEFAULT):
        super().__init__()
        self.config = config
        channels = (1, *config.widths)
        self.blocks = nn.Sequential(*(Block(c, width) for c, width in zip(channels, config.widths, strict=False)))
        places = (SHAPE[1] >> len(config.widths)) * (SHAPE[2] >> len(config.widths))
        self.out = nn.Linear(config.widths[-1] * places, config.features)  # of all places: where a mouth is, matters
        self.metadata: dict[str, Any] = {}

    def features(self, x: Tensor) -> Tensor:
        """Features (B, D), of any length, of faces (B, 1, 64, 64) in [−1, 1]; with gradients, for training."""
        return self.out(self.blocks(x).flatten(1))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D) of length 1. Raises `UserError` for images that are not uint8 (B, 1, 64, 64)."""
        x = to_x0(checked_images(images, SHAPE)).to(next(self.parameters()).device)
        return F.normalize(self.features(x), dim=1)


def save_face_encoder(encoder: FaceEncoder, path: str | Path = ENCODER, metadata: Mapping[str, Any] | None = None):
    """Write an encoder with its config and metadata, weights in float16; atomic.

    >>> save_face_encoder(FaceEncoder(), "encoder.safetensors")   # doctest: +SKIP
    """
    state = {name: weights.half() for name, weights in encoder.state_dict().items()}
    write_tensors(path, state, {"face_encoder": asdict(encoder.config), "metadata": dict(metadata or {})})


def load_face_encoder(path: str | Path = ENCODER, device: torch.device | str = "cpu") -> FaceEncoder:
    """The encoder of the package, or of another file that `save_face_encoder` wrote, in eval mode, on `device`.

    Raises `UserError` for a file that is missing, damaged, foreign or newer, or whose weights are not finite.

    >>> load_face_encoder().metadata["images"]
    10800
    """
    tensors, header = read_tensors(path)
    check("face_encoder" in header, f"'{path}' holds no face encoder; leave the path out to use the one in the package")
    header = validated(FaceEncoderHeader, header, f"'{path}'")
    with torch.device("meta"), Undrawn():
        encoder = FaceEncoder(header.face_encoder)
    encoder = filled(encoder, tensors, path)
    encoder.metadata = header.metadata
    return encoder.to(device).eval()


@lru_cache(maxsize=1)
def default_face_encoder() -> FaceEncoder:
    """The encoder of the package on the CPU, read once and shared: do not change it."""
    return load_face_encoder()
