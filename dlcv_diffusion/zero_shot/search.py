"""The other way round: words are given, and the pictures that lie nearest to them are found."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import check
from ..evaluation.encoder import finite
from ..models.clip import Clip
from .classify import prepared_batches
from .pictures import Pictures


def picture_features(clip: Clip, pictures: Pictures, *, batch_size: int = 64) -> tuple[list[int], Tensor]:
    """The rows of the pictures that can be read, and their features (N, D) of length 1, on the CPU.

    Raises `UserError` where none can be read.

    >>> rows, features = picture_features(clip, load_pictures("emoji"))   # doctest: +SKIP
    """
    rows, parts = [], []
    for numbers, prepared, _ in prepared_batches(clip, pictures, batch_size):
        if numbers:
            rows += numbers
            parts.append(finite(clip.encode_prepared(prepared), "CLIP's features").cpu())
    check(rows, f"none of the {len(pictures)} pictures of '{pictures.source}' can be read")
    return rows, torch.cat(parts)


def search(clip: Clip, features: Tensor, texts: Sequence[str], k: int = 5) -> tuple[Tensor, Tensor]:
    """For each text the k pictures whose features make the smallest angle with its own: places (T, k) int64, and
    cosines (T, k), the nearest first.

    - features: (N, D) of length 1, N ≥ k, such as `picture_features` gives, computed once for many searches.

    Raises `UserError` for fewer than k pictures.

    >>> places, cosines = search(clip, features, ["a red vehicle", "something to eat"])   # doctest: +SKIP
    """
    check(
        1 <= k <= len(features), f"cannot find {k} pictures among {len(features)}; choose k from 1 to {len(features)}"
    )
    found = (clip.encode_texts(list(texts)).cpu() @ features.T).topk(k, dim=1)
    return found.indices, found.values
