"""Neighbours in the features of any encoder: was something copied, and how much of the real variety is covered?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import check
from .encoder import Encoder, encode, pixels

PART = 20_000  # reference images compared at a time
SPARE = 8  # further candidates, among which the nearest are found exactly


@dataclass(frozen=True)
class Nearest:
    """Distances to the nearest training image, root mean square over all values, in grey levels of 255.

    - median, smallest: of the samples; real_median, real_smallest: of held-out images, the yardstick.

    A model that copies has samples much nearer to the training images than real images that it was not trained on.
    """

    median: float
    smallest: float
    real_median: float
    real_smallest: float

    def __str__(self) -> str:
        return (
            f"{self.median:.1f} grey levels away in the median, {self.smallest:.1f} at least "
            f"(held-out images: {self.real_median:.1f}, {self.real_smallest:.1f})"
        )


def nearest_neighbours(
    samples: Tensor, reference: Tensor, k: int = 1, *, encoder: Encoder = pixels
) -> tuple[Tensor, Tensor]:
    """For each sample the k nearest of the reference images, pixel by pixel or in other features.

    - samples: uint8 (N, C, H, W); reference: uint8 (M, C, H, W), M ≥ k.
    - Returns indices (N, k) int64 into the reference, nearest first, and distances (N, k) float32: root mean square
      over the features; of pixels, in grey levels of 255. 0 is an exact copy.

    Raises `UserError` for images of different shapes, or fewer than k of them.

    >>> images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    >>> nearest_neighbours(images[:1], images, k=2)
    (tensor([[0, 1]]), tensor([[0., 1.]]))
    """
    features = encode(encoder, samples)
    size, wanted = tuple(reference.shape[1:]), tuple(samples.shape[1:])
    check(size == wanted, f"neighbours are looked for among images of one shape, not {wanted} and {size}")
    check(1 <= k <= len(reference), f"cannot find {k} neighbours among {len(reference)} images")
    centre, distances, rows = features.mean(0), [], []  # centred, float32 is precise enough to find them
    for first in range(0, len(reference), PART):
        part = encode(encoder, reference[first : first + PART])
        near = torch.cdist(features - centre, part - centre).topk(min(k + SPARE, len(part)), largest=False)
        distances.append(near.values)
        rows.append(near.indices + first)
    places = torch.cat(distances, 1).topk(min(k + SPARE, len(reference)), largest=False).indices
    chosen = torch.cat(rows, 1).gather(1, places)
    # once more as plain differences, without the rounding of cdist's matrix product, so that a copy is at 0
    found = encode(encoder, reference[chosen.flatten()]).unflatten(0, chosen.shape)
    exact, order = (features[:, None] - found).square().mean(-1).sqrt().sort(dim=1)
    return chosen.gather(1, order)[:, :k], exact[:, :k]


def nearest_training(samples: Tensor, training: Tensor, held_out: Tensor) -> Nearest:
    """Distances of samples, and of held-out images, to the nearest training image; all uint8 (N, C, H, W).

    >>> nearest_training(samples, training.images, held_out.images)   # doctest: +SKIP
    Nearest(median=31.2, smallest=9.8, real_median=30.4, real_smallest=8.1)
    """
    (_, sampled), (_, real) = nearest_neighbours(samples, training), nearest_neighbours(held_out, training)
    return Nearest(sampled.median().item(), sampled.min().item(), real.median().item(), real.min().item())


def share_within(features: Tensor, members: Tensor, k: int = 3) -> float:
    """The share of features that lie among the members: within one's distance to its k-th nearest fellow member.

    (Kynkäänniemi et al., arXiv 1904.06991, eq. 1.) `share_within(samples, real)` is the paper's precision, low where
    samples are bad; `share_within(real, samples)` its recall, low where they lack variety. Both depend on the sizes of
    the sets: compare only those of equal ones.

    - features (n, D); members (m, D), more than k. Raises `UserError` for fewer.

    >>> real = torch.arange(10.0)[:, None]
    >>> share_within(real[:5], real), share_within(real, real[:5])
    (1.0, 0.8)
    """
    check(len(members) > k, f"{len(members)} features have no neighbours number {k}; give more")
    features, members = features.double(), members.double()
    reach = torch.cdist(members, members).kthvalue(k + 1).values  # a member's first neighbour is itself
    return (torch.cdist(features, members) <= reach).any(1).double().mean().item()
