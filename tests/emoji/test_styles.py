"""Styles: pictures in range, the same from a seed, unlike each other, with the thing still to be told."""

import itertools

import numpy as np
import pytest

from dlcv_diffusion.emoji.ink import outlines
from dlcv_diffusion.emoji.scenes import Scene, random_scene, render
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.world import load_world

WORLD = load_world()
SCENES = [random_scene(WORLD, seed, things=[thing]) for seed, thing in enumerate(("fox", "sheep", "bicycle", "castle"))]


def painted(style, scene, seed=0):
    return render(WORLD, Scene(scene.placed, None, style, seed)).numpy()


@pytest.mark.parametrize("style", STYLES)
def test_a_style_paints_from_its_seed_without_touching_what_it_is_given(style):
    picture, cover = np.full((64, 64, 3), 1.0, np.float32), np.zeros((64, 64), np.float32)
    picture[20:40, 20:40], cover[20:40, 20:40] = (0.9, 0.3, 0.1), 1
    before = picture.copy(), cover.copy()
    once, again = (STYLES[style].paint(picture, cover, np.random.default_rng(3)) for _ in range(2))
    assert once.shape == (64, 64, 3) and once.min() >= 0 and once.max() <= 1
    assert np.array_equal(once, again)
    assert np.array_equal(picture, before[0]) and np.array_equal(cover, before[1])


@pytest.mark.parametrize("style", sorted(set(STYLES) - {"pixel art", "line drawing"}))
def test_what_is_random_in_a_style_follows_the_seed(style):
    assert not np.array_equal(painted(style, SCENES[0], 1), painted(style, SCENES[0], 2))


@pytest.mark.parametrize("style", STYLES)
def test_the_thing_shows_on_its_ground(style):
    for scene in SCENES:
        thing = painted(style, scene).astype(float)
        ground = painted(style, Scene(())).astype(float)
        assert np.abs(thing - ground).mean() > 6, scene


def test_no_two_styles_look_alike():
    """Mean and deviation of the colours, and how much neighbouring pixels differ, tell every pair apart."""

    def look(style):
        pictures = np.stack([painted(style, scene, seed) for seed, scene in enumerate(SCENES)]).astype(float)
        steps = [np.abs(np.diff(pictures, axis=axis)).mean() for axis in (2, 3)]
        return np.array([*pictures.mean((0, 2, 3)), *pictures.std((0, 2, 3)), *steps])

    looks = {style: look(style) for style in (None, *STYLES)}
    for one, other in itertools.combinations(looks, 2):
        assert np.abs(looks[one] - looks[other]).max() > 8, (one, other)


def test_lines_are_found_where_colours_meet_and_a_black_line_is_one_line():
    picture, cover = np.ones((64, 64, 3), np.float32), np.zeros((64, 64), np.float32)
    picture[16:48, 16:48], cover[16:48, 16:48] = (0.9, 0.3, 0.1), 1
    lines = outlines(picture, cover)
    assert lines.shape == (128, 128) and lines.min() >= 0 and lines.max() <= 1
    assert lines[64, 30:34].max() > 0.9 and lines[64, 40:88].max() < 0.1 and lines[:24].max() < 0.1
    picture[:, 31:33] = 0
    ridge = outlines(picture, cover)[64, 50:78] > 0.5
    assert ridge.any() and np.abs(np.diff(ridge.astype(int))).sum() == 2


@pytest.mark.parametrize("style", STYLES)
def test_a_style_has_a_phrase_for_captions(style):
    assert style == STYLES[style].name and style.split()[-1] in STYLES[style].phrase
