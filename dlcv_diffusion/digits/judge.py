"""The judge: a small digit classifier for each half of the data, which reads what a diffusion model has drawn.

Half 0 is MNIST-M, half 1 the street digits (or SVHN). Both classifiers, their accuracy on held-out images, and the
features of some held-out images travel in one file inside the package, so that samples can be measured without any
training data. `tools/train_judge.py` makes that file.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..images.arrays import to_x0
from ..models.registry import ASSETS, load_state, read_tensors, write_tensors
from .course import HALVES

JUDGE = ASSETS / "digits_judge.safetensors"
REFERENCE_SCALE = 16  # features lie within ±√feature_dim, about 7: steps of 1/16 fit into int8


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, SiLU. (B, C, H, W) in and out."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, **conv: Any):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, bias=False, **conv),
            nn.BatchNorm2d(out_channels),
            nn.SiLU(),
        )


class Residual(nn.Module):
    """h + block(h)."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, h: Tensor) -> Tensor:
        return h + self.block(h)


class DigitClassifier(nn.Module):
    """A digit's picture, x (B, 3, 28, 28) float in [-1, 1], to logits (B, 10).

    Residual convolutions at 28×28, 14×14 and 7×7, after which a depthwise 7×7 convolution pools with a weight for each
    place: unlike a plain average it knows the digit in the middle from its neighbours that are cut off at the sides.
    The features before the last layer have mean 0 and variance 1 for each image (LayerNorm), so that distances
    between them do not hang on the contrast of the picture.

    - channels: width at each of the three sizes; blocks: residual convolutions at the two smaller ones.

    >>> DigitClassifier()(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 48), blocks: int = 2, feature_dim: int = 48):
        super().__init__()
        layers = [ConvBlock(3, channels[0], 3, padding=1)]
        for before, width in pairwise(channels):
            layers.append(ConvBlock(before, width, 3, stride=2, padding=1))
            layers += [Residual(ConvBlock(width, width, 3, padding=1)) for _ in range(blocks)]
        last = channels[-1]
        self.trunk = nn.Sequential(
            *layers,
            ConvBlock(last, last, 7, groups=last),
            nn.Flatten(),
            nn.Linear(last, feature_dim),
            nn.LayerNorm(feature_dim, elementwise_affine=False),
        )
        self.head = nn.Linear(feature_dim, 10)

    def features(self, x: Tensor) -> Tensor:
        """The layer before the last, (B, feature_dim): where the Fréchet distance is measured."""
        return self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Judge(nn.Module):
    """A `DigitClassifier` for each half, with the features of real held-out images to compare with.

    - halves: the two classifiers.
    - reference: (2, 10, R, feature_dim), features of R held-out images of each digit of each half.
    - metadata: held-out accuracies, how many images trained and tested it, and how.

    >>> digits, features = load_judge().read(torch.zeros(5, 3, 28, 28, dtype=torch.uint8), half=0)   # doctest: +SKIP
    >>> digits.shape, features.shape                                                                 # doctest: +SKIP
    (torch.Size([5]), torch.Size([5, 48]))
    """

    def __init__(self, config: Mapping[str, Any] | None = None, references: int = 100):
        super().__init__()
        self.config = dict(config or {})
        self.halves = nn.ModuleList(DigitClassifier(**self.config) for _ in HALVES)
        feature_dim = self.halves[0].head.in_features
        self.register_buffer("reference", torch.zeros(len(HALVES), 10, references, feature_dim))
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def read(self, images: Tensor, half: int, *, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Digits (N,) int64 and features (N, feature_dim) float32, on the CPU, of images uint8 (N, 3, 28, 28).

        Raises `UserError` for images of another type or shape.
        """
        images = check_images(images)
        classifier = self.halves[half]
        digits, features = [], []
        for part in images.split(batch_size):
            f = classifier.features(to_x0(part.to(self.reference.device)))
            features.append(f.float().cpu())
            digits.append(classifier.head(f).argmax(1).cpu())
        return torch.cat(digits), torch.cat(features)


def check_images(images: Tensor) -> Tensor:
    """The same images. Raises `UserError` unless they are uint8 (N, 3, 28, 28), N ≥ 1.

    >>> check_images(torch.zeros(2, 3, 28, 28, dtype=torch.uint8)).shape
    torch.Size([2, 3, 28, 28])
    """
    images = torch.as_tensor(images)
    if images.dtype != torch.uint8 or images.shape[1:] != (3, 28, 28) or len(images) == 0:
        raise UserError(
            f"the judge reads images uint8 (N, 3, 28, 28), not {str(images.dtype).removeprefix('torch.')} "
            f"{tuple(images.shape)}; samples x in [-1, 1] become ((x.clamp(-1, 1) + 1) * 127.5).round().byte()"
        )
    return images


def save_judge(judge: Judge, path: str | Path = JUDGE) -> None:
    """Write a judge with its `config` and `metadata`, weights in float16, reference in int8; atomic.

    Raises `UserError` where the file cannot be written.

    >>> save_judge(judge, "judge.safetensors")   # doctest: +SKIP
    """
    state = {k: v.half() for k, v in judge.state_dict().items() if not k.endswith("num_batches_tracked")}
    state["reference"] = (judge.reference * REFERENCE_SCALE).round().clamp(-127, 127).to(torch.int8)
    header = {"judge": judge.config, "references": judge.reference.shape[2], "metadata": judge.metadata}
    write_tensors(path, state, header)


def load_judge(path: str | Path = JUDGE, device: torch.device | str = "cpu") -> Judge:
    """The judge of the package, or of another file that `save_judge` wrote: float32, in eval mode, on `device`.

    Raises `UserError` for a file that is missing, truncated, foreign or newer, or that holds something else.

    >>> load_judge().metadata["accuracy"]["mnistm"] > 0.99
    True
    """
    tensors, header = read_tensors(path)
    if "judge" not in header:
        raise UserError(f"'{path}' holds no digit judge; leave the path out to use the one in the package")
    judge = Judge(header["judge"], header["references"])
    counters = {k: v for k, v in judge.state_dict().items() if k.endswith("num_batches_tracked")}
    state = {name: tensor.float() for name, tensor in tensors.items()}
    load_state(judge, {**counters, **state, "reference": state["reference"] / REFERENCE_SCALE}, path)
    judge.metadata = header["metadata"]
    return judge.to(device).eval()


@lru_cache(maxsize=1)
def default_judge() -> Judge:
    """The judge of the package on the CPU, read once. It belongs to everybody: do not change it."""
    return load_judge()
