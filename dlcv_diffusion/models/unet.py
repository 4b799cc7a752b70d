"""The DDPM paper's U-Net (Ho et al. 2020, appendix B), in sizes that a CPU can train.

GroupNorm, sinusoidal timestep embedding, and self-attention at the coarse levels. DDPM only adds the embedding to the
feature maps; here it scales and shifts them, as in Improved DDPM (arXiv 2102.09672). What makes it quick on a CPU is
the stem: `patch` × `patch` pixels are folded into channels (`F.pixel_unshuffle`), so that the 3×3 convolutions work at
14×14 instead of 28×28, with a quarter of the arithmetic at the same width.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..declared import declared
from ..errors import check
from .sizes import Blocks, Channels, Classes, Timesteps, Width

MOST_PLACES = 256  # up to which attention is two matrix products


def timestep_embedding(t: Tensor, dim: int, *, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of a timestep (Vaswani et al. 2017, sec. 3.5; DDPM, appendix B), (B,) to (B, dim) float32.

        emb = [cos(t ω_0), …, cos(t ω_{n−1}), sin(t ω_0), …, sin(t ω_{n−1})],   ω_i = max_period^(−i / n),  n = dim / 2

    t is int or float, in units of the DDPM paper's thousand steps; dim is even.

    >>> timestep_embedding(torch.tensor([0, 10]), 4).shape
    torch.Size([2, 4])
    """
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(max_period) / half))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, conv, twice; in the second, h ← h·(1 + scale) + shift from the embedding. (B, C, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(emb_channels, 2 * out_channels)
        self.norm2 = nn.GroupNorm(8, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # the block starts as the identity, as in the DDPM code
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(h))


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(QKᵀ/√d) V (Vaswani et al. 2017, eq. 1): q (…, N, d), k and v (…, M, d); the result is like q.

    In bfloat16 on a CPU two matrix products are quicker than torch's fused kernel, whose way back is slow, as long
    as there are few places (`benchmarks/training.py`). They keep all N·M scores; the fused one keeps none.

    >>> attention(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(1, 2, 3)).shape
    torch.Size([1, 2, 3])
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or k.shape[-2] > MOST_PLACES:
        return F.scaled_dot_product_attention(q, k, v)
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v


class SelfAttention(nn.Module):
    """Multi-head self-attention over the H·W places: x + softmax(QKᵀ/√d) V (Vaswani et al. 2017, eq. 1).

    With `alone`, each place attends to itself only: the matrix is the identity, and V is left (see `models.perturbed`).
    """

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads, self.alone = heads, False
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x))
        q, k, v = rearrange(qkv, "b (three heads c) h w -> three b heads (h w) c", three=3, heads=self.heads)
        y = rearrange(v if self.alone else attention(q, k, v), "b heads (h w) c -> b (heads c) h w", h=x.shape[-2])
        return x + self.out(y)


@declared
class UNetConfig:
    """What a `UNet` is built with, and the bounds of it."""

    in_channels: Channels
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
    blocks: tuple[Blocks, ...]
    attention: tuple[bool, ...]
    patch: Annotated[int, Field(strict=True, ge=1, le=32)]
    num_classes: Classes
    timesteps: Timesteps
    emb_channels: Channels | None

    def __post_init__(self) -> None:
        levels = len(self.channels), len(self.blocks), len(self.attention)
        check(len(set(levels)) == 1, "channels, blocks and attention are of {}, {} and {} levels".format(*levels))


class UNet(nn.Module):
    """ε_θ(x_t, t, c): the DDPM U-Net with an optional class label and a pixel-folding stem.

    - in_channels: channels of the image, 3 for digits.
    - channels: width of each level, multiples of 8, finest first; each further level halves height and width.
    - blocks: residual blocks a level on the way down (one more on the way up), one number or one for each level.
    - attention: for each level, whether its blocks are followed by self-attention; by default at the last alone.
    - patch: `patch` × `patch` pixels are folded into channels at the stem, and unfolded at the end.
    - num_classes: number of labels, or 0 for an unconditional model. Label `num_classes` is the null class ∅.
    - timesteps: T of the schedule it is trained with; t is scaled to the paper's thousand steps inside.

    Any height and width: sides that `divisor` = patch · 2^(levels − 1) does not divide are filled up with zeros inside.
    Raises `UserError` for settings that do not fit.

    >>> model = UNet(num_classes=20, channels=(32, 64), blocks=1)
    >>> model(torch.randn(2, 3, 28, 28), torch.tensor([0, 349]), torch.tensor([3, 20])).shape
    torch.Size([2, 3, 28, 28])
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (96, 160),
        blocks: int | Sequence[int] = 2,
        attention: Sequence[bool] | None = None,
        patch: int = 2,
        num_classes: int = 0,
        timesteps: int = 350,
        emb_channels: int | None = None,
    ):
        super().__init__()
        levels = len(channels := tuple(channels))
        blocks = (blocks,) * levels if isinstance(blocks, int) else blocks
        attention = (False,) * (levels - 1) + (True,) if attention is None else attention
        config = UNetConfig(in_channels, channels, blocks, attention, patch, num_classes, timesteps, emb_channels)
        channels, blocks, attention = config.channels, config.blocks, config.attention
        emb_channels = emb_channels or 4 * channels[0]
        self.config = {**asdict(config), "emb_channels": emb_channels}
        self.in_channels, self.num_classes, self.timesteps, self.patch = in_channels, num_classes, timesteps, patch
        self.divisor = patch * 2 ** (levels - 1)
        self.time_features = channels[0]

        self.time_mlp = nn.Sequential(
            nn.Linear(channels[0], emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        self.label_emb = nn.Embedding(num_classes + 1, emb_channels) if num_classes else None
        self.stem = nn.Conv2d(in_channels * patch**2, channels[0], 3, padding=1)

        self.down, skips, width = nn.ModuleList(), [channels[0]], channels[0]
        for level, (out, attend, count) in enumerate(levels := list(zip(channels, attention, blocks, strict=True))):
            for _ in range(count):
                attn = SelfAttention(out) if attend else nn.Identity()
                self.down.append(nn.ModuleList([ResidualBlock(width, out, emb_channels), attn]))
                skips.append(width := out)
            if level < len(channels) - 1:
                self.down.append(nn.Conv2d(out, out, 3, stride=2, padding=1))
                skips.append(out)

        self.middle = nn.ModuleList(
            [ResidualBlock(width, width, emb_channels), SelfAttention(width), ResidualBlock(width, width, emb_channels)]
        )

        self.up = nn.ModuleList()
        for level, (out, attend, count) in reversed(list(enumerate(levels))):
            for _ in range(count + 1):
                attn = SelfAttention(out) if attend else nn.Identity()
                self.up.append(nn.ModuleList([ResidualBlock(width + skips.pop(), out, emb_channels), attn]))
                width = out
            if level > 0:
                self.up.append(nn.Conv2d(out, out, 3, padding=1))

        self.head = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, in_channels * patch**2, 3, padding=1)
        )
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicted noise ε (B, C, H, W) for x_t (B, C, H, W), t (B,) int64 0-based and labels (B,) int64, None = ∅."""
        height, width = x.shape[-2:]
        if height % self.divisor or width % self.divisor:
            x = F.pad(x, (0, -width % self.divisor, 0, -height % self.divisor))
        emb = self.time_mlp(timestep_embedding(t * (1000.0 / self.timesteps), self.time_features).to(x.dtype))
        if self.label_emb is not None:
            labels = torch.full_like(t, self.num_classes) if labels is None else labels
            emb = emb + self.label_emb(labels)
        emb = F.silu(emb)

        h = self.stem(F.pixel_unshuffle(x, self.patch))
        skips = [h]
        for layer in self.down:
            h = layer[1](layer[0](h, emb)) if isinstance(layer, nn.ModuleList) else layer(h)
            skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, emb)), emb)
        for layer in self.up:
            if isinstance(layer, nn.ModuleList):
                h = layer[1](layer[0](torch.cat([h, skips.pop()], dim=1), emb))
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.head(h), self.patch)[..., :height, :width]
