"""What the small CLIP trains on: scenes of the training split, captions, and which captions are true of which scene."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.pixels import to_x0
from ..models.clip.tokenizer import Merge, learn_merges
from .captions import BESIDE, BESIDE_FROM_RIGHT, GROUNDS, IN_STYLE, TEMPLATES, caption, phrase
from .scenes import COLOURS, FULL, Kind, Scene, Variety
from .splits import pictures
from .styles import STYLES
from .world import World

SHARES: Mapping[Kind, float] = {"white": 0.2, "colour": 0.2, "pair": 0.2, "style": 0.4}
"""The share of each kind of scene in training: styles have most to be learnt about."""

LESS_SAID = 0.3
"""The share of captions that say less than there is to see: "a fox" of a fox in neon, or of one beside a pizza."""

UNSAID = -1


@dataclass(frozen=True)
class Captioned:
    """A batch: pictures, a caption for each, and both as numbers, from which `true_of` tells what is true of what.

    - images: (B, 3, 64, 64) uint8. shown, said: (B, 4) int64, what is to be seen and what the caption says: both
      things, the background, the style; −1 for none, or not said.
    """

    images: Tensor
    captions: list[str]
    shown: Tensor
    said: Tensor


class ScenePool:
    """Rendered scenes of the training split, from which batches are taken with new captions each time.

    A scene takes half a millisecond to draw, as long as a training step takes for it: each is drawn once.

    - count: of scenes, 12 KB each; they follow from `seed` and their number.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> pool = ScenePool(load_world(), count=8, seed=0)
    >>> pool.batch(torch.tensor([3, 5]), seed=0, step=0).images.shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(self, world: World, count: int, seed: int, variety: Variety = FULL):
        self.world = world
        self.images, self.scenes = pictures(world, "train", count, seed, kinds=SHARES, variety=variety)

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, rows: Tensor, seed: int, step: int) -> Captioned:
        """These rows, with captions that follow from `seed` and `step`."""
        rng = np.random.default_rng([seed, step, 1])
        drawn = [self.scenes[row] for row in rows.tolist()]
        told = [less_said(scene, rng) if rng.random() < LESS_SAID else scene for scene in drawn]
        captions = [caption(self.world, scene, rng, synonyms=True) for scene in told]
        shown, said = (torch.tensor([_numbers(self.world, scene) for scene in each]) for each in (drawn, told))
        return Captioned(self.images[rows], captions, shown, said)


def less_said(drawn: Scene, rng: np.random.Generator) -> Scene:
    """A scene whose caption is true of `drawn` too and leaves something out: the style, the ground, or one of two.

    >>> from dlcv_diffusion.emoji.scenes import Placed
    >>> fox = Scene((Placed("fox", "noto"),), background="blue")
    >>> less_said(fox, np.random.default_rng(0)).background is None
    True
    """
    placed = drawn.placed[rng.integers(2) :][:1] if len(drawn.placed) == 2 else drawn.placed
    return replace(drawn, placed=placed, background=None, style=None)


def _numbers(world: World, drawn: Scene) -> list[int]:
    things = sorted(world.names.index(thing) for thing in drawn.things)
    things += [UNSAID] * (2 - len(things))
    ground = list(COLOURS).index(drawn.background) if drawn.background else UNSAID
    return [*things, ground, list(STYLES).index(drawn.style) if drawn.style else UNSAID]


def true_of(shown: Tensor, said: Tensor) -> Tensor:
    """(B, B') bool: whether all that caption j says is to be seen in picture i. Both (…, 4), see `Captioned`.

    >>> fox_in_neon, fox, neon_pizza = [3, -1, -1, 2], [3, -1, -1, -1], [9, -1, -1, 2]
    >>> true_of(torch.tensor([fox_in_neon]), torch.tensor([fox_in_neon, fox, neon_pizza])).tolist()
    [[True, True, False]]
    """
    shown, said = shown[:, None], said[None]
    things = (said[..., :2, None] == shown[..., None, :2]).any(-1) | (said[..., :2] == UNSAID)
    rest = (said[..., 2:] == shown[..., 2:]) | (said[..., 2:] == UNSAID)
    return things.all(-1) & rest.all(-1)


def augmented(images: Tensor, recolour: Tensor, generator: torch.Generator) -> Tensor:
    """x (B, 3, H, W) float32 in [−1, 1] of uint8 images, each a little turned, moved, sized, and of another light.

    - recolour: (B,) bool: those whose caption names no colour and no style may also become grey, negative, or change
      their colours, so that a thing is known by its shape too.
    """

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(len(images), generator=generator) * (high - low) + low

    x = to_x0(images)
    ground = x[:, :, :1, :1]
    angle, size = uniform(-0.2, 0.2), uniform(0.85, 1.2)
    cos, sin = angle.cos() * size, angle.sin() * size
    theta = torch.stack([cos, -sin, uniform(-0.08, 0.08), sin, cos, uniform(-0.08, 0.08)], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x - ground, grid, align_corners=False) + ground  # what comes in is of the corner's colour

    mixed = torch.eye(3) + torch.randn(len(x), 3, 3, generator=generator) * 0.3
    mixed = mixed / mixed.sum(2, keepdim=True).clamp(min=0.5)  # white stays nearly white
    grey = torch.full((3, 3), 1 / 3)
    kind = torch.rand(len(x), generator=generator)[:, None, None]
    mixed = torch.where(kind < 0.25, grey, torch.where(kind < 0.6, mixed, torch.eye(3)))
    negative = torch.where(uniform(0, 1) < 0.15, -1.0, 1.0)[:, None, None]
    mixed = torch.where(recolour[:, None, None], mixed * negative, torch.eye(3))
    x = torch.einsum("bij,bjhw->bihw", mixed, x)
    light, contrast = uniform(-0.15, 0.15).view(-1, 1, 1, 1), uniform(0.75, 1.25).view(-1, 1, 1, 1)
    return (x * contrast + light).clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def world_merges(world: World, most: int = 4_000) -> list[Merge]:
    """The merges of the world's words: what captions are made of, names most, until each word is one token.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> from dlcv_diffusion.models.clip.tokenizer import clip_tokenizer
    >>> merges = world_merges(load_world())
    >>> len(clip_tokenizer(merges).encode("a photo of an owl in the style of a blueprint"))
    11
    """
    texts = {said.replace("{}", ""): 500 for said in (*TEMPLATES, *BESIDE, BESIDE_FROM_RIGHT, *GROUNDS, *IN_STYLE)}
    texts |= {f"a {colour} background": 200 for colour in COLOURS}
    texts |= {style.phrase: 200 for style in STYLES.values()}
    for thing in world.things:
        texts |= {phrase(world, thing.name): 40, thing.group: 10}
        texts |= {phrase(world, word): 10 for word in thing.synonyms}
    return learn_merges(texts, most)
