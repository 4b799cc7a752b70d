"""What the small CLIP is measured by: questions about scenes it never saw, each with as many classes as it says."""

import json
from dataclasses import replace

import measure_clip
import pytest
import torch
from small_clips import CONFIG, small_clip
from small_runs import one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.models.clip.small import save_small_clip
from dlcv_diffusion.zero_shot import Pictures, classify, load_clip, load_pictures
from dlcv_diffusion.zero_shot.measure import Question, among, ask, markdown, questions, ranks_of_relatives
from dlcv_diffusion.zero_shot.measured import measured_clip
from dlcv_diffusion.zero_shot.pictures import world_pictures


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    """A CLIP that reads long texts: it has few words, and writes the world's names letter by letter."""
    path = tmp_path_factory.mktemp("clip") / "model.safetensors"
    save_small_clip(small_clip(replace(CONFIG, context=64)), path)
    return path


@pytest.fixture
def ours(clip_file):
    return load_clip(clip_file, device="cpu")


@pytest.mark.parametrize("split", ["unseen", "held_out_pairs", "held_out_style", "held_out_things"])
def test_pictures_of_the_world_show_one_thing_of_the_split(world, split):
    found, shown = world_pictures(world, split, 12, seed=0)
    for row, scene in enumerate(shown):
        assert len(scene.things) == 1 and found.classes[found.labels[row]] == scene.things[0]
        assert found.files[row] == f"{found.labels[row]}_{row}.png" and found.read(row).size == (64, 64)
    held_out = set(found.classes) & set(world.held_out_things)
    assert held_out == (set(world.held_out_things) if split == "held_out_things" else set())
    assert all((scene.style == world.held_out_style) == (split == "held_out_style") for scene in shown)
    if split == "held_out_pairs":
        assert all((scene.things[0], scene.style) in world.held_out_pairs for scene in shown)


def test_the_world_is_loaded_by_its_name(world):
    pictures = load_pictures("emoji")
    assert len(pictures) == 500 and pictures.source == "the emoji world, unseen"
    woodcuts = load_pictures("emoji-woodcuts")
    assert len(woodcuts) == 500 and woodcuts.source == "the emoji world, held_out_style"
    with pytest.raises(UserError, match="knows its classes"):
        load_pictures("emoji", "labels.json")


def test_among_few_classes_each_picture_has_its_own_and_others(ours):
    images = torch.randint(0, 256, (60, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 6
    found = classify(ours, Pictures.of(images, labels, list("abcdef")))
    whole = among(found.probabilities, labels, 6, seed=0)
    assert whole["accuracy"] == pytest.approx(found.accuracy)
    assert whole["calibration_error"] == pytest.approx(found.calibration_error, abs=1e-6)
    few = [among(found.probabilities, labels, 2, seed)["accuracy"] for seed in range(20)]
    p = found.probabilities
    wins = (p.gather(1, labels[:, None]) > p).double().sum(1) / 5  # against one other, drawn at random
    assert sum(few) / 20 == pytest.approx(wins.mean().item(), abs=0.05)


def test_a_tie_is_no_success():
    """A class that was not chosen may have all there is: float32 has no smaller number for the others than 0."""
    one_hot = torch.eye(6)[torch.full((20,), 5)]
    few = among(one_hot, torch.zeros(20, dtype=torch.int64), 2, seed=0)
    assert few["accuracy"] == 0 and 0 <= few["calibration_error"] <= 1


def test_a_question_is_answered_with_one_template_and_with_many(ours, world):
    row = ask(ours, world, Question("pairs", "held_out_pairs", 10), count=20)
    assert row["ways"] == 10 and row["chance"] == 0.1 and row["count"] == 20
    assert all(0 <= row[name]["accuracy"] <= 1 for name in ("single", "ensemble"))
    assert row == ask(ours, world, Question("pairs", "held_out_pairs", 10), count=20)
    assert "| pairs | 10 | 10.0% |" in markdown([row])
    with pytest.raises(UserError, match="among 1 classes"):
        Question("one", "unseen", 1)


def test_questions_about_an_artist_show_only_that_artist_and_the_others_never_do():
    found = questions(["openmoji"], ["noto", "twemoji"])
    assert found[-1].variety.artists == ("openmoji",) and found[-1].ways == 50
    assert all(question.variety.artists == ("noto", "twemoji") for question in found[:-1])


def test_ranks_of_relatives_are_counted_from_one(ours, world):
    found = ranks_of_relatives(ours, world, count=24)
    assert set(found) <= set(world.held_out_things) and found
    assert all(1 <= each["relative"] <= len(world.names) and each["read_as"] in world.names for each in found.values())


def test_the_tool_prints_a_table_and_keeps_it(tmp_path, clip_file, capsys):
    out = tmp_path / "measured.json"
    measure_clip.main(["--weights", str(clip_file), "--count", "12", "--device", "cpu", "--out", str(out)])
    said = capsys.readouterr().out
    assert said.startswith("small, τ = ") and said.count("| held-out") == 3
    rows = measured_clip(out)
    assert [row["question"] for row in rows] == [question.name for question in questions()]
    other = [{**rows[0], "trained": ["noto"]}, {**rows[0], "count": 1}]
    out.write_text(json.dumps(other))
    measure_clip.main(["--weights", str(clip_file), "--count", "12", "--device", "cpu", "--out", str(out)])
    assert measured_clip(out) == [other[0], *rows]  # a row of the same question is replaced, another one stays
    out.write_text("{}")
    with pytest.raises(UserError, match="holds no measurements"):
        measure_clip.main(["--weights", str(clip_file), "--count", "12", "--device", "cpu", "--out", str(out)])
    save_small_clip(small_clip(artists=["noto"]), tmp_path / "noto.safetensors")
    with pytest.raises(UserError, match="'small' was trained on noto"):
        measure_clip.main(["--weights", str(tmp_path / "noto.safetensors"), "--artists", "noto"])
    with pytest.raises(UserError, match="--extra takes NAME=FOLDER"):
        measure_clip.main(["--weights", str(clip_file), "--extra", "sixth"])
