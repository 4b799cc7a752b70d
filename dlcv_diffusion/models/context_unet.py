"""The report's network: a small U-Net with BatchNorm that is told time and label on its way up.

Its layout and its parameters' names follow the public repository byrkbrk/conditional-ddpm (models.py), which descends
from TeaPearce/Conditional_Diffusion_MNIST, so that weights trained there load here key by key. Only these are shared,
for compatibility: the code is written anew here.
"""

from dataclasses import asdict
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..declared import declared
from ..errors import check
from .sizes import Channels, Classes, Side, Timesteps, Width


def conv_unit(in_channels: int, out_channels: int) -> nn.Sequential:
    """3×3 convolution, BatchNorm, GELU; the size stays."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.GELU())


class ResidualConvBlock(nn.Module):
    """Two `conv_unit`s; with `residual`, (shortcut + result) / √2, where a 1×1 convolution matches the channels.

    The original divides by 1.414, which is kept: weights trained with it were tuned to it.
    """

    def __init__(self, in_channels: int, out_channels: int, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.conv1 = conv_unit(in_channels, out_channels)
        self.conv2 = conv_unit(out_channels, out_channels)
        matched = not residual or in_channels == out_channels
        self.handle_channel = None if matched else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x))
        if not self.residual:
            return h
        return (h + (self.handle_channel(x) if self.handle_channel is not None else x)) / 1.414


class UNetDown(nn.Module):
    """Two residual blocks, then 2×2 max pooling."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        blocks = ResidualConvBlock(in_channels, out_channels, True), ResidualConvBlock(out_channels, out_channels)
        self.model = nn.Sequential(*blocks, nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class UNetUp(nn.Module):
    """Joins the skip connection, doubles the size by a transposed convolution, then two residual blocks."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        blocks = ResidualConvBlock(out_channels, out_channels, True), ResidualConvBlock(out_channels, out_channels)
        self.model = nn.Sequential(nn.ConvTranspose2d(in_channels, out_channels, 2, 2), *blocks)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.model(torch.cat([x, skip], dim=1))


class EmbedFC(nn.Module):
    """A two-layer perceptron whose result is (B, hidden, 1, 1), to be added to or multiplied with a feature map."""

    def __init__(self, input_dim: int, hidden_dim: int):
        super().__init__()
        self.input_dim = input_dim
        self.model = nn.Sequential(nn.Linear(input_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, hidden_dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.reshape(-1, self.input_dim))[:, :, None, None]


@declared
class ContextUnetConfig:
    """What a `ContextUnet` is built with, and the bounds of it."""

    in_channels: Channels
    height: Side
    width: Side
    n_feat: Width
    n_cfeat: Annotated[Classes, Field(ge=1)]
    n_downs: Annotated[int, Field(strict=True, le=8)]
    timesteps: Timesteps

    def __post_init__(self) -> None:
        factor = 2 ** max(self.n_downs, 0)
        size, fits = f"{self.height}×{self.width}", self.height % factor == self.width % factor == 0
        told = f"{size} images cannot be halved {self.n_downs} times; each side must divide by {factor}"
        check(self.n_downs >= 1 and fits, told)


class ContextUnet(nn.Module):
    """ε_θ(x_t, t, c) of the report: at every level on the way up, h ← h · context(c) + time(t / T).

    - in_channels, height, width: of the image; height and width divisible by 2^n_downs.
    - n_feat: width of the network, a multiple of 8. n_downs: how often the size is halved.
    - n_cfeat: number of classes. Label `n_cfeat` is the null class ∅, whose one-hot vector is all zeros.
    - timesteps: T of the schedule; the network sees t / T, as in the report.

    With the report's settings (the defaults), 28.73 million parameters. It has BatchNorm: sample in eval mode, as our
    samplers do. Raises `UserError` for settings that do not fit, and images of another size.

    >>> model = ContextUnet(3, 28, 28, n_feat=16, n_cfeat=20)
    >>> model(torch.randn(2, 3, 28, 28), torch.tensor([0, 349]), torch.tensor([3, 20])).shape
    torch.Size([2, 3, 28, 28])
    """

    def __init__(
        self,
        in_channels: int = 3,
        height: int = 28,
        width: int = 28,
        n_feat: int = 128,
        n_cfeat: int = 20,
        n_downs: int = 2,
        timesteps: int = 350,
    ):
        super().__init__()
        config = ContextUnetConfig(in_channels, height, width, n_feat, n_cfeat, n_downs, timesteps)
        self.config = asdict(config)
        self.shape = in_channels, height, width
        self.in_channels, self.num_classes, self.timesteps = in_channels, n_cfeat, timesteps
        widths = [n_feat * 2 ** (level + 1) for level in range(n_downs)]  # after each halving, finest first
        bottom = (height // 2**n_downs, width // 2**n_downs)

        self.init_conv = ResidualConvBlock(in_channels, n_feat, True)
        self.down_blocks = nn.ModuleList(
            UNetDown(before, after) for before, after in zip([n_feat, *widths[:-1]], widths, strict=True)
        )
        self.to_vec = nn.Sequential(nn.AvgPool2d(bottom), nn.GELU())
        self.up0 = nn.Sequential(
            nn.ConvTranspose2d(widths[-1], widths[-1], bottom), nn.GroupNorm(8, widths[-1]), nn.GELU()
        )
        coarse_first = widths[::-1]
        self.up_blocks = nn.ModuleList(
            UNetUp(2 * before, after) for before, after in zip(coarse_first, [*coarse_first[1:], n_feat], strict=True)
        )
        self.final_conv = nn.Sequential(
            nn.Conv2d(2 * n_feat, n_feat, 3, padding=1),
            nn.GroupNorm(8, n_feat),
            nn.GELU(),
            nn.Conv2d(n_feat, in_channels, 1),
        )
        self.timeembs = nn.ModuleList(EmbedFC(1, width) for width in coarse_first)
        self.contextembs = nn.ModuleList(EmbedFC(n_cfeat, width) for width in coarse_first)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicted noise ε (B, C, H, W) for x_t (B, C, H, W), t (B,) int64 0-based and labels (B,) int64, None = ∅."""
        size, made = ("×".join(map(str, shape[-2:])) for shape in (x.shape, self.shape))
        check(size == made, f"this ContextUnet was made for images of {made}, not {size}")
        time = t.to(x.dtype) / self.timesteps
        labels = torch.full_like(t, self.num_classes) if labels is None else labels
        context = F.one_hot(labels, self.num_classes + 1)[:, :-1].to(x.dtype)  # ∅ becomes the zero vector
        h = first = self.init_conv(x)
        skips = [h := down(h) for down in self.down_blocks]
        h = self.up0(self.to_vec(h))
        for up, skip, contextemb, timeemb in zip(
            self.up_blocks, reversed(skips), self.contextembs, self.timeembs, strict=True
        ):
            h = up(h * contextemb(context) + timeemb(time), skip)
        return self.final_conv(torch.cat([h, first], dim=1))
