"""Concepts of the emoji world: the few pictures that a new word is learnt from, and the true ones it is measured by.

What no model was trained on, a thing or a style, is a concept whose true pictures are known: of a photograph of one's
dog "in the style of" a painter there are none.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import check
from ..files import staging_folder
from .captions import GROUNDS, IN_STYLE, article, phrase
from .scenes import Scene, random_scene, render
from .styles import STYLES
from .text_to_image_data import CALM
from .world import World

PICTURES = 5
ARTIST = "fluent"
"""Who drew the things of concepts: one of the artists whom the text-to-image model knows."""
LIKE_A_STYLE = "drawing"
"""The word that a style's vector begins at."""


def concept_scenes(world: World, name: str, count: int = PICTURES, seed: int = 0) -> list[Scene]:
    """Scenes that show a concept: a thing on white and on colours, or a style on things of the core, each another.

    - name: of a thing, drawn by `ARTIST`, or of a style.

    Raises `UserError` for another name, and for more pictures of a style than there are things.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> [scene.background for scene in concept_scenes(load_world(), "owl", 3)][0] is None
    True
    >>> {scene.style for scene in concept_scenes(load_world(), "woodcut")}
    {'woodcut'}
    """
    if name in STYLES:
        known = [thing for thing in world.core if not world.is_held_out([thing])]
        check(count <= len(known), f"there are {len(known)} things to show a style on, not {count}; ask for fewer")
        chosen = np.random.default_rng([seed, 0]).choice(len(known), count, replace=False)
        return [scene_of(world, [known[place]], seed=seed + row, style=name) for row, place in enumerate(chosen)]
    world.thing(name)
    kinds = ("white", "colour")
    return [scene_of(world, [name], seed=seed + row, kind=kinds[row % 2]) for row in range(count)]


def scene_of(world: World, things: list[str], *, seed: int, kind: str | None = None, style: str | None = None) -> Scene:
    """A scene as the text-to-image model draws them, hardly moved, of things by `ARTIST`."""
    kind, by = kind or ("pair" if len(things) == 2 else "white"), replace(CALM, artists=(ARTIST,))
    return random_scene(world, np.random.default_rng([seed, 7]), kind, things=things, style=style, variety=by)


def initialiser_of(world: World, name: str) -> str:
    """The word that a concept's vector begins at: of a held-out thing the nearest relative that is one word, with an
    article; of a style `LIKE_A_STYLE`.

    Raises `UserError` for a thing that is not held out.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> initialiser_of(load_world(), "owl"), initialiser_of(load_world(), "strawberry")
    ('parrot', 'apple')
    """
    if name in STYLES:
        return LIKE_A_STYLE
    held_out = f"'{name}' is not held out; the things to learn are {', '.join(world.held_out_things)}"
    check(name in world.held_out_things, held_out)
    relatives = world.held_out_things[name]
    return next(word for word in relatives if " " not in word and word not in world.without_article)


def rendered(world: World, scenes: list[Scene]) -> Tensor:
    """uint8 (N, 3, 64, 64)."""
    return torch.stack([render(world, scene) for scene in scenes])


def true_pictures(
    world: World, things: list[str], count: int, *, style: str | None = None, seed: int = 1_000
) -> tuple[Tensor, list[Scene]]:
    """Pictures of what a prompt asks for, uint8 (count, 3, 64, 64), and their scenes: others than a concept's own.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> images, scenes = true_pictures(load_world(), ["owl", "guitar"], 2)
    >>> scenes[0].things
    ('owl', 'guitar')
    """
    scenes = [scene_of(world, things, seed=seed + row, style=style) for row in range(count)]
    return rendered(world, scenes), scenes


def write_concept(world: World, name: str, folder: str | Path, count: int = PICTURES, seed: int = 0) -> Path:
    """Write the pictures of a concept as 0.png … into a folder, which `Concept` takes; returns it.

    Beside those of a style stands what each shows, "a fox in the style of {}" in 0.txt: the model knows no picture
    without a thing. Beside those on a colour, "a {} on a pink background": else the ground would be learnt as a part.

    >>> write_concept(load_world(), "owl", "runs/owl_pictures")   # doctest: +SKIP
    """
    scenes = concept_scenes(world, name, count, seed)
    with staging_folder(folder) as staging:
        for number, image in enumerate(rendered(world, scenes)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / f"{number}.png")
            scene, said = scenes[number], ""
            if name in STYLES:
                shown = phrase(world, scene.things[0])
                said = "".join(template.format(shown, "{}") + "\n" for template in IN_STYLE)
            elif scene.background:
                ground = article(f"{scene.background} background")
                said = "".join(template.format("a {}", ground) + "\n" for template in GROUNDS)
            if said:
                (staging / f"{number}.txt").write_text(said, encoding="utf-8")
    return Path(folder)
