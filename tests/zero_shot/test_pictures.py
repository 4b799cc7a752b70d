"""The course's layout: what is read, and what is told in a sentence."""

import json

import pytest
import torch
from PIL import Image
from small_clips import NAMES, course_folder
from small_runs import one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.calibration import expected_calibration_error
from dlcv_diffusion.zero_shot import Pictures, load_pictures, read_templates
from dlcv_diffusion.zero_shot.pictures import read_labels


@pytest.fixture
def course(tmp_path):
    course_folder(tmp_path)
    return tmp_path


def rewrite(folder, content):
    (folder / "id2label.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_folder_or_the_pictures_in_it_are_given(course):
    one, other = load_pictures(course), load_pictures(course / "val", course / "id2label.json")
    assert one.files == other.files == [f"{label}_{number}.png" for label in range(5) for number in range(3)]
    assert one.labels.tolist() == [row // 3 for row in range(15)]
    assert (
        load_pictures(course / "val").classes
        == one.classes
        == ["fox", "willow tree", "castle", "hot air balloon", "owl"]
    )
    assert load_pictures(course, keep_underscores=True).classes[1] == "willow_tree"


def test_labels_sort_as_numbers(course):
    rewrite(course, {str(number): f"thing {number}" for number in range(12)})
    for number in (10, 11, 2):
        Image.new("RGB", (8, 8)).save(course / "val" / f"{number}_7.png")
    assert load_pictures(course).labels.tolist() == sorted([*(n // 3 for n in range(15)), 2, 10, 11])


@pytest.mark.parametrize(
    "content",
    [{"0": "a", "1": "b"}, ["a", "b"], '\ufeff{"1": "b", "0": "a"}', '{"1": "b", "0": "a"}'],
    ids=["text keys", "a list", "a byte order mark", "any order"],
)
def test_labels_are_read_in_the_forms_they_come_in(tmp_path, content):
    rewrite(tmp_path, content)
    assert read_labels(tmp_path / "id2label.json") == {0: "a", 1: "b"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ({"fox": 0, "owl": 1}, "gives a number to each name; turn it round"),
        ({"fox": "0", "owl": "1"}, "gives a number to each name; turn it round"),
        ({"fox": "x"}, "valid integer"),
        ({"0": ["fox"]}, "valid string"),
        ({}, "names no class"),
        ("3", "names no class"),
        ({"0": " ", "1": "b"}, "the name of label 0 is empty"),
        ({"0": "a", "00": "b"}, "one label in two ways"),
        ('{"0": "a", "0": "b"}', "the label '0' is there twice"),
        ({str(n): "fox" for n in range(5)}, "two classes are called 'fox'"),
        ({str(n): name for n, name in enumerate(NAMES[:4])}, "no name for the label of '4_0.png' and 2 more"),
    ],
)
def test_labels_that_do_not_fit_are_told(course, content, said):
    rewrite(course, content)
    with pytest.raises(UserError, match=said):
        load_pictures(course)


def test_a_class_without_pictures_is_no_fault(course):
    rewrite(course, {**{str(n): name for n, name in enumerate(NAMES)}, "77": "zebra"})
    pictures = load_pictures(course)
    assert pictures.classes[-1] == "zebra" and pictures.labels.max() == 4


def test_missing_files_are_told(course):
    (course / "val" / "readme.txt").write_text("x")
    (course / "val" / ".DS_Store").write_text("x")
    assert len(load_pictures(course)) == 15, "what is no picture is left alone"
    Image.new("RGB", (8, 8)).save(course / "val" / "cat.png")
    with pytest.raises(UserError, match="holds 'cat.png', whose name does not begin with its label"):
        load_pictures(course)
    (course / "id2label.json").unlink()
    with pytest.raises(UserError, match=r"no id2label.json in '.*' or beside it; give the file"):
        load_pictures(course)
    with pytest.raises(UserError, match="is not there"):
        load_pictures(course / "none", course / "id2label.json")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "I;16", "1"])
def test_pictures_of_every_mode_become_rgb(course, mode):
    picture = Image.new("L", (8, 8), 255 if mode == "1" else 90)
    made = Image.new("I;16", (8, 8), 90 * 257) if mode == "I;16" else picture.convert(mode)
    made.save(course / "val" / "0_0.png")
    opened = load_pictures(course).read(0)
    assert opened.mode == "RGB" and opened.getpixel((3, 3)) == ((255,) * 3 if mode == "1" else (90,) * 3)


def test_what_is_transparent_lies_on_white(course):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(course / "val" / "0_0.png")
    assert load_pictures(course).read(0).getpixel((0, 0)) == (255, 255, 255)


def test_images_in_memory_are_pictures_too():
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    pictures = Pictures.of(images, [1, 0, 1, 1], ["fox", "owl"])
    assert pictures.files == ["1_0.png", "0_1.png", "1_2.png", "1_3.png"]
    part = pictures.subset([2, 0])
    assert part.files == ["1_2.png", "1_0.png"] and part.read(0).getpixel((1, 2)) == (images[2, 0, 2, 1].item(),) * 3
    with pytest.raises(UserError, match="whole numbers from 0 to 1"):
        Pictures.of(images, [1, 0, 1, 2], ["fox", "owl"])


@pytest.mark.parametrize("text", ["", "# nothing\n", "a photo\n", "\xff\xfe"])
def test_files_without_templates_are_refused(tmp_path, text):
    (tmp_path / "t.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="holds no template|no place for the name|is not a text file"):
        read_templates(tmp_path / "t.txt")


def test_calibration_is_measured_bin_by_bin():
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(4000, 3, generator=draw, dtype=torch.float64).pow(3)
    p /= p.sum(1, keepdim=True)
    labels = torch.multinomial(p, 1, generator=draw).flatten()
    assert expected_calibration_error(p, labels) < 0.03, "labels drawn from the probabilities"
    total, confidence, read = 0.0, *p.max(1)
    for low in range(15):  # the formula, bin by bin
        here = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if here.any():
            total += abs((read == labels)[here].double().mean() - confidence[here].mean()) * here.double().mean()
    assert expected_calibration_error(p, labels) == pytest.approx(total.item())
    certain = torch.eye(3).repeat(2, 1)
    assert expected_calibration_error(certain, torch.tensor([0, 1, 2, 1, 2, 0])) == pytest.approx(0.5)
    with pytest.raises(UserError, match="one or more"):
        expected_calibration_error(p[:0], labels[:0])
