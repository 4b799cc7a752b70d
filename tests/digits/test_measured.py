"""The measurements that travel inside the package, as notebooks read and draw them."""

import json
import math

import numpy as np
import pytest
from make_milestones import LABELS, main
from PIL import Image, PngImagePlugin

from dlcv_diffusion import UserError
from dlcv_diffusion.digits.measured import both_halves, guidance_sweep, measured_digits, milestones
from dlcv_diffusion.figures import trade_off_plot


def test_rows_are_found_by_their_settings_and_shown_by_half(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(ROWS))
    found = measured_digits(tmp_path / "m.json", w=2.0, interval=None, sampler="dpm_solver", signal_leak=True)
    assert [(row["w"], row["interval"]) for row in found] == [(2.0, None)]
    assert both_halves(found, "accuracy", ".1%") == ["98.0% | 98.0%"]
    assert both_halves(found, "recall", ".2f") == ["– | –"]


def row(w, interval=None, sampler="dpm_solver", accuracy=0.9, ratio=2.0):
    half = {"accuracy": accuracy, "frechet_ratio": ratio}
    settings = {"sampler": sampler, "steps": 20, "w": w, "interval": interval}
    return {**settings, "names": {"mnistm": "MNIST-M", "svhn": "SVHN"}, "halves": {"mnistm": half, "svhn": half}}


ROWS = [
    row(2.0, accuracy=0.98),
    row(0.0, ratio=None),
    row(2.0, [0.2, 2.0], ratio=1.5),
    row(2.0, sampler="ddpm", ratio=9),
]


def test_rows_are_read_back(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(ROWS))
    assert measured_digits(tmp_path / "m.json") == [{"signal_leak": True, **row} for row in ROWS]


@pytest.mark.parametrize(
    "change",
    [{"w": "much"}, {"w": math.nan}, {"w": None}, {"steps": 2.5}, {"interval": [1]}, {"interval": "all"}, {"names": 3}]
    + [{"halves": []}, {"halves": {"mnistm": 1}}, {"halves": {"mnistm": {"accuracy": 2, "frechet_ratio": 1}}}]
    + [{"halves": {"mnistm": {"accuracy": 1, "frechet_ratio": math.inf}}}, {"sampler": None}],
)
def test_crafted_rows_are_told_in_a_sentence(tmp_path, change):
    (tmp_path / "m.json").write_text(json.dumps([ROWS[0], {**ROWS[1], **change}]))
    with pytest.raises(UserError, match="holds no measurements of tools/measure_digits.py: 1.") as raised:
        measured_digits(tmp_path / "m.json")
    assert "\n" not in str(raised.value)


def test_a_sweep_is_sorted_by_w_and_keeps_to_its_sampler():
    sweep = guidance_sweep(ROWS)
    assert sweep["w"] == [0.0, 2.0]
    assert sweep["accuracy"]["MNIST-M"] == [0.9, 0.98]
    assert math.isnan(sweep["distance"]["SVHN"][0]) and sweep["distance"]["SVHN"][1] == 2.0


def test_halves_are_called_what_the_rows_know():
    """Rows that do not say what the weights were trained on have the names of the course's folders."""
    nameless = [{k: v for k, v in row.items() if k != "names"} for row in ROWS]
    assert list(guidance_sweep(ROWS)["accuracy"]) == ["MNIST-M", "SVHN"]
    assert list(guidance_sweep(nameless)["accuracy"]) == ["mnistm", "svhn"]
    assert list(guidance_sweep(measured_digits())["accuracy"]) == ["MNIST-M", "street digits"]


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


FACTS = [None, "[]", "3", "{}", '{"steps": [1]}', '{"steps": [1], "labels": [0, 1]}', '{"steps": 3, "labels": [1]}']
FACTS += ['{"steps": ["a"], "labels": [1]}', "[" * 100_000, "not json", '{"steps": [[]], "labels": [1]}']


@pytest.mark.parametrize("facts", FACTS)
def test_other_pictures_are_no_milestones(tmp_path, facts):
    info = PngImagePlugin.PngInfo()
    if facts is not None:
        info.add_text("Facts", facts)
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError, match="no milestones"):
        milestones(tmp_path / "a.png")


def test_no_milestones_at_all(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("none.png", "text.png", "."):
        with pytest.raises(UserError, match="no milestones"):
            milestones(tmp_path / name)


def test_the_shipped_milestones():
    steps, labels, images = milestones()
    assert steps == sorted(steps) and len(steps) >= 4
    assert images.shape == (len(steps), len(labels), 3, 28, 28)
