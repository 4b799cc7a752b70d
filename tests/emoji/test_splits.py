"""Splits: nothing that is held out is ever in a training picture, and scene i depends on (split, seed, i) alone."""

from collections import Counter

import pytest
import torch

from dlcv_diffusion.emoji import scenes as scenes_module
from dlcv_diffusion.emoji.scenes import KINDS, Variety
from dlcv_diffusion.emoji.splits import SPLITS, pictures, scene, scenes
from dlcv_diffusion.emoji.styles import STYLES, Style
from dlcv_diffusion.emoji.world import ARTISTS, World, load_world
from dlcv_diffusion.errors import UserError

WORLD = load_world()
MANY = 2000


@pytest.mark.parametrize("split", ["train", "unseen"])
@pytest.mark.parametrize("core", [False, True])
def test_nothing_held_out_is_drawn_to_train_on(split, core):
    drawn = list(scenes(WORLD, split, MANY, 0, core=core))
    assert not any(WORLD.is_held_out(each.things, each.style) for each in drawn)
    things = {thing for each in drawn for thing in each.things}
    able = set(WORLD.core if core else WORLD.names) - set(WORLD.held_out_things)
    assert things <= able and len(things) > 0.99 * len(able)
    assert {each.style for each in drawn} == {None, *STYLES} - {WORLD.held_out_style}
    assert not {(each.things[0], each.style) for each in drawn} & WORLD.held_out_pairs
    shares = Counter(each.kind for each in drawn)
    assert all(abs(shares[kind] / MANY - 0.25) < 0.04 for kind in KINDS)


def test_nothing_held_out_is_rendered_to_train_on(monkeypatch):
    """What the pixels are made of, not what the scenes say: each sprite and painter that is used is written down."""
    used, pixels = set(), World.pixels
    monkeypatch.setattr(World, "pixels", lambda self, thing, artist: used.add(thing) or pixels(self, thing, artist))
    for name, style in list(STYLES.items()):

        def paint(picture, cover, rng, name=name, style=style):
            used.add(name)
            return style.paint(picture, cover, rng)

        monkeypatch.setitem(STYLES, name, Style(name, style.phrase, paint))
    for cached in (scenes_module._sprite, scenes_module.extent, scenes_module.stands_out):
        cached.cache_clear()
    images, shown = pictures(WORLD, "train", 500, 7, core=True)
    assert images.shape == (500, 3, 64, 64) and len(shown) == 500
    assert used == set(WORLD.core) - set(WORLD.held_out_things) | set(STYLES) - {WORLD.held_out_style}


def test_each_split_shows_what_it_is_named_for():
    drawn = {split: list(scenes(WORLD, split, 400, 0)) for split in SPLITS}
    assert {(*each.things, each.style) for each in drawn["held_out_pairs"]} <= WORLD.held_out_pairs
    assert {each.style for each in drawn["held_out_style"]} == {WORLD.held_out_style}
    assert not {thing for each in drawn["held_out_style"] for thing in each.things} & set(WORLD.held_out_things)
    assert {thing for each in drawn["held_out_things"] for thing in each.things} == set(WORLD.held_out_things)
    assert {each.kind for each in drawn["held_out_things"]} == {"white", "colour"}
    assert any(WORLD.is_held_out(each.things, each.style) for each in drawn["everything"])
    assert {each.style for each in drawn["everything"]} == {None, *STYLES}


def test_no_unseen_scene_is_a_training_scene():
    train, unseen = (set(scenes(WORLD, split, MANY, 0, core=True)) for split in ("train", "unseen"))
    assert not train & unseen


@pytest.mark.parametrize("split", SPLITS)
def test_scene_i_depends_on_the_split_the_seed_and_i_alone(split):
    drawn = list(scenes(WORLD, split, 12, 5))
    assert list(scenes(WORLD, split, 4, 5, start=8)) == drawn[8:] and scene(WORLD, split, 3, 5) == drawn[3]
    assert len(set(drawn)) == 12 and not set(drawn) & set(scenes(WORLD, split, 12, 6))
    images, shown = pictures(WORLD, split, 4, 5, start=8)
    assert shown == drawn[8:] and torch.equal(images[1], pictures(WORLD, split, 1, 5, start=9)[0][0])


def test_an_artist_can_be_left_out_or_taken_alone():
    others = tuple(artist for artist in ARTISTS if artist != "openmoji")
    drawn = scenes(WORLD, "train", 500, 0, variety=Variety(artists=others))
    assert {placed.artist for each in drawn for placed in each.placed} == set(others)
    drawn = scenes(WORLD, "unseen", 100, 0, variety=Variety(artists=("openmoji",)))
    assert {placed.artist for each in drawn for placed in each.placed} == {"openmoji"}


def test_kinds_are_drawn_by_their_shares_and_what_cannot_be_is_said():
    drawn = Counter(each.kind for each in scenes(WORLD, "train", 1000, 0, kinds={"pair": 3, "style": 1}))
    assert set(drawn) == {"pair", "style"} and 700 < drawn["pair"] < 800
    with pytest.raises(UserError, match="no split 'test'; there are train, "):
        scene(WORLD, "test", 0, 0)
    with pytest.raises(UserError, match="the kinds are triple; there are white, "):
        scene(WORLD, "train", 0, 0, kinds={"triple": 1})
    with pytest.raises(UserError, match="none of the kinds pair is in the split 'held_out_things'"):
        scene(WORLD, "held_out_things", 0, 0, kinds={"pair": 1})
    with pytest.raises(UserError, match="index and seed are -1 and 0"):
        scene(WORLD, "train", -1, 0)
