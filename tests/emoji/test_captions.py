"""Captions: the right article, the right order, and every word from the world."""

import re

import numpy as np
import pytest

from dlcv_diffusion.emoji.captions import TEMPLATES, article, caption, phrase
from dlcv_diffusion.emoji.scenes import random_scene
from dlcv_diffusion.emoji.splits import scenes
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import load_world

WORLD = load_world()
FOX = {"things": ["fox"]}


@pytest.mark.parametrize(
    "given, said",
    [
        (FOX, "a fox"),
        ({**FOX, "background": "blue"}, "a fox on a blue background"),
        ({**FOX, "background": "orange"}, "a fox on an orange background"),
        ({"things": ["fox", "pizza"]}, "a fox next to a pizza"),
        ({**FOX, "style": "blueprint"}, "a fox in the style of a blueprint"),
        ({"things": ["scissors"], "style": "pop art"}, "scissors in the style of pop art"),
        ({"things": ["owl", "jeans"]}, "an owl next to jeans"),
    ],
)
def test_the_plain_caption_says_what_is_there(given, said):
    assert caption(WORLD, random_scene(WORLD, 0, **given)) == said


@pytest.mark.parametrize("noun", ["unicorn", "UFO", "yo-yo", "house", "one-way sign", "ukulele", "European castle"])
def test_a_before_what_sounds_like_a_consonant(noun):
    assert article(noun) == f"a {noun}"


@pytest.mark.parametrize("noun", ["owl", "hourglass", "x-ray", "umbrella", "Easter Island head", "ice cream", "axe"])
def test_an_before_what_sounds_like_a_vowel(noun):
    assert article(noun) == f"an {noun}"


def test_every_name_and_synonym_makes_a_phrase():
    for thing in WORLD.things:
        for word in (thing.name, *thing.synonyms):
            said = phrase(WORLD, word)
            assert said == word if word in WORLD.without_article else re.fullmatch(rf"an? {re.escape(word)}", said)
            vowel = word[0].lower() in "aeiou" and word not in ("unicorn", "UFO")
            assert word in WORLD.without_article or said.startswith("an ") == (vowel or word == "hourglass")
            plural = word.split(" of ")[0].endswith("s") and not word.split(" of ")[0].endswith(("ss", "us", "bus"))
            known = ("cactus", "octopus", "saurus", "rhinoceros", "glass", "bus", "and pins")
            assert not plural or word in WORLD.without_article or word.endswith(known), f"{said}?"


def test_varied_captions_name_all_there_is_in_the_right_order():
    templates = [re.escape(template).replace(r"\{\}", "(.+)") for template in TEMPLATES]
    used = set()
    for index, scene in enumerate(scenes(WORLD, "everything", 800, 0)):
        said = caption(WORLD, scene, index, synonyms=True)
        assert said == caption(WORLD, scene, index, synonyms=True)
        assert "{" not in said and "  " not in said
        assert any(re.fullmatch(template, said) for template in templates)
        places = [_place(said, thing) for thing in scene.things]
        assert all(place >= 0 for place in places)
        if len(places) == 2:
            assert (places[0] < places[1]) != ("to the right of" in said)
        assert (scene.background is None) == (" background" not in said)
        assert scene.background is None or f" {scene.background} background" in said
        assert scene.style is None or STYLES[scene.style].phrase in said
        used.add(next(template for template in templates[::-1] if re.fullmatch(template, said)))
    assert len(used) == len(TEMPLATES)


def _place(said, thing):
    words = [phrase(WORLD, word) for word in (thing, *WORLD.thing(thing).synonyms)]
    places = [said.find(word) for word in sorted(words, key=len, reverse=True) if word in said]
    return min(places, default=-1)


def test_synonyms_come_only_where_they_are_asked_for():
    scene = random_scene(WORLD, 0, things=["ladybird"])
    rng = np.random.default_rng(0)
    assert all("ladybird" in caption(WORLD, scene, rng) for _ in range(50))
    assert any("ladybug" in caption(WORLD, scene, rng, synonyms=True) for _ in range(50))
