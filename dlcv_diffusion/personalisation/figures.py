"""Figures of Problem 3's second half: where words count, and what each way drew best and worst."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

from ..errors import check
from ..figures import ReportFigure, image_grid

DIM = 0.35
"""How much of a picture is left below its map."""
GREEN = (0, 140, 70)


def attention_figure(
    images: Tensor,
    maps: Tensor,
    words: Mapping[str, int],
    *,
    row_labels: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
    facts: dict[str, Any] | None = None,
) -> ReportFigure:
    """Each picture, and behind it where each word counts: the brighter, the more attention.

    - images: uint8 (B, 3, H, W); maps: (B, L, h, w), as `AttentionMaps.mean` gives them.
    - words: the columns, and the place among the L tokens of each. One scale for all columns of a row.

    Raises `UserError` for no words, places that are not there, and other numbers of pictures and maps.

    >>> attention_figure(images, maps.mean()[: len(images)], {"fox": 2, "pizza": 6})   # doctest: +SKIP
    """
    check(words, "there is no word to show the attention of; give words and their places, such as {'fox': 2}")
    check(len(images) == len(maps), f"{len(images)} pictures and maps of {len(maps)}; give as many of each")
    places = list(words.values())
    there = all(0 <= place < maps.shape[1] for place in places)
    check(there, f"the maps are of {maps.shape[1]} tokens, 0 … {maps.shape[1] - 1}; not all of {places} are there")
    shown = F.interpolate(maps[:, places].float(), tuple(images.shape[2:]), mode="bilinear", align_corners=False)
    shown = shown / shown.amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    heat = torch.from_numpy(colormaps["inferno"](shown.numpy())[..., :3]).movedim(-1, 2)  # (B, words, 3, H, W)
    grey = images.float().mean(1, keepdim=True)[:, None].expand(-1, len(places), 3, -1, -1) / 255
    mixed = ((DIM * grey + (1 - DIM) * heat) * 255).round().clamp(0, 255).to(torch.uint8)
    rows = torch.cat([images[:, None], mixed], 1)
    return image_grid(rows, row_labels, ["", *words], title, caption, facts=facts)


def best_and_worst(
    drawn: Mapping[str, tuple[Tensor, Sequence[float]]],
    *,
    truth: Tensor | None = None,
    found: Mapping[str, Sequence[bool]] | None = None,
    count: int = 4,
    title: str = "",
    caption: str = "",
    facts: dict[str, Any] | None = None,
) -> ReportFigure:
    """A row for each way: its `count` pictures of the highest score, and as many of the lowest.

    - drawn: by way, uint8 (N, 3, H, W) and N scores. truth: true pictures, 2 · count or more, for a row above.
    - found: by way, which of the N pictures have a green frame.

    Raises `UserError` where there are fewer pictures than columns, or not as many scores.

    >>> best_and_worst({"plain words": (images, row["scores"])})   # doctest: +SKIP
    """
    rows, labels = [], []
    fits = all(len(drawn[way][0]) == len(which) for way, which in (found or {}).items() if way in drawn)
    check(fits and (found or {}).keys() <= drawn.keys(), "`found` needs a truth value for each picture of ways drawn")
    if truth is not None:
        check(len(truth) >= 2 * count, f"{len(truth)} true pictures do not fill a row of {2 * count}; give more")
        rows.append(truth[: 2 * count])
        labels.append("true pictures")
    for way, (images, scores) in drawn.items():
        fits = len(images) == len(scores) >= 2 * count
        check(fits, f"'{way}' has {len(images)} pictures and {len(scores)} scores; give {2 * count} or more, as many")
        order = torch.as_tensor(scores).argsort(descending=True, stable=True)
        chosen = torch.cat([order[:count], order[-count:]])
        framed = [(found or {}).get(way, [False] * len(images))[place] for place in chosen.tolist()]
        rows.append(torch.where(torch.tensor(framed)[:, None, None, None], _framed(images[chosen]), images[chosen]))
        labels.append(way)
    heads = ["best", *[""] * (count - 1), "worst", *[""] * (count - 1)]
    return image_grid(torch.stack(rows), labels, heads, title, caption, facts=facts)


def _framed(images: Tensor) -> Tensor:
    """The pictures with a green edge of two pixels."""
    inside = torch.zeros(images.shape[2:], dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    return torch.where(inside, images, torch.tensor(GREEN, dtype=torch.uint8)[:, None, None])
