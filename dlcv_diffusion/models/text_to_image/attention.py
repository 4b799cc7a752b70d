"""Where a prompt's words are looked at: maps of the U-Net's cross-attention (arXiv 2208.01626, section 3)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import check


class AttentionMaps:
    """What `cross_attention_maps` has seen: of each call of the U-Net the mean of softmax(QKᵀ/√d) over its heads.

    >>> maps.mean().shape   # doctest: +SKIP
    torch.Size([8, 24, 8, 8])
    """

    def __init__(self, aspect: float = 1.0):
        self.aspect = aspect
        self.sums: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self.calls: dict[tuple[str, tuple[int, ...]], int] = {}

    def add(self, layer: str, probabilities: Tensor) -> None:
        """One call's, (B, pixels, L), at one layer."""
        key = layer, tuple(probabilities.shape)
        self.sums[key] = self.sums.get(key, 0) + probabilities
        self.calls[key] = self.calls.get(key, 0) + 1

    def mean(self, size: tuple[int, int] | None = None) -> Tensor:
        """Maps (B, L, h, w): the mean over calls and layers, each token's; over the tokens they add up to 1.

        - size: (h, w), by default that of the largest layer; smaller ones are interpolated.

        Raises `UserError` where the U-Net was not called, or with several batch sizes.
        """
        check(self.sums, "the U-Net was not called, so there is no attention to show; sample inside the `with`")
        batches = {shape[0] for _, shape in self.sums}
        check(len(batches) == 1, f"the U-Net was called for {sorted(batches)} pictures; show one batch size at a time")
        found = []
        for key, total in self.sums.items():
            mean = total / self.calls[key]
            pixels = mean.shape[1]
            height = max(1, round(math.sqrt(pixels * self.aspect)))
            found.append(mean.transpose(1, 2).unflatten(2, (height, pixels // height)))
        largest = max((tuple(each.shape[2:]) for each in found), key=math.prod)
        shown = [F.interpolate(each, size or largest, mode="bilinear", align_corners=False) for each in found]
        return torch.stack(shown).mean(0)


class Seen:
    """An attention processor of diffusers that also tells what it attended to, and changes nothing."""

    def __init__(self, processor: Any, tell: Callable[[Tensor], None]):
        self.processor, self.tell = processor, tell

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        query, key = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
        scores = attn.get_attention_scores(attn.head_to_batch_dim(query), attn.head_to_batch_dim(key))
        self.tell(scores.detach().float().unflatten(0, (len(hidden_states), attn.heads)).mean(1).cpu())
        return self.processor(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


@contextmanager
def cross_attention_maps(unet: nn.Module, aspect: float = 1.0) -> Iterator[AttentionMaps]:
    """Inside, every call of the U-Net is looked at: where each token of the prompt is attended to.

    - unet: diffusers' `UNet2DConditionModel`, called without masks and `cross_attention_kwargs`. What it computes is
      the same, to the bit, and afterwards it is as before.
    - aspect: height of its latents through their width.

    Of a guided call the first half of the batch is told by the prompts, the second by the empty one.

    >>> with cross_attention_maps(sd.unet) as maps:   # doctest: +SKIP
    ...     z = last(ddim(guided(sd, c), noise, steps=25)).x
    >>> fox = maps.mean()[: len(c), 2]                # doctest: +SKIP
    """
    maps, before = AttentionMaps(aspect), unet.attn_processors
    watched = {
        name: Seen(each, lambda scores, name=name: maps.add(name, scores)) if "attn2" in name else each
        for name, each in before.items()
    }
    check(any("attn2" in name for name in before), f"this {type(unet).__name__} has no cross-attention (attn2)")
    unet.set_attn_processor(watched)
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)
