"""Faces from a folder and from a zip: which, how cut, in which split, or one sentence that says why not."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from small_faces import picture, write_pictures, zipped

from dlcv_diffusion import UserError
from dlcv_diffusion.faces.data import load_faces


@pytest.fixture
def folder(tmp_path):
    return write_pictures(tmp_path / "faces", count=24)


def middle(number, size, mode):
    """What the loader should make of a picture, by Pillow's own words for it."""
    fitted = ImageOps.fit(picture(number).convert(mode), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted).reshape(size, size, -1)).permute(2, 0, 1)


ORDER = [*range(0, 24, 2), *range(1, 24, 2)]  # by name: folder 0 holds the even numbers, folder 1 the odd ones


@pytest.mark.parametrize("size, channels", [(8, 1), (16, 3), (32, 3)])
def test_every_picture_is_cut_to_its_middle_and_resized(folder, size, channels):
    data = load_faces(folder, "all", size=size, channels=channels)
    assert data.images.shape == (24, channels, size, size) and data.images.dtype == torch.uint8
    for row, number in enumerate(ORDER):
        assert torch.equal(data.images[row], middle(number, size, "L" if channels == 1 else "RGB"))
    assert data.labels.unique().tolist() == [0]


def test_a_zip_is_as_good_as_a_folder(folder, tmp_path):
    archive = zipped(folder, tmp_path / "faces.zip")
    for split in ("train", "held_out", "all"):
        assert torch.equal(load_faces(archive, split, size=8).images, load_faces(folder, split, size=8).images)


def test_every_tenth_is_held_out(folder):
    everything = load_faces(folder, "all", size=8).images
    train, held_out = (load_faces(folder, split, size=8).images for split in ("train", "held_out"))
    assert torch.equal(held_out, everything[[9, 19]])
    assert torch.equal(train, everything[[row for row in range(24) if row not in (9, 19)]])


def test_a_copy_of_a_training_picture_is_not_held_out(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    pictures = sorted(path for path in copied.rglob("*.png") if not path.name.startswith("."))
    shutil.copy(pictures[0], pictures[9])
    before, after = (load_faces(source, "held_out", size=8).images for source in (folder, copied))
    assert len(after) == len(before) - 1 and len(load_faces(copied, "train", size=8)) == len(load_faces(folder, size=8))
    assert torch.equal(after, before[1:])


def test_a_camera_that_was_held_sideways_is_turned(tmp_path):
    exif, image = Image.Exif(), picture(0, (16, 16))
    exif[0x0112] = 6
    image.save(tmp_path / "0.png", exif=exif)
    turned = np.array(image.rotate(-90))
    data = load_faces(tmp_path, "all", size=16, channels=3)
    assert np.array_equal(data.images[0].permute(1, 2, 0).numpy(), turned)


@pytest.mark.parametrize(
    "source, options, said",
    [
        ("none", {}, "none' is not there; give a folder or a zip"),
        ("faces", {"split": "test"}, "unknown split 'test'; choose one of train, held_out, all"),
        ("faces", {"channels": 4}, "1 .grey. or 3 .RGB. channels, not 4"),
        ("faces", {"size": 0}, "a side of 0 pixels"),
        ("few", {"split": "held_out"}, "too few pictures for the split 'held_out'"),
        ("empty", {}, "no pictures in '.*empty'"),
        ("words.zip", {}, "'.*words.zip' is not a zip of pictures"),
        ("broken", {}, "'.*broken/0.png' is not a picture that can be read"),
        ("damaged.zip", {}, "damaged.zip/.*png' is damaged, encrypted or compressed"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(folder, tmp_path, source, options, said):
    for name in ("few", "empty", "broken"):
        (tmp_path / name).mkdir()
    picture(0).save(tmp_path / "few" / "0.png")
    (tmp_path / "broken" / "0.png").write_bytes(b"no picture at all")
    (tmp_path / "words.zip").write_text("no zip at all")
    archive = zipped(folder, tmp_path / "damaged.zip")
    content = bytearray(archive.read_bytes())
    content[200:260] = bytes(60)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=said):
        load_faces(tmp_path / source, **{"size": 8, **options})
