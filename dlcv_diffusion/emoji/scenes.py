"""Scenes: one thing on white, on a colour or in a style, or two next to each other, composed from seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from scipy import ndimage
from torch import Tensor

from ..declared import declared
from ..errors import check
from .sprites import LONGEST, SIDE
from .styles import STYLES
from .world import ARTISTS, World

COLOURS = {
    "red": (222, 84, 78),
    "orange": (244, 162, 84),
    "yellow": (250, 224, 108),
    "green": (122, 190, 112),
    "blue": (104, 158, 228),
    "purple": (166, 126, 212),
    "pink": (246, 182, 206),
    "brown": (158, 112, 78),
    "grey": (190, 190, 190),
    "black": (38, 38, 42),
}
"""The colours that a background may have."""

Kind = Literal["white", "colour", "pair", "style"]
KINDS: tuple[Kind, ...] = ("white", "colour", "pair", "style")
"""One thing on white, one on a colour, two next to each other on white, one in a style."""

EDGE = 1.5
"""Pixels that stay free at a picture's edge, and between two things."""


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: whose drawing, the centre (x, y) in pixels from the upper left, the side of its square."""

    thing: str
    artist: str
    x: float = SIDE / 2
    y: float = SIDE / 2
    size: float = float(SIDE)
    mirror: bool = False


@dataclass(frozen=True)
class Scene:
    """What a picture shows: things from left to right, the background's colour or else the style.

    None of them is a white ground, and plain. A style paints its own ground, so there is one or the other. `seed` is
    for what in a style is random. Raises `UserError` for a background or style that is not known.

    >>> Scene((Placed("fox", "noto"),), background="blue").things
    ('fox',)
    """

    placed: tuple[Placed, ...]
    background: str | None = None
    style: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known = self.background is None or self.background in COLOURS
        check(known, f"there is no background {self.background!r}; there are {', '.join(COLOURS)}, and None for white")
        known = self.style is None or self.style in STYLES
        check(known, f"there is no style {self.style!r}; there are {', '.join(STYLES)}, and None")
        check(self.background is None or self.style is None, "a style paints its own ground; leave the background out")

    @property
    def things(self) -> tuple[str, ...]:
        return tuple(placed.thing for placed in self.placed)

    @property
    def kind(self) -> Kind:
        if self.style:
            return "style"
        return "pair" if len(self.placed) > 1 else "colour" if self.background else "white"


@declared
class Variety:
    """How much scenes vary: less is easier to learn.

    - artists: whose drawings. mirror: every other thing is mirrored. shift: pixels that a thing may lie off the middle
      of its place, as far as it stays within. smallest: the least size as a part of the largest.

    >>> Variety(artists=("noto", "twemoji"), mirror=False, shift=2, smallest=0.9).mirror
    False
    """

    artists: Annotated[tuple[str, ...], Field(min_length=1)] = ARTISTS
    mirror: bool = True
    shift: Annotated[float, Field(ge=0)] = 10.0
    smallest: Annotated[float, Field(gt=0, le=1)] = 0.75


FULL = Variety()


def random_scene(
    world: World,
    rng: np.random.Generator | int,
    kind: Kind = "white",
    *,
    things: Sequence[str] | None = None,
    background: str | None = None,
    style: str | None = None,
    variety: Variety = FULL,
    among: Iterable[str] | None = None,
) -> Scene:
    """A scene of this kind, or the one that what is given asks for; what is not given is drawn.

    - rng: a generator, or a seed. things: one name, or two for things next to each other, from left to right.
    - background: of `COLOURS`; one that the thing stands out from is drawn. style: of `STYLES`.
    - among: names that things are drawn from, all by default. Nothing is held out here; `splits` does that.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> world = load_world()
    >>> random_scene(world, 0, things=["fox"], background="blue").background
    'blue'
    """
    rng = np.random.default_rng(rng)
    kind = "style" if style else "colour" if background else kind
    if things is None:
        among = world.names if among is None else tuple(among)
        count = 2 if kind == "pair" else 1
        check(len(among) >= count, f"there are {len(among)} things to draw {count} from; give more")
        things = [among[place] for place in rng.choice(len(among), count, replace=False)]
    check(len(things) in (1, 2), f"a scene shows one thing or two, not {len(things)}")
    artists = [_artist(world, thing, variety.artists, rng) for thing in things]
    places = _alone if len(things) == 1 else _beside
    placed = places(world, things, artists, variety, rng)
    if kind == "colour" and background is None:
        background = _visible(world, placed, rng)
    if kind == "style" and style is None:
        style = tuple(STYLES)[rng.integers(len(STYLES))]
    return Scene(placed, background, style, int(rng.integers(2**31)))


def _artist(world: World, thing: str, artists: Sequence[str], rng: np.random.Generator) -> str:
    able = [artist for artist in artists if world.has(thing, artist)]
    check(able, f"none of the artists {', '.join(artists)} drew a {thing}; take others")
    return able[rng.integers(len(able))]


def _alone(world: World, things, artists, variety: Variety, rng: np.random.Generator) -> tuple[Placed, ...]:
    size = (SIDE - 2 * EDGE) / LONGEST * SIDE * rng.uniform(variety.smallest, 1)
    return (_placed(world, things[0], artists[0], size, (0, SIDE), variety, rng),)


def _beside(world: World, things, artists, variety: Variety, rng: np.random.Generator) -> tuple[Placed, ...]:
    """Each in its half, as large as fits into 30 by 42 pixels, and at about the same height."""
    placed, level = [], rng.uniform(-variety.shift, variety.shift)
    for thing, artist, half in zip(things, artists, ((0, SIDE / 2), (SIDE / 2, SIDE)), strict=True):
        width, height = extent(world, thing, artist)
        size = min((SIDE / 2 - 2 * EDGE) / width, 42 / height) * rng.uniform(max(variety.smallest, 0.85), 1)
        placed.append(_placed(world, thing, artist, size, half, variety, rng, level))
    return tuple(placed)


def _placed(
    world: World, thing, artist, size, columns, variety: Variety, rng: np.random.Generator, level: float | None = None
) -> Placed:
    """A thing within these columns, off their middle by up to `variety.shift`; at a level: by that, and two pixels."""
    width, height = (size * part for part in extent(world, thing, artist))
    off_x, off_y = rng.uniform(-variety.shift, variety.shift, 2)
    off_y = off_y if level is None else level + 2 * off_y / max(variety.shift, 2)
    room_x, room_y = (max(0.0, side / 2 - EDGE) for side in (columns[1] - columns[0] - width, SIDE - height))
    x = sum(columns) / 2 + float(np.clip(off_x, -room_x, room_x))
    y = SIDE / 2 + float(np.clip(off_y, -room_y, room_y))
    return Placed(thing, artist, x, y, size, bool(variety.mirror and rng.random() < 0.5))


def _visible(world: World, placed: Sequence[Placed], rng: np.random.Generator) -> str:
    """A colour that all of the things stand out from, or any where there is none."""
    sets = [stands_out(world, each.thing, each.artist) for each in placed]
    names = [name for name in COLOURS if all(name in seen for seen in sets)] or list(COLOURS)
    return names[rng.integers(len(names))]


@lru_cache(maxsize=65536)
def extent(world: World, thing: str, artist: str) -> tuple[float, float]:
    """Width and height of what is drawn as parts of the sprite's square.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> extent(load_world(), "giraffe", "noto")[1] > 0.9
    True
    """
    opaque = world.pixels(thing, artist)[..., 3] > 12
    return tuple(float(np.ptp(np.flatnonzero(opaque.any(axis))) + 1) / SIDE for axis in (0, 1))


@lru_cache(maxsize=65536)
def stands_out(world: World, thing: str, artist: str) -> frozenset[str]:
    """The colours from which the thing's outline differs enough to be seen.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> "pink" in stands_out(load_world(), "pig", "noto"), "blue" in stands_out(load_world(), "pig", "noto")
    (False, True)
    """
    sprite = world.pixels(thing, artist).astype(np.float32)
    opaque = (sprite[..., 3] > 127).view(np.uint8)
    rim = sprite[opaque > ndimage.minimum_filter(opaque, 7, mode="constant")][:, :3]
    apart = {name: np.linalg.norm(rim - colour, axis=1) for name, colour in COLOURS.items()}
    return frozenset(name for name, distance in apart.items() if (distance > 70).mean() > 0.7)


def render(world: World, scene: Scene) -> Tensor:
    """The picture of a scene, uint8 (3, 64, 64). The same scene gives the same picture.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> render(load_world(), Scene((Placed("fox", "noto"),))).shape
    torch.Size([3, 64, 64])
    """
    ground = (255, 255, 255) if scene.background is None else COLOURS[scene.background]
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = ground
    cover = np.zeros((SIDE, SIDE), np.float32)
    for placed in scene.placed:
        _lay(picture, cover, _sprite(world, placed.thing, placed.artist, placed.mirror), placed)
    if scene.style:
        rng = np.random.default_rng(scene.seed)
        picture = STYLES[scene.style].paint(picture / 255, cover, rng) * 255
    picture = np.clip(picture + 0.5, 0, 255.49).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


@lru_cache(maxsize=4096)
def _sprite(world: World, thing: str, artist: str, mirror: bool) -> Image.Image:
    """The sprite with its colours multiplied by their opacity, as antialiasing needs it."""
    pixels = world.pixels(thing, artist)
    return Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if mirror else pixels), "RGBA").convert("RGBa")


def _lay(picture: np.ndarray, cover: np.ndarray, sprite: Image.Image, placed: Placed) -> None:
    """Lay a sprite over the picture, (H, W, 3) in 0 … 255, also between pixels: sprite + (1 − α) · below."""
    spans, box = [], []
    for centre in (placed.x, placed.y):
        low = centre - placed.size / 2
        first, last = max(0, int(np.ceil(low))), min(SIDE, int(np.floor(low + placed.size)))
        spans.append((first, last))
        box.append([(edge - low) * SIDE / placed.size for edge in (first, last)])
    (left, right), (top, bottom) = spans
    if right <= left or bottom <= top:
        return
    box = np.clip((box[0][0], box[1][0], box[0][1], box[1][1]), 0, SIDE)
    small = sprite.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=tuple(box))
    small = np.asarray(small).astype(np.float32)
    alpha = small[..., 3:] / 255
    picture[top:bottom, left:right] *= 1 - alpha
    picture[top:bottom, left:right] += np.minimum(small[..., :3], small[..., 3:])
    under = cover[top:bottom, left:right]
    under += (1 - under) * alpha[..., 0]
