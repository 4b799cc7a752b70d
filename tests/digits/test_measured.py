"""The measurements that travel inside the package, as notebooks read and draw them."""

import json
import math

import numpy as np
import pytest
from make_milestones import LABELS, main
from measure_digits import fingerprint
from PIL import Image

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.measured import guidance_sweep, measured_digits, measured_faces, milestones
from dlcv_diffusion.figures import trade_off_plot
from dlcv_diffusion.models import load_model


def row(w, interval=None, sampler="dpm_solver", accuracy=0.9, ratio=2.0):
    half = {"accuracy": accuracy, "frechet_ratio": ratio}
    return {"sampler": sampler, "steps": 20, "w": w, "interval": interval, "halves": {"mnistm": half, "svhn": half}}


ROWS = [
    row(2.0, accuracy=0.98),
    row(0.0, ratio=None),
    row(2.0, [0.2, 2.0], ratio=1.5),
    row(2.0, sampler="ddpm", ratio=9),
]


def test_rows_are_read_back(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(ROWS))
    assert measured_digits(tmp_path / "m.json") == ROWS


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '[{"w": 1}]', "null"])
def test_other_files_are_told_in_a_sentence(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match="measure_digits"):
        measured_digits(tmp_path / "m.json")


def test_a_missing_file_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="no measurements"):
        measured_digits(tmp_path / "none.json")


def test_a_sweep_is_sorted_by_w_and_keeps_to_its_sampler():
    sweep = guidance_sweep(ROWS)
    assert sweep["w"] == [0.0, 2.0]
    assert sweep["accuracy"]["MNIST-M"] == [0.9, 0.98]
    assert math.isnan(sweep["distance"]["street digits"][0]) and sweep["distance"]["street digits"][1] == 2.0


def test_a_sweep_of_two_intervals_shares_w_0():
    sweep = guidance_sweep(ROWS, {"": None, ", limited": (0.2, 2.0)})
    assert sweep["accuracy"]["MNIST-M, limited"] == [0.9, 0.9]
    assert sweep["distance"]["MNIST-M, limited"][1] == 1.5
    assert trade_off_plot(**sweep, chosen=2.0).to_png()[:4] == b"\x89PNG"


def test_what_was_not_measured_is_an_error_or_a_gap():
    with pytest.raises(UserError, match="nothing was measured"):
        guidance_sweep(ROWS, sampler="ddim")
    sweep = guidance_sweep([*ROWS, row(4.0)], {"": None, ", limited": (0.2, 2.0)})
    assert math.isnan(sweep["accuracy"]["MNIST-M, limited"][2])
    lines = {line.get_label(): line for line in trade_off_plot(**sweep).axes[0].lines}
    assert list(lines["MNIST-M, limited"].get_xdata()) == [0, 2] and list(lines["MNIST-M"].get_xdata()) == [0, 2, 4]


def test_the_shipped_measurements_are_of_one_set_of_weights_and_hold_the_sweep():
    rows = measured_digits()
    assert len({row["weights"]["fingerprint"] for row in rows}) == 1
    assert {0.0, 2.0, 6.0} <= set(guidance_sweep(rows)["w"])
    ddpm = next(row for row in rows if row["sampler"] == "ddpm")
    assert ddpm["steps"] == 350 and ddpm["per_class"] == 50
    assert all(half["accuracy"] >= 0.98 for half in ddpm["halves"].values())


def test_the_shipped_faces_were_measured_with_the_weights_that_ship():
    rows = measured_faces()
    assert {row["weights"] for row in rows} == {fingerprint(load_model("faces").state_dict())}
    assert {row["count"] for row in rows} == {1000}
    ratios = {(row["steps"], row["eta"]): row["frechet_ratio"] for row in rows}
    assert set(ratios) == {(steps, eta) for steps in (10, 20, 50, 250) for eta in (0.0, 1.0)}
    assert all(ratio <= 5 for (steps, _), ratio in ratios.items() if steps >= 20), "faces became worse"
    # no copies: as far from the training faces as held-out ones that are as soft, within a fifth
    assert all(row["nearest"]["median"] > 0.8 * row["soft_median"] for row in rows)


def preview(path, first, gap=2):
    """A preview as training writes it: 10 rows of digits, 2 · 6 columns; cell (r, c) is all `first` + 12 r + c."""
    sheet = np.zeros((10 * (28 + gap) + gap, 12 * (28 + gap) + gap, 3), np.uint8)
    for r in range(10):
        for c in range(12):
            top, left = gap + r * (28 + gap), gap + c * (28 + gap)
            sheet[top : top + 28, left : left + 28] = first + 12 * r + c
    Image.fromarray(sheet).save(path)


@pytest.mark.parametrize("gap", [1, 2])
def test_milestones_are_packed_from_previews_and_read_back(tmp_path, monkeypatch, gap):
    for number, step in enumerate((500, 700, 1000, 1234)):
        preview(tmp_path / f"step_{step:06d}.png", number, gap)
    out = tmp_path / "film.png"
    monkeypatch.setattr("sys.argv", ["make_milestones.py", str(tmp_path), "--out", str(out)])
    main()
    steps, labels, images = milestones(out)
    assert steps == [500, 1000, 1234] and labels == list(LABELS)
    assert images.shape == (3, len(LABELS), 3, 28, 28)
    expected = [12 * (label % 10) + 6 * (label // 10) + place % 6 for place, label in enumerate(LABELS)]
    assert images[0].float().mean((1, 2, 3)).tolist() == expected
    assert images[2].float().mean((1, 2, 3)).tolist() == [value + 3 for value in expected]


def test_other_pictures_are_no_milestones(tmp_path):
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    for name in ("a.png", "none.png"):
        with pytest.raises(UserError, match="no milestones"):
            milestones(tmp_path / name)


def test_the_shipped_milestones():
    steps, labels, images = milestones()
    assert steps == sorted(steps) and len(steps) >= 4
    assert images.shape == (len(steps), len(labels), 3, 28, 28)
