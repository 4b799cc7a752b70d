"""Captions: what a scene shows, in words; and the templates that prompts are made from."""

from collections.abc import Sequence

import numpy as np

from .scenes import Scene
from .styles import STYLES
from .world import World

SINGLE = "a photo of {}."
"""One template, as the course has it."""

TEMPLATES = (
    "{}",
    "{}.",
    "a picture of {}",
    "an image of {}",
    "an emoji of {}",
    "a drawing of {}",
    "a photo of {}.",
    "A photo of {}.",
    "a small picture of {}",
    "an icon of {}",
)
"""What a caption may stand in: an ensemble for zero-shot classification, and variety for training."""

BESIDE = ("{} next to {}", "{} beside {}", "{} and {}", "{} to the left of {}")
BESIDE_FROM_RIGHT = "{} to the right of {}"
GROUNDS = ("{} on {}", "{} in front of {}", "{} with {}")
IN_STYLE = ("{} in the style of {}", "{} as {}", "{}, {}")

SOUNDS_LIKE_A_VOWEL = ("hour", "heir", "honest", "x-ray", "mp")
SOUNDS_LIKE_A_CONSONANT = ("uni", "use", "uku", "eu", "one-", "ufo")


def article(noun: str) -> str:
    """The noun with "a" or "an" before it, by its sound.

    >>> article("owl"), article("unicorn"), article("hourglass")
    ('an owl', 'a unicorn', 'an hourglass')
    """
    word = noun.lower()
    vowel = word.startswith(SOUNDS_LIKE_A_VOWEL) or (
        word[0] in "aeiou" and not word.startswith(SOUNDS_LIKE_A_CONSONANT)
    )
    return f"{'an' if vowel else 'a'} {noun}"


def phrase(world: World, noun: str) -> str:
    """A name or synonym as captions have it: with an article, unless it takes none.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> phrase(load_world(), "owl"), phrase(load_world(), "scissors")
    ('an owl', 'scissors')
    """
    return noun if noun in world.without_article else article(noun)


def caption(world: World, scene: Scene, rng: np.random.Generator | int | None = None, *, synonyms: bool = False) -> str:
    """What a scene shows, in words; with a generator or a seed, by one of several templates.

    - synonyms: in every other place a synonym stands for the name; it needs `rng`.

    >>> from dlcv_diffusion.emoji.scenes import random_scene
    >>> from dlcv_diffusion.emoji.world import load_world
    >>> world = load_world()
    >>> caption(world, random_scene(world, 0, things=["fox"], background="blue"))
    'a fox on a blue background'
    >>> caption(world, random_scene(world, 0, things=["owl", "scissors"]))
    'an owl next to scissors'
    >>> caption(world, random_scene(world, 0, things=["fox"], style="blueprint"))
    'a fox in the style of a blueprint'
    """
    rng = None if rng is None else np.random.default_rng(rng)
    nouns = [_noun(world, thing, rng if synonyms else None) for thing in scene.things]
    said = nouns[0]
    if len(nouns) == 2:
        beside = _any((*BESIDE, BESIDE_FROM_RIGHT), rng)
        said = beside.format(*(reversed(nouns) if beside == BESIDE_FROM_RIGHT else nouns))
    if scene.background:
        said = _any(GROUNDS, rng).format(said, article(f"{scene.background} background"))
    if scene.style:
        said = _any(IN_STYLE, rng).format(said, STYLES[scene.style].phrase)
    return _any(TEMPLATES, rng).format(said)


def _noun(world: World, thing: str, rng: np.random.Generator | None) -> str:
    words = (thing, *world.thing(thing).synonyms)
    if rng is None or len(words) == 1 or rng.random() < 0.5:
        return phrase(world, thing)
    return phrase(world, _any(words[1:], rng))


def _any(choices: Sequence[str], rng: np.random.Generator | None) -> str:
    """The first without a generator; with one, the first in every other case, else any."""
    return choices[0] if rng is None or rng.random() < 0.5 else choices[rng.integers(len(choices))]
