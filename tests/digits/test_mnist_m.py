"""MNIST-M is |p − d|, and image i depends on (seed, i) alone."""

import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dlcv_diffusion.digits.mnist_m import blend, load_photos, mnist_m
from dlcv_diffusion.errors import UserError

RNG = np.random.default_rng(0)
PHOTOS = [RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8), RNG.integers(0, 256, (28, 28, 3), dtype=np.uint8)]
DIGITS = RNG.integers(0, 256, (9, 28, 28), dtype=np.uint8)

pixels = hnp.arrays(np.uint8, 16)


@given(pixels, pixels)
def test_blend_is_the_absolute_difference_without_wrapping(photo, digit):
    p, d = photo / 255, digit / 255
    assert np.array_equal(blend(photo, digit), np.round(np.abs(p - d) * 255).astype(np.uint8))


def test_paper_gives_the_photograph_back_and_ink_its_negative():
    photo = [np.full((30, 30, 3), (10, 100, 250), np.uint8)]
    blank, full = np.zeros((1, 28, 28), np.uint8), np.full((1, 28, 28), 255, np.uint8)
    assert np.array_equal(mnist_m(blank, photo, 0)[0, :, 3, 4], [10, 100, 250])
    assert np.array_equal(mnist_m(full, photo, 0)[0, :, 3, 4], [245, 155, 5])


@given(st.integers(0, 8), st.integers(0, 2**32))
def test_image_i_depends_on_seed_and_i_alone(start, seed):
    whole = mnist_m(DIGITS, PHOTOS, seed)
    assert np.array_equal(mnist_m(DIGITS[start:], PHOTOS, seed, start=start), whole[start:])


def test_crops_differ_by_image_and_seed():
    blank = np.zeros((20, 28, 28), np.uint8)
    images = mnist_m(blank, PHOTOS[:1], 0)
    assert len({image.tobytes() for image in images}) > 15
    assert not np.array_equal(images, mnist_m(blank, PHOTOS[:1], 1))


def test_photos_come_alike_from_a_folder_and_from_a_zip(tmp_path):
    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    for name, photo in zip("ba", PHOTOS, strict=True):
        Image.fromarray(photo).save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"train/{path.name}")
    for source in (tmp_path / "photos", tmp_path / "photos.zip"):
        photos = load_photos(source, under="train/")
        assert len(photos) == 2 and all(map(np.array_equal, photos, PHOTOS[::-1]))
        with pytest.raises(UserError, match="no pictures.*val/"):
            load_photos(source, under="val/")


def test_bad_photographs_are_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="none' is not there; give a folder or a zip"):
        load_photos(tmp_path / "none")
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        load_photos(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(UserError, match=r"large\.png"):
        patched.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
        (tmp_path / "broken.jpg").unlink()
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "large.png")
        load_photos(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="not a zip"):
        load_photos(tmp_path / "broken.jpg")
    (tmp_path / "broken.jpg").unlink()
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "large.png")
    assert load_photos(tmp_path)[0].shape == (40, 30, 3)
    with pytest.raises(UserError, match=r"large\.png' is 30×40, smaller than 32×32 pixels; replace it, or take it out"):
        load_photos(tmp_path, least=32)
    with pytest.raises(UserError, match="smaller than"):
        mnist_m(DIGITS, [np.zeros((20, 90, 3), np.uint8)], 0)
    with pytest.raises(UserError, match="needs photographs"):
        mnist_m(DIGITS, [], 0)
