"""Splits: scenes to train on, and four kinds of scenes that were never seen. Scene i follows from (split, seed, i)."""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import check
from .scenes import FULL, KINDS, Kind, Scene, Variety, random_scene, render
from .styles import STYLES
from .world import World

Split = Literal["train", "unseen", "held_out_pairs", "held_out_style", "held_out_things", "everything"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""
- train: no held-out thing, style or pair of a thing and a style.
- unseen: the same kinds of scenes, others than those of train.
- held_out_pairs: a thing in a style, both trained on, but never together.
- held_out_style: things that were trained on, in the style that was not.
- held_out_things: things that were not trained on, on white or on a colour.
- everything: all of it, for a judge.
"""

EVEN: Mapping[Kind, float] = dict.fromkeys(KINDS, 0.25)


def scene(
    world: World,
    split: Split,
    index: int,
    seed: int,
    *,
    core: bool = False,
    kinds: Mapping[Kind, float] = EVEN,
    variety: Variety = FULL,
) -> Scene:
    """Scene number `index` of a split, of a seed; it depends on nothing but the arguments.

    - core: only things of the core. kinds: the share of each kind; what a split does not have is left out.
    - variety: how much scenes vary, and whose drawings they show: `Variety(artists=…)` leaves an artist out.

    Raises `UserError` for a split or kind that is not known, or where no kind is left.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> scene(load_world(), "held_out_style", 3, seed=0).style
    'woodcut'
    """
    check(split in SPLITS, f"there is no split {split!r}; there are {', '.join(SPLITS)}")
    check(index >= 0 and seed >= 0, f"index and seed are {index} and {seed}; they must be at least 0")
    rng = np.random.default_rng([SPLITS.index(split), seed, index])
    kind = _kind(split, kinds, rng)
    things, style = _draw(world, split, kind, core, rng)
    return random_scene(world, rng, kind, things=things, style=style, variety=variety)


def _kind(split: Split, kinds: Mapping[Kind, float], rng: np.random.Generator) -> Kind:
    check(set(kinds) <= set(KINDS), f"the kinds are {', '.join(kinds)}; there are {', '.join(KINDS)}")
    if split in ("held_out_pairs", "held_out_style"):
        return "style"
    able = [kind for kind in KINDS if kinds.get(kind, 0) > 0 and (split != "held_out_things" or kind in KINDS[:2])]
    check(able, f"none of the kinds {', '.join(kinds)} is in the split '{split}'; take others")
    weights = np.array([kinds[kind] for kind in able])
    return able[rng.choice(len(able), p=weights / weights.sum())]


def _draw(world: World, split: Split, kind: Kind, core: bool, rng: np.random.Generator) -> tuple[list[str], str | None]:
    """The things and the style of a scene."""
    if split == "held_out_pairs":
        pairs = sorted(world.held_out_pairs)
        thing, style = pairs[rng.integers(len(pairs))]
        return [thing], style
    names = world.core if core else world.names
    if split == "held_out_things":
        names = tuple(world.held_out_things)
    elif split != "everything":
        names = tuple(name for name in names if name not in world.held_out_things)
    things = [names[place] for place in rng.choice(len(names), 2 if kind == "pair" else 1, replace=False)]
    if kind != "style":
        return things, None
    if split == "held_out_style":
        return things, world.held_out_style
    styles = [style for style in STYLES if split == "everything" or not world.is_held_out(things, style)]
    return things, styles[rng.integers(len(styles))]


def scenes(world: World, split: Split, count: int, seed: int, *, start: int = 0, **options: object) -> Iterator[Scene]:
    """Scenes `start … start + count − 1` of a split, of a seed; options are those of `scene`.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> [drawn.style for drawn in scenes(load_world(), "held_out_style", 2, seed=0)]
    ['woodcut', 'woodcut']
    """
    return (scene(world, split, index, seed, **options) for index in range(start, start + count))


def pictures(
    world: World, split: Split, count: int, seed: int, *, start: int = 0, **options: object
) -> tuple[Tensor, list[Scene]]:
    """The same scenes, rendered: uint8 (count, 3, 64, 64), and what they show.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> images, shown = pictures(load_world(), "train", 4, seed=0)
    >>> images.shape, len(shown)
    (torch.Size([4, 3, 64, 64]), 4)
    """
    shown = list(scenes(world, split, count, seed, start=start, **options))
    images = torch.empty((count, 3, 64, 64), dtype=torch.uint8)
    for row, drawn in enumerate(shown):
        images[row] = render(world, drawn)
    return images, shown
