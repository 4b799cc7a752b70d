"""The judge: a small digit classifier for each half of the data, which reads what a diffusion model has drawn.

Half 0 is MNIST-M, half 1 the street digits (or SVHN). Both classifiers, their accuracy on held-out images, and the
features of some held-out images travel in one file inside the package, so that samples can be measured without any
training data. `tools/train_judge.py` makes that file.
"""

from dataclasses import asdict
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..declared import declared, validated
from ..errors import check
from ..evaluation.encoder import checked_images, encode, finite
from ..images.arrays import to_x0
from ..models.registry import ASSETS, Undrawn, filled, read_tensors, write_tensors
from .course import HALF_FOLDERS

JUDGE = ASSETS / "digits_judge.safetensors"
REFERENCE_SCALE = 16  # features lie within ±√feature_dim, about 7: steps of 1/16 fit into int8
SHAPE = (3, 28, 28)

Width = Annotated[int, Field(ge=1, le=256)]


@declared
class JudgeConfig:
    """The network of both halves: channels at each size, residual convolutions at the smaller ones, and features."""

    channels: tuple[Width, Width, Width] = (16, 32, 48)  # 28×28, 14×14, 7×7
    blocks: Annotated[int, Field(ge=0, le=16)] = 2
    feature_dim: Width = 48


DEFAULT = JudgeConfig()


@declared
class JudgeHeader:
    """What a judge's file says beside its tensors; the format is `models.registry`'s."""

    judge: JudgeConfig
    references: Width
    metadata: dict[str, Any]
    format: Literal[1] = 1


def conv_block(in_channels: int, out_channels: int, kernel: int, **conv: Any) -> nn.Sequential:
    """Convolution, BatchNorm, SiLU. (B, C, H, W) in and out."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, bias=False, **conv)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.SiLU())


class Residual(nn.Module):
    """h + block(h)."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, h: Tensor) -> Tensor:
        return h + self.block(h)


class DigitClassifier(nn.Module):
    """Reads a digit: x (B, 3, 28, 28) float in [-1, 1] to logits (B, 10). Its `encode` is an encoder.

    Residual convolutions at 28×28, 14×14 and 7×7, after which a depthwise 7×7 convolution pools with a weight for each
    place: unlike a plain average it tells the digit in the middle from neighbours that are cut off at the sides. The
    features before the last layer have mean 0 and variance 1 for each image (LayerNorm), so that distances between
    them do not depend on the contrast of the picture.

    >>> DigitClassifier()(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: JudgeConfig = DEFAULT):
        super().__init__()
        layers = [conv_block(3, config.channels[0], 3, padding=1)]
        for before, width in pairwise(config.channels):
            layers.append(conv_block(before, width, 3, stride=2, padding=1))
            layers += [Residual(conv_block(width, width, 3, padding=1)) for _ in range(config.blocks)]
        last = config.channels[-1]
        self.trunk = nn.Sequential(
            *layers,
            conv_block(last, last, 7, groups=last),
            nn.Flatten(),
            nn.Linear(last, config.feature_dim),
            nn.LayerNorm(config.feature_dim, elementwise_affine=False),
        )
        self.head = nn.Linear(config.feature_dim, 10)

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, feature_dim), the layer before the last, of images uint8 (B, 3, 28, 28)."""
        return self.trunk(to_x0(checked_images(images, SHAPE).to(self.head.weight.device)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


class Judge(nn.Module):
    """A `DigitClassifier` for each half, with the features of real held-out images to compare with.

    - halves: the two classifiers; `judge.halves[0].encode` is an encoder.
    - reference: (2, 10, R, feature_dim), features of R held-out images of each digit of each half.
    - metadata: held-out accuracies, how many images trained and tested it, and how.

    >>> digits, features = load_judge().read(torch.zeros(5, 3, 28, 28, dtype=torch.uint8), half=0)
    >>> digits.shape, features.shape
    (torch.Size([5]), torch.Size([5, 48]))
    """

    def __init__(self, config: JudgeConfig = DEFAULT, references: int = 100):
        super().__init__()
        self.config = config
        self.halves = nn.ModuleList(DigitClassifier(config) for _ in HALF_FOLDERS)
        self.register_buffer("reference", torch.zeros(len(HALF_FOLDERS), 10, references, config.feature_dim))
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def read(self, images: Tensor, half: int) -> tuple[Tensor, Tensor]:
        """Digits (N,) int64 and features (N, feature_dim) float32, on the CPU, of images uint8 (N, 3, 28, 28).

        Raises `UserError` for images of another type or shape, and where the features are not finite.
        """
        classifier = self.halves[half]
        features = encode(classifier.encode, images)
        return classifier.head(features.to(self.reference.device)).argmax(1).cpu(), features


def save_judge(judge: Judge, path: str | Path = JUDGE) -> None:
    """Write a judge with its `config` and `metadata`, weights in float16, reference in int8; atomic.

    Raises `UserError` where a weight is not finite in float16, or the file cannot be written.

    >>> save_judge(judge, "judge.safetensors")   # doctest: +SKIP
    """
    state = {k: v.half() for k, v in judge.state_dict().items() if not k.endswith("num_batches_tracked")}
    for name, weights in state.items():
        finite(weights, f"the judge is not saved, since its {name}")
    state["reference"] = (judge.reference * REFERENCE_SCALE).round().clamp(-127, 127).to(torch.int8)
    header = {"judge": asdict(judge.config), "references": judge.reference.shape[2], "metadata": judge.metadata}
    write_tensors(path, state, header)


def load_judge(path: str | Path = JUDGE, device: torch.device | str = "cpu") -> Judge:
    """The judge of the package, or of another file that `save_judge` wrote: float32, in eval mode, on `device`.

    Raises `UserError` for a file that is missing, damaged, foreign or newer, or whose weights are not finite.

    >>> load_judge().metadata["accuracy"]["mnistm"] > 0.99
    True
    """
    tensors, header = read_tensors(path)
    check("judge" in header, f"'{path}' holds no digit judge; leave the path out to use the one in the package")
    header = validated(JudgeHeader, header, f"'{path}'")
    with torch.device("meta"), Undrawn():
        judge = Judge(header.judge, header.references)
    counters = {k: torch.tensor(0) for k in judge.state_dict() if k.endswith("num_batches_tracked")}
    reference = {k: v.float() / REFERENCE_SCALE for k, v in tensors.items() if v.dtype == torch.int8}
    judge = filled(judge, {**counters, **tensors, **reference}, path)
    judge.metadata = header.metadata
    return judge.to(device).eval()


@lru_cache(maxsize=1)
def default_judge() -> Judge:
    """The judge of the package on the CPU, read once and shared: do not change it."""
    return load_judge()
