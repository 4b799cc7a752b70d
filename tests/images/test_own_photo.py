"""A photograph from a file: upright, cut and resized, or one sentence that says why not."""

import pytest
import torch
from PIL import Image

from dlcv_diffusion import UserError
from dlcv_diffusion.images.own_photo import grace_hopper, photo


@pytest.fixture
def halves(tmp_path):
    """A JPEG-free picture, 40×20, whose left half is black and whose right half is white."""
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (20, 0, 40, 20))
    image.save(tmp_path / "halves.png")
    return tmp_path / "halves.png"


def test_the_middle_square_or_a_box(halves):
    x0 = photo(halves, size=20)
    assert x0.shape == (1, 1, 20, 20) and (x0[..., :9] == -1).all() and (x0[..., 11:] == 1).all()
    assert (photo(halves, (20, 0, 40, 20), size=8, channels=3) == 1).all()


def test_a_camera_that_was_held_sideways_is_turned(tmp_path):
    image, exif = Image.new("L", (20, 20), 0), Image.Exif()
    image.paste(255, (10, 0, 20, 20))
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to see it upright"
    image.save(tmp_path / "sideways.png", exif=exif)
    x0 = photo(tmp_path / "sideways.png", size=20)
    assert (x0[..., :9, :] == -1).all() and (x0[..., 11:, :] == 1).all()


def test_what_is_no_picture_is_told(tmp_path, halves):
    (tmp_path / "words.jpg").write_text("no picture")
    for path, box, words in (
        (tmp_path / "none.jpg", None, "is not there; give another"),
        (tmp_path / "words.jpg", None, "not a picture"),
        (halves, (0, 0, 41, 20), "does not lie within"),
        (halves, (10, 0, 10, 20), "does not lie within"),
    ):
        with pytest.raises(UserError, match=words):
            photo(path, box)


def test_grace_hopper_has_a_face_in_the_middle():
    x0 = grace_hopper(size=64)
    assert x0.shape == (1, 1, 64, 64) and x0.std() > 0.3
    nose, brows = x0[0, 0, 28:40, 24:40].mean(), x0[0, 0, 9:14, 6:58].mean()
    assert nose > brows + 0.2
    assert torch.allclose(grace_hopper(channels=3).mean(1, keepdim=True), x0, atol=0.2)
