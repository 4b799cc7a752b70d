"""Images and labels in memory: the one shape in which every data source arrives."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..arguments import as_tensor
from ..errors import check
from .pixels import to_x0


class ImageArrays(Dataset):
    """Images `(N, C, H, W)` uint8 with labels `(N,)` int64, given out as x0 float32 in [-1, 1].

    `data[i]` is one pair `(x0 (C, H, W), label ())`; `data.batch(indices)` is a whole batch in one indexing operation,
    some hundred times faster than stacking single items. A `DataLoader` finds the fast way by itself (`__getitems__`).

    Raises `UserError` where the two do not fit together.

    >>> data = ImageArrays(torch.zeros(4, 3, 28, 28, dtype=torch.uint8), torch.arange(4))
    >>> x0, labels = data.batch(torch.tensor([3, 1]))
    >>> x0.shape, labels.tolist()
    (torch.Size([2, 3, 28, 28]), [3, 1])
    """

    def __init__(self, images: Tensor, labels: Tensor):
        images = as_tensor(images, "images must be a tensor or array, uint8 (N, C, H, W)")
        labels = as_tensor(labels, "labels must be whole numbers, one for each image")
        fits = images.dtype == torch.uint8 and images.ndim == 4
        check(fits, f"images must be uint8 (N, C, H, W), not {images.dtype} {tuple(images.shape)}")
        check(labels.shape == images.shape[:1], f"{len(images)} images need as many labels, not {tuple(labels.shape)}")
        check((labels == labels.to(torch.int64)).all(), "labels must be whole numbers")
        self.images = images.contiguous()
        self.labels = labels.to(torch.int64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return to_x0(self.images[index]), self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        x0, labels = self.batch(torch.as_tensor(indices))
        return list(zip(x0, labels, strict=True))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """`(x0 (B, C, H, W) float32 in [-1, 1], labels (B,) int64)` of the given rows."""
        return to_x0(self.images[indices]), self.labels[indices]

    def subset(self, indices: Tensor) -> "ImageArrays":
        """The given rows (an index or boolean mask tensor) as a set of their own."""
        return ImageArrays(self.images[indices], self.labels[indices])

    def __repr__(self) -> str:
        return f"ImageArrays({len(self)} images {tuple(self.images.shape[1:])}, {self.labels.unique().numel()} classes)"


def place_in_class(labels: torch.Tensor) -> torch.Tensor:
    """(N,) int64: how many of the rows before each have its label.

    >>> place_in_class(torch.tensor([5, 7, 5, 5]))
    tensor([0, 0, 1, 2])
    """
    place = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique():
        here = labels == label
        place[here] = torch.arange(int(here.sum()))
    return place


def spread(labels: torch.Tensor, limit: int | None) -> torch.Tensor:
    """At most `limit` rows (None: all), in their order: the first of each class, as even as the classes allow.

    >>> spread(torch.tensor([5, 5, 5, 7, 7]), 3)
    tensor([0, 1, 3])
    """
    return torch.argsort(place_in_class(labels), stable=True)[:limit].sort().values
