"""Scenes: same seed, same picture; what is placed stays within the picture and stands out from its ground."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlcv_diffusion.emoji.scenes import COLOURS, KINDS, Placed, Scene, Variety, extent, random_scene, render, stands_out
from dlcv_diffusion.emoji.sprites import SIDE
from dlcv_diffusion.emoji.world import ARTISTS, load_world
from dlcv_diffusion.errors import UserError

WORLD = load_world()
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.sampled_from(KINDS))
def test_the_same_seed_gives_the_same_picture(seed, kind):
    scene = random_scene(WORLD, seed, kind)
    assert scene.kind == kind and scene == random_scene(WORLD, seed, kind)
    picture = render(WORLD, scene)
    assert picture.shape == (3, SIDE, SIDE) and picture.dtype == torch.uint8
    assert torch.equal(picture, render(WORLD, scene))
    assert not torch.equal(picture, render(WORLD, random_scene(WORLD, seed + 1, kind)))


@given(SEEDS, st.sampled_from(("white", "colour", "pair")))
def test_things_lie_within_the_picture_on_their_ground(seed, kind):
    scene = random_scene(WORLD, seed, kind)
    picture = render(WORLD, scene).permute(1, 2, 0)
    ground = torch.tensor((255, 255, 255) if scene.background is None else COLOURS[scene.background])
    rim = torch.cat([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (rim.int() - ground).abs().max() <= 12
    assert ((picture.int() - ground).abs().sum(-1) > 30).float().mean() > 0.02


@given(SEEDS)
def test_two_things_stand_apart_from_left_to_right(seed):
    scene = random_scene(WORLD, seed, "pair")
    left, right = scene.placed
    widths = [each.size * extent(WORLD, each.thing, each.artist)[0] for each in scene.placed]
    assert left.thing != right.thing
    assert left.x + widths[0] / 2 < SIDE / 2 < right.x - widths[1] / 2
    picture = render(WORLD, scene)
    assert picture[:, :, SIDE // 2 - 1 : SIDE // 2 + 1].min() > 240
    for each, half in zip(scene.placed, (picture[:, :, :32], picture[:, :, 32:]), strict=True):
        alone = render(WORLD, Scene((each,)))
        assert torch.equal(half, alone[:, :, :32] if each is left else alone[:, :, 32:])


@given(SEEDS)
def test_a_drawn_colour_is_one_that_the_thing_stands_out_from(seed):
    scene = random_scene(WORLD, seed, "colour")
    seen = stands_out(WORLD, scene.placed[0].thing, scene.placed[0].artist)
    assert scene.background in seen or not seen


def test_nearly_every_sprite_stands_out_from_most_colours_and_from_white():
    counts = [len(stands_out(WORLD, name, artist)) for name in WORLD.names[::4] for artist in ARTISTS]
    assert np.mean(counts) > 6 and np.mean([count >= 3 for count in counts]) > 0.98


def test_what_is_given_is_kept_and_the_rest_is_drawn():
    scene = random_scene(WORLD, 0, things=["owl"], style="woodcut", variety=Variety(artists=("fluent",), mirror=False))
    assert (scene.things, scene.style, scene.background) == (("owl",), "woodcut", None)
    assert scene.placed[0].artist == "fluent" and not scene.placed[0].mirror
    assert random_scene(WORLD, 0, things=["fox", "pizza"]).kind == "pair"
    assert {random_scene(WORLD, seed, among=["fox", "owl"]).things for seed in range(20)} == {("fox",), ("owl",)}
    pair = random_scene(WORLD, 1, things=["fox", "pizza"], background="blue")
    assert pair.background == "blue" and pair.things == ("fox", "pizza")


def test_variety_bounds_places_and_sizes():
    still = Variety(mirror=False, shift=0, smallest=1)
    scenes = [random_scene(WORLD, seed, things=["fox"], variety=still) for seed in range(10)]
    assert {(s.placed[0].x, s.placed[0].y, s.placed[0].mirror) for s in scenes} == {(SIDE / 2, SIDE / 2, False)}
    assert len({s.placed[0].size for s in scenes}) == 1
    for seed in range(50):
        placed = random_scene(WORLD, seed, variety=Variety(shift=2)).placed[0]
        assert abs(placed.x - SIDE / 2) <= 2 and abs(placed.y - SIDE / 2) <= 2


def test_a_sprite_moves_by_parts_of_a_pixel_and_mirrors():
    def middle(x, mirror=False):
        ink = 255 - render(WORLD, Scene((Placed("carrot", "noto", x, 32, 40, mirror),))).float().mean(0)
        return float((ink.sum(0) * (torch.arange(SIDE) + 0.5)).sum() / ink.sum())

    assert middle(32.5) - middle(32) == pytest.approx(0.5, abs=0.03)
    assert middle(32, mirror=True) == pytest.approx(SIDE - middle(32), abs=0.03)


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(UserError, match="no background 'mauve'; there are red, "):
        Scene((Placed("fox", "noto"),), background="mauve")
    with pytest.raises(UserError, match="no style 'cubism'; there are pixel art, "):
        random_scene(WORLD, 0, style="cubism")
    with pytest.raises(UserError, match="a style paints its own ground"):
        random_scene(WORLD, 0, style="chalk", background="red")
    with pytest.raises(UserError, match="one thing or two, not 3"):
        random_scene(WORLD, 0, things=["fox", "owl", "cat"])
    with pytest.raises(UserError, match="there are 1 things to draw 2 from"):
        random_scene(WORLD, 0, "pair", among=["fox"])
    with pytest.raises(UserError, match="did you mean pizza"):
        random_scene(WORLD, 0, things=["piza"])
    with pytest.raises(UserError, match="smallest is 0"):
        Variety(smallest=0)
