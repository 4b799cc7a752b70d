"""Street digits: every font draws ten distinct digits, and image i depends on (seed, i) alone."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcv_diffusion.digits.fonts import GLYPH_HEIGHT, find_fonts, plain_digits
from dlcv_diffusion.digits.street_digits import CANVAS, number, street_digit, street_digits
from dlcv_diffusion.digits.walls import colour, luminance, wall
from dlcv_diffusion.errors import UserError

TTF = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def fonts():
    """DejaVu and STIX, which matplotlib carries: the same on every machine."""
    return find_fonts(TTF)


def test_every_font_draws_ten_distinct_upright_digits_of_one_height(fonts):
    assert {"DejaVu Sans", "DejaVu Serif", "STIXGeneral"} <= {font.family for font in fonts}
    for font in fonts:
        glyphs = [font.glyph(digit) for digit in range(10)]
        assert all(glyph.max() == 255 and 0.08 < (glyph > 127).mean() < 0.9 for glyph in glyphs), font
        assert all(abs(glyph.shape[0] - GLYPH_HEIGHT) <= 8 for glyph in glyphs), font
        size = max(glyph.shape[1] for glyph in glyphs)
        padded = [np.pad(g[:88], ((0, 88 - len(g[:88])), (0, size - g.shape[1]))).astype(float) / 255 for g in glyphs]
        gaps = [np.abs(padded[a] - padded[b]).mean() for a in range(10) for b in range(a)]
        assert min(gaps) > 0.03, font


def test_symbols_italics_and_slashed_zeros_are_left_out(fonts):
    left_out = ["cmsy10.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf", "STIXNonUni.ttf", "cmex10.ttf"]
    assert all(plain_digits(TTF / name) is None for name in left_out if (TTF / name).exists())
    names = {Path(font.path).name for font in fonts}
    assert names.isdisjoint(left_out) and "DejaVuSans-Bold.ttf" in names


def test_fonts_that_look_the_same_count_once(tmp_path):
    for name in ("one.ttf", "two.ttf"):
        shutil.copy(TTF / "DejaVuSans-Bold.ttf", tmp_path / name)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert len(find_fonts(tmp_path)) == 1


def test_missing_folders_and_folders_without_fonts_are_named(tmp_path):
    with pytest.raises(UserError, match="none' is not there; give folders of fonts"):
        find_fonts(tmp_path / "none")
    with pytest.raises(UserError, match="no font with plain digits"):
        find_fonts(tmp_path)


def test_fonts_behind_links_are_found_and_a_link_to_nothing_is_told(tmp_path, fonts):
    (tmp_path / "linked").symlink_to(TTF)
    assert [font.family for font in find_fonts(tmp_path)] == [font.family for font in fonts]
    (tmp_path / "gone.ttf").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="gone.ttf' is a link to what is not there; give folders of fonts"):
        find_fonts(tmp_path)


def test_image_i_depends_on_seed_and_i_alone(fonts):
    images, digits = street_digits(12, 5, fonts)
    later, _ = street_digits(3, 5, fonts, start=8)
    assert np.array_equal(later, images[8:11])
    one, digit = street_digit(8, 5, fonts)
    assert np.array_equal(one.transpose(2, 0, 1), images[8]) and digit == digits[8]
    assert not np.array_equal(street_digits(12, 6, fonts)[0], images)
    assert images.dtype == np.uint8 and images.shape == (12, 3, 28, 28)


def test_processes_change_nothing(fonts):
    alone, shared = (street_digits(4, 1, fonts[:2], processes=processes)[0] for processes in (1, 2))
    assert np.array_equal(alone, shared)


@given(st.integers(1, 6).map(lambda n: 10 * n))
@settings(max_examples=3)
def test_classes_are_balanced(count):
    digits = street_digits(count, 0, find_fonts_once())[1]
    assert np.bincount(digits, minlength=10).tolist() == [count // 10] * 10


def find_fonts_once(cache=[]):  # noqa: B006
    if not cache:
        cache.append(plain_digits(TTF / "DejaVuSans-Bold.ttf"))
    return cache


def test_the_digit_is_centred_large_and_alone_in_the_middle(fonts):
    seen, heights = 0, []
    for index in range(150):
        rng = np.random.default_rng(index)
        ink, neighbours = number(rng, index % 10, fonts[index % len(fonts)])
        rows, columns = (np.flatnonzero(ink.max(axis) > 0.5) for axis in (1, 0))
        heights.append(np.ptp(rows) / CANVAS)
        assert abs(rows.mean() / CANVAS - 0.5) < 0.12 and abs(columns.mean() / CANVAS - 0.5) < 0.12
        middle = slice(int(0.45 * CANVAS), int(0.55 * CANVAS))
        assert neighbours[:, middle].max() < 0.5
        assert (ink * neighbours).sum() < 0.05 * ink.sum()
        seen += neighbours.max() > 0.5
    assert 0.4 < seen / 150 < 0.85
    assert min(heights) > 0.5 and 0.7 < np.mean(heights) < 0.95


def test_pictures_have_contrast(fonts):
    images, _ = street_digits(60, 3, fonts)
    spread = luminance(images.transpose(0, 2, 3, 1) / 255).std((1, 2))
    assert spread.min() > 0.03 and np.median(spread) > 0.1


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_walls_and_colours_have_the_luma_asked_for(seed, luma):
    rng = np.random.default_rng(seed)
    rgb = colour(rng, luma)
    assert rgb.min() >= 0 and rgb.max() <= 1 and abs(luminance(rgb) - luma) < 0.02
    surface = wall(rng, 48, luma, [np.full((60, 60, 3), 90, np.uint8)])
    assert surface.shape == (48, 48, 3) and np.isfinite(surface).all()
