"""Figures of zero-shot: drawn from what was found, with facts, and as large as they say."""

import csv

import pytest
import torch
from PIL import Image
from small_clips import clip_file, course_folder  # noqa: F401 – a fixture
from small_runs import one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError
from dlcv_diffusion.figures import read_facts, save_figure
from dlcv_diffusion.zero_shot import classify, load_clip, load_pictures
from dlcv_diffusion.zero_shot.figures import cases_figure, percent, similarity_figure
from dlcv_diffusion.zero_shot.report import one_of_each, write_zero_shot_figures


def test_cases_are_drawn_with_their_bars(tmp_path, clip_file):  # noqa: F811
    course_folder(tmp_path / "course")
    pictures = load_pictures(tmp_path / "course")
    found = classify(load_clip(clip_file, device="cpu"), pictures)
    cases = found.cases(2, 3)
    fig = cases_figure(cases, pictures, "Zero-shot", facts={"model": found.model, "seed": 0})
    shown = [text.get_text() for axes in fig.axes for text in axes.texts]
    assert all(f"{name}  {percent(value, 0)}" in shown for case in cases for name, value in case.top)
    assert [text.get_text() for text in fig.texts][1:] == [f"{case.file}: {case.true}" for case in cases]
    path = save_figure(fig, tmp_path / "cases.png")
    assert read_facts(path) == {"model": "small", "seed": 0}
    with pytest.raises(UserError, match="is not among the pictures"):
        cases_figure(cases, pictures.subset([14]))
    with pytest.raises(UserError, match="no case to show"):
        cases_figure([], pictures)


def test_similarities_share_one_scale():
    before, after = torch.zeros(6, 6), torch.eye(6)
    fig = similarity_figure({"before": before, "after": after}, facts={"steps": 5})
    images = [axes.images[0] for axes in fig.axes if axes.images]
    assert len(images) == 2 and all(image.get_clim() == (0, 1) for image in images)
    for title in ("", "Similarities"):
        fig = similarity_figure({"before": before, "after": after}, title)
        drawn = [axes.get_tightbbox() for axes in fig.axes]  # with their titles and labels
        assert all(box.x0 >= 0 and box.x1 <= fig.bbox.x1 for box in drawn), "all within the page"
        highest = max(box.y1 for box in drawn)
        assert all(highest <= text.get_window_extent().y0 for text in fig.texts), "titles do not collide"
    with pytest.raises(UserError, match="no similarity matrix"):
        similarity_figure({})


def test_one_picture_of_each_class_in_the_order_of_the_classes(tmp_path):
    course_folder(tmp_path / "course", count=4)
    pictures = load_pictures(tmp_path / "course")
    for count in (3, 5, 99):
        rows = one_of_each(pictures, count, seed=1)
        labels = pictures.labels[rows].tolist()
        assert labels == sorted(set(labels)) and len(labels) == min(count, 5)
    assert {tuple(one_of_each(pictures, 5, seed)) for seed in range(8)} != {tuple(rows)}, "the seed chooses"


def test_the_reports_figures_and_table_are_written_together(tmp_path, clip_file):  # noqa: F811
    course_folder(tmp_path / "course")
    clip, pictures = load_clip(clip_file, device="cpu"), load_pictures(tmp_path / "course")
    paths = write_zero_shot_figures(tmp_path / "figures", clip, pictures, seed=3)
    assert sorted(tmp_path.glob("figures/*")) == sorted(paths) and len(paths) == 3
    similar, cases, table = paths
    assert read_facts(similar)["model"] == read_facts(cases)["model"] == "small" and read_facts(cases)["seed"] == 3
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = classify(clip, pictures).cases(5, 5, seed=3)
    assert [(row["file"], row["predicted"], row["true"]) for row in rows] == [
        (case.file, case.predicted, case.true) for case in found
    ]
    assert [row["right"] for row in rows] == [str(int(case.right)) for case in found]


def test_the_command_line_draws_them_and_says_what_was_not_read(dlcv, tmp_path, clip_file):  # noqa: F811
    course_folder(tmp_path / "course")
    (tmp_path / "course" / "val" / "0_9.png").write_bytes(b"no picture")
    (tmp_path / "two.txt").write_text("a {}\nA {}.\n")
    words = f"figures --only zero-shot --pictures course --clip {clip_file} --templates two.txt --device cpu"
    code, out, err = dlcv(f"{words} --out figures")
    names = ["zero_shot_similarity.png", "zero_shot_cases.png", "zero_shot_cases.csv"]
    assert code == 0, err
    assert out.splitlines() == [f"figures/{name}" for name in names]
    facts = read_facts(tmp_path / "figures" / "zero_shot_similarity.png")
    assert facts["template"] == "an ensemble of 2" and facts["pictures"] == "course"
    with Image.open(tmp_path / "figures" / "zero_shot_cases.png") as picture:
        assert "Not read: 1" in picture.info["Description"]
