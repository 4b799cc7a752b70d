"""What the small text-to-image model trains on: latents of calm scenes, and embeddings of what is said of them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..models.registry import short_hash
from .captions import caption
from .scenes import Kind, Scene, Variety
from .splits import pictures
from .world import World

SHARES: Mapping[Kind, float] = {"white": 0.15, "colour": 0.2, "style": 0.3, "pair": 0.35}
"""The share of each kind of scene: two things next to each other are small, and learnt last."""

CALM = Variety(artists=("fluent_flat", "fluent"), mirror=False, shift=2, smallest=0.9)
"""How much has to be remembered decides how soon things can be told: two artists who drew the same shapes, one of them
flat, and things that hardly move."""

FRAMES = ("a photo of {}", "a picture of {}", "an image of {}", "an emoji of {}", "a drawing of {}")
"""What a caption stands in where it does not stand alone."""

FRAMED = 0.3
"""The share of captions that stand in one of them."""

AT_ONCE = 1_000


def prompt_of(world: World, scene: Scene, rng: np.random.Generator) -> str:
    """What is said of a scene: its plain caption, or that in one of `FRAMES`.

    >>> from dlcv_diffusion.emoji.scenes import Placed
    >>> from dlcv_diffusion.emoji.world import load_world
    >>> prompt_of(load_world(), Scene((Placed("fox", "noto"),), background="blue"), np.random.default_rng(0))
    'a fox on a blue background'
    """
    said = caption(world, scene)
    return FRAMES[rng.integers(len(FRAMES))].format(said) if rng.random() < FRAMED else said


class LatentPool:
    """Scenes of the training split as latents, with an embedding of a prompt for each: computed once, kept in memory.

    - encode: uint8 (B, 3, H, W) to latents (B, c, h, w); encode_prompts: texts to embeddings (B, L, D), as those of a
      `TextToImage`. count: of scenes; they follow from `seed` and their number.

    `latents` (count, c, h, w) float32; `prompts`, each once, and "" last; `embeddings` (P, L, D) float16 of them;
    `said` (count,) int64, which prompt is each scene's. `facts`: hashes of scenes and prompts.

    >>> pool = LatentPool(world, sd.encode, sd.encode_prompts, 1_000, seed=0)   # doctest: +SKIP
    """

    def __init__(
        self,
        world: World,
        encode: Callable[[Tensor], Tensor],
        encode_prompts: Callable[[Sequence[str]], Tensor],
        count: int,
        seed: int,
        *,
        shares: Mapping[Kind, float] = SHARES,
        variety: Variety = CALM,
    ):
        rng = np.random.default_rng([seed, 3])
        latents, texts, hashes = [], [], []
        for start in range(0, count, AT_ONCE):
            some, options = min(AT_ONCE, count - start), {"core": True, "kinds": shares, "variety": variety}
            images, shown = pictures(world, "train", some, seed, start=start, **options)
            latents.append(encode(images).float().cpu())
            texts += [prompt_of(world, scene, rng) for scene in shown]
            hashes.append(images.flatten(1).sum(1))
        self.latents = torch.cat(latents).contiguous(memory_format=torch.channels_last)
        self.prompts = [*dict.fromkeys(texts), ""]
        places = {text: place for place, text in enumerate(self.prompts)}
        self.said = torch.tensor([places[text] for text in texts])
        self.embeddings = embedded(self.prompts, encode_prompts)
        words = torch.frombuffer(bytearray("\n".join(self.prompts), "utf-8"), dtype=torch.uint8)
        self.facts = {"world_hash": short_hash([torch.cat(hashes), self.said]), "prompts_hash": short_hash([words])}

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) and places of prompts (B,) int64, of scenes of these numbers (B,)."""
        return self.latents[rows], self.said[rows]

    @property
    def null(self) -> int:
        """The place of the empty prompt among `prompts`."""
        return len(self.prompts) - 1


def embedded(prompts: Sequence[str], encode_prompts: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """Embeddings (P, L, D) float16 on the CPU: half the memory, and a thousandth off."""
    parts = [prompts[start : start + AT_ONCE] for start in range(0, len(prompts), AT_ONCE)]
    return torch.cat([encode_prompts(part).to("cpu", torch.float16) for part in parts])
