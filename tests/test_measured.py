"""The measurements that travel inside the package, as notebooks read and draw them."""

import json
import math

import pytest

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.measured import MEASURED, guidance_sweep, measured_digits
from dlcv_diffusion.figures import trade_off_plot


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


@pytest.mark.skipif(not MEASURED.exists(), reason="nothing was measured yet")
def test_the_shipped_measurements_are_of_one_set_of_weights_and_hold_the_sweep():
    rows = measured_digits()
    assert len({row["weights"]["fingerprint"] for row in rows}) == 1
    assert {0.0, 2.0, 6.0} <= set(guidance_sweep(rows)["w"])
