"""The world: its things, artists and sprites, and what of it is held out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np

from ..declared import declared, validated
from ..errors import UserError, check
from ..reading import reading
from .sprites import SIDE, read_folder, read_sheet

ASSETS = Path(__file__).parents[1] / "assets"
WORLD = ASSETS / "emoji.json"
ARTISTS = ("noto", "twemoji", "openmoji", "fluent_flat", "fluent")
"""Noto, Twemoji, OpenMoji, Fluent flat and Fluent."""


@declared
class Thing:
    """A thing: its name, such as "fox", synonyms that name it alone, its group, and whether it is one of the core."""

    name: str
    synonyms: tuple[str, ...]
    group: str
    core: bool


@declared
class WorldFile:
    """What `emoji.json` holds."""

    things: tuple[Thing, ...]
    without_article: tuple[str, ...]
    held_out_things: dict[str, tuple[str, ...]]
    held_out_style: str
    held_out_pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class World:
    """Things by artists, and the splits. `load_world` makes it.

    - things: in the order of the sheets; artists: their names; core: the names of the core.
    - held_out_things: {name: its relatives that are trained on, the nearest first}.
    - held_out_style; held_out_pairs: (thing, style), a tenth of the core's.
    - without_article: names and synonyms such as "scissors".
    - sheets: {artist: uint8 (N, 64, 64, 4)}, in the things' order; zeros where an artist did not draw a thing.

    >>> load_world().thing("fox").group
    'animals'
    """

    things: tuple[Thing, ...]
    sheets: Mapping[str, np.ndarray] = field(repr=False)
    held_out_things: Mapping[str, tuple[str, ...]]
    held_out_style: str
    held_out_pairs: frozenset[tuple[str, str]] = field(repr=False)
    without_article: frozenset[str] = field(repr=False)

    @property
    def artists(self) -> tuple[str, ...]:
        return tuple(self.sheets)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(thing.name for thing in self.things)

    @cached_property
    def core(self) -> tuple[str, ...]:
        return tuple(thing.name for thing in self.things if thing.core)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def thing(self, name: str) -> Thing:
        """The thing of this name; `UserError` with the nearest names where there is none.

        >>> load_world().thing("foxx")
        Traceback (most recent call last):
        dlcv_diffusion.errors.UserError: the world has no thing 'foxx'; did you mean fox?
        """
        return self.things[self._place(name)]

    def _place(self, name: str) -> int:
        if name not in self._places:
            near = get_close_matches(name, self.names, 3)
            advice = f"did you mean {', '.join(near)}?" if near else "World.names lists them"
            raise UserError(f"the world has no thing {name!r}; {advice}")
        return self._places[name]

    def _sheet(self, artist: str) -> np.ndarray:
        check(artist in self.sheets, f"there is no artist {artist!r}; there are {', '.join(self.artists)}")
        return self.sheets[artist]

    def sprite(self, thing: str, artist: str) -> np.ndarray:
        """uint8 (4, 64, 64): red, green, blue, opacity. `UserError` for what is not there.

        >>> load_world().sprite("fox", "noto").shape
        (4, 64, 64)
        """
        return self.pixels(thing, artist).transpose(2, 0, 1)

    def pixels(self, thing: str, artist: str) -> np.ndarray:
        """The sprite as Pillow has it, uint8 (64, 64, 4).

        >>> load_world().pixels("fox", "noto").shape
        (64, 64, 4)
        """
        check(self.has(thing, artist), f"the artist {artist!r} drew no {thing}; take another")
        return self.sheets[artist][self._place(thing)]

    def has(self, thing: str, artist: str) -> bool:
        """Whether an artist drew a thing, as the five who ship drew all.

        >>> load_world().has("fox", "noto")
        True
        """
        return bool(self._sheet(artist)[self._place(thing), ..., 3].any())

    def is_held_out(self, things: Sequence[str], style: str | None = None) -> bool:
        """Whether a scene of these things in this style must not be trained on.

        >>> world = load_world()
        >>> world.is_held_out(["fox"]), world.is_held_out(["fox", "owl"]), world.is_held_out(["fox"], "woodcut")
        (False, True, True)
        """
        held_out = style == self.held_out_style or any(thing in self.held_out_things for thing in things)
        return held_out or any((thing, style) in self.held_out_pairs for thing in things)


def load_world(extra: Mapping[str, str | Path] | None = None, path: str | Path = WORLD) -> World:
    """The emoji world that ships.

    - extra: further artists, {name: a folder of pictures with a transparent ground, named as `fox.png`}; they need not
      have drawn all things. They are trained on only where they are asked for by name.
    - path: another `emoji.json`, beside its sheets.

    Raises `UserError` where a file is missing or holds something else.

    >>> world = load_world()
    >>> len(world.core), world.held_out_style
    (100, 'woodcut')
    """
    with reading(path, "is not the emoji world's JSON", "install the package again"):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    facts = validated(WorldFile, content, f"'{path}'")
    names, sheets = [thing.name for thing in facts.things], {}
    for artist in ARTISTS:
        sheets[artist] = read_sheet(Path(path).with_name(f"emoji_{artist}.webp"), len(names))
    for artist, folder in (extra or {}).items():
        check(artist not in ARTISTS, f"the artist {artist!r} is there already; give yours another name")
        sheets[artist] = np.zeros((len(names), SIDE, SIDE, 4), np.uint8)
        for name, sprite in read_folder(folder, names).items():
            sheets[artist][names.index(name)] = sprite
    return World(
        facts.things,
        sheets,
        facts.held_out_things,
        facts.held_out_style,
        frozenset(facts.held_out_pairs),
        frozenset(facts.without_article),
    )
