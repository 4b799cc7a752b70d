"""Figures: what they say of themselves and their geometry. How they look is judged by eye."""

import json
import os
import subprocess
import sys
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.figures import (
    describe,
    digit_grid,
    figures_folder,
    image_grid,
    line_plot,
    loss_curve,
    png_bytes,
    read_facts,
    reverse_strip,
    save_figure,
    schedule_plot,
    tile,
    to_rgb,
    trade_off_plot,
)
from dlcv_diffusion.figures.page import DENSITY, PAGE, ReportFigure
from dlcv_diffusion.figures.words import WORDS


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)


def pixels(fig, tmp_path):
    return np.array(Image.open(save_figure(fig, tmp_path / "figure.png", {"seed": 0})).convert("RGB"))


# --- pixels ------------------------------------------------------------------------------------------------


def test_float_images_are_clipped_and_uint8_images_untouched():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5)
    assert to_rgb(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_rgb(x.bfloat16()).dtype == np.uint8
    byte = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    assert np.array_equal(to_rgb(byte)[0], byte.permute(1, 2, 0).numpy())


BAD = [(2, 2), (1, 4, 2, 2), (0, 3, 2, 2), (1, 3, 0, 2)]


@pytest.mark.parametrize("bad", [*map(np.zeros, BAD), np.zeros((1, 3, 2, 2), np.int64), torch.zeros(1, 3, 2, 2).int()])
def test_what_cannot_be_shown_is_refused_in_one_sentence(bad):
    with pytest.raises(UserError, match="cannot be shown; give"):
        to_rgb(bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("show", [to_rgb, tile, image_grid, lambda images: digit_grid(images[None].repeat(10, 0))])
def test_samples_that_are_not_finite_have_no_picture(value, show):
    images = np.zeros((2, 3, 4, 4), np.float32)
    images[1, 2, 3, 3] = value
    for bad in (images, images.astype(np.float64), images[::-1]):
        with pytest.raises(UserError, match="finite"):
            show(bad)


def test_grey_images_have_three_equal_channels():
    x = torch.linspace(-1, 1, 6).view(1, 1, 2, 3)
    assert to_rgb(x)[0].tolist() == [[[level] * 3 for level in row] for row in [[0, 51, 102], [153, 204, 255]]]


def test_large_images_are_halved_by_the_mean_of_four_pixels():
    quarters = np.kron(np.ones((400, 400), np.uint8), np.array([[0, 10], [20, 33]], np.uint8))  # their mean is 15.75
    fig = image_grid(np.broadcast_to(quarters, (2, 3, 800, 800)).copy())
    mosaic = np.asarray(fig.axes[0].images[0].get_array())
    assert mosaic.shape == (400, 400 + 2 * DENSITY + 400, 3)
    assert (mosaic[:, :400] == 16).all() and (mosaic[:, -400:] == 16).all()


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.integers(0, 3))
def test_every_image_lies_in_its_cell(count, columns, zoom, gap):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((count, 3, 4, 5), np.uint8)
    picture = tile(images, columns, gap=gap, zoom=zoom)
    assert picture.shape == (-(-count // columns) * (4 * zoom + gap) - gap, columns * (5 * zoom + gap) - gap, 3)
    for index in range(count):
        y, x = index // columns * (4 * zoom + gap), index % columns * (5 * zoom + gap)
        assert (picture[y : y + 4 * zoom, x : x + 5 * zoom] == index).all()


# --- grids -------------------------------------------------------------------------------------------------


def test_a_grid_shows_each_pixel_as_an_exact_square(images, tmp_path):
    fig = image_grid(images, [str(n) for n in range(4)], [f"t = {n}" for n in range(5)], "Title", zoom=3)
    drawn = pixels(fig, tmp_path)
    mosaic = tile(images, 5, gap=2 * DENSITY, zoom=3 * DENSITY)
    height, width, _ = mosaic.shape
    axes = fig.axes[0].get_position()
    left = round(axes.x0 * (fig.width + 0.25) * DENSITY)
    top = round((fig.height + 0.25) * DENSITY * (1 - axes.y1) - 0.25 * DENSITY)
    assert drawn.shape[1] == fig.width * DENSITY
    assert np.array_equal(drawn[top : top + height, left : left + width], mosaic)


@pytest.mark.parametrize("size, columns", [(8, 4), (28, 10), (64, 11), (256, 4), (600, 3)])
def test_a_grid_fits_a_page(size, columns, tmp_path):
    images = np.zeros((columns, 3, size, size), np.uint8)
    fig = image_grid(images, ["a row"], [str(n) for n in range(columns)])
    assert 0.4 * PAGE < fig.width <= PAGE
    assert pixels(fig, tmp_path).shape[1] == fig.width * DENSITY


def test_labels_are_those_given_and_must_be_as_many_as_rows_and_columns(images):
    fig = image_grid(images.reshape(4, 5, 3, 8, 8), list("abcd"), list("vwxyz"), "Title")
    assert {text.get_text() for text in fig.texts} == set("abcdvwxyz") | {"Title"}
    with pytest.raises(UserError, match="3 labels for 4 rows"):
        image_grid(images, list("abc"), columns=5)


def test_a_digit_grid_has_ten_rows(images):
    fig = digit_grid(images, noises=[7, 8], title="MNIST-M")
    assert [text.get_text() for text in fig.texts] == ["MNIST-M", "7", "8", *map(str, range(10))]
    for few in (images[:19], images[:18].reshape(9, 2, 3, 8, 8)):
        with pytest.raises(UserError, match="not ten rows of digits"):
            digit_grid(few)
    with pytest.raises(UserError, match="3 labels for 2 columns"):
        digit_grid(images, noises=range(3))


@pytest.mark.parametrize("predicted, start, rows", [(True, True, 4), (False, False, 2)])
def test_a_reverse_strip_names_its_timesteps(predicted, start, rows):
    x = torch.zeros(3, 3, 8, 8)
    steps = [SimpleNamespace(t=t, x=x, x0=x, eps=x) for t in (349, 84, 0)]
    names = ["MNIST-M", "street digits"]
    fig = reverse_strip(steps, [0, 2], names, predicted=predicted, start=x if start else None)
    labels = [text.get_text() for text in fig.texts]
    assert labels[: 3 + start] == ["$x_T$"] * start + ["t = 349", "t = 84", "t = 0"]
    assert len(labels) == 3 + start + rows


def test_a_reverse_strip_shows_each_image_of_each_step_in_its_cell(tmp_path):
    def of(values):  # three grey images of one level each
        return torch.tensor(values).view(3, 1, 1, 1).expand(3, 1, 8, 8) / 127.5 - 1

    steps = [SimpleNamespace(t=t, x=of([t, t + 1, t + 2.0]), x0=of([t + 100, t + 101, t + 102.0])) for t in (20, 10)]
    fig = reverse_strip(steps, [2, 0], ["a", "b"], start=of([30.0, 31, 32]), zoom=1)
    mosaic = np.asarray(fig.axes[0].images[0].get_array())
    corners = mosaic[:: (8 + 2) * DENSITY, :: (8 + 2) * DENSITY, 0]
    assert corners.tolist() == [[32, 22, 12], [255, 122, 112], [30, 20, 10], [255, 120, 110]]
    for names in (["a"], list("abc")):
        with pytest.raises(UserError, match="for 2 images"):
            reverse_strip(steps, [2, 0], names)
    with pytest.raises(UserError, match="no steps"):
        reverse_strip([])


# --- plots -------------------------------------------------------------------------------------------------


def test_the_loss_curve_reads_the_metrics(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,loss,lr\n1,0.5,1e-4\n2,0.25,1e-4\n3,0.25,1e-4\n")
    raw, mean = loss_curve(metrics, smooth=0.5).axes[0].lines
    assert raw.get_ydata().tolist() == [0.5, 0.25, 0.25]
    # (1 − s) Σ s^(n−i) x_i / (1 − s^n)
    assert mean.get_ydata().tolist() == pytest.approx([0.5, 1 / 3, 2 / 7])


def test_the_row_that_training_is_writing_is_left_out(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,loss\n1,0.5\n2,0.25\n3")
    assert loss_curve(metrics).axes[0].lines[0].get_xdata().tolist() == [1, 2]


@pytest.mark.parametrize(
    "content", [None, "a,b\n1,2\n", "step,loss\n", "step,loss\n1,much\n", "loss,step\n1\n", "step,loss\n1,\0\n", "\xff"]
)
def test_metrics_that_are_none_get_one_sentence(content, tmp_path):
    metrics = tmp_path / "metrics.csv"
    if content:
        metrics.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="metrics.csv"):
        loss_curve(metrics)


def test_the_schedule_plot_draws_what_is_left_and_the_snr():
    schedule = NoiseSchedule.linear(350)
    left, right = schedule_plot(schedule).axes
    assert np.allclose(left.lines[0].get_ydata(), schedule.alphas_bar)
    assert np.allclose(right.lines[0].get_ydata(), schedule.snr)
    assert "0.029" in left.figure.legends[0].get_texts()[0].get_text()
    both = schedule_plot({"350": schedule, "1000": NoiseSchedule.linear(1000).alphas_bar})
    assert [line.get_xdata()[-1] for line in both.axes[0].lines] == [349 / 350, 999 / 1000]


def test_the_trade_off_needs_a_value_for_each_weight():
    fig = trade_off_plot([0, 2], {"a": [0.5, 1.0]}, {"a": [3.0, 6.0]}, chosen=2, marks={"real": 1.0})
    assert fig.axes[0].lines[0].get_ydata().tolist() == [50, 100]
    with pytest.raises(UserError, match="'b' has 1 values for 2 guidance weights"):
        trade_off_plot([0, 2], {"a": [0.5, 1.0]}, {"b": [3.0]})


# --- facts -------------------------------------------------------------------------------------------------


def test_facts_travel_with_the_picture(images, tmp_path):
    facts = {"seeds": range(4), "steps": 350, "η": 0.0, "w": np.float32(2), "weights": tmp_path / "digits.safetensors"}
    fig = image_grid(images, caption="Four digits.", facts=facts)
    path = save_figure(fig, tmp_path / "new" / "figure.png", {"eta steps": torch.tensor([1, 5])})
    expected = {"seeds": [0, 1, 2, 3], "steps": 350, "η": 0.0, "w": 2.0, "weights": "digits.safetensors"}
    assert read_facts(path) == {**expected, "eta steps": [1, 5]}
    words = Image.open(path).info["Description"].replace("\u00a0", " ")
    assert words.startswith("Four digits. Seeds 0 to 3, 350 steps, η = 0, guidance weight w = 2, model “digits.safe")
    assert str(tmp_path) not in path.read_bytes().decode("latin1")


def test_the_caption_is_printed_below_and_wrapped(images, tmp_path):
    fig = image_grid(images, columns=5)
    plain = Image.open(save_figure(fig, tmp_path / "plain.png", {"a": 1}))
    fig.caption = "word " * 80
    long = Image.open(save_figure(fig, tmp_path / "long.png", {"a": 1}))
    assert long.width == plain.width and long.height > plain.height + 4 * 15
    assert np.asarray(plain)[fig.height * DENSITY :].min() < 128  # there is ink


def test_a_figure_without_facts_or_not_a_png_is_refused(images, tmp_path):
    with pytest.raises(UserError, match="has no facts"):
        save_figure(image_grid(images), tmp_path / "figure.png")
    with pytest.raises(UserError, match=r"ends in \.png"):
        save_figure(image_grid(images), tmp_path / "figure.pdf", {"seed": 0})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_figure(image_grid(images), tmp_path / "file" / "figure.png", {"seed": 0})
    with pytest.raises(UserError, match="not a picture"):
        read_facts(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize("facts", ["{", "[1]", '"seed"', "[" * 100_000, "{}"])
def test_damaged_facts_get_one_sentence(facts, tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(png_bytes(np.zeros((2, 2, 3), np.uint8), {"Facts": facts}))
    if facts == "{}":
        assert read_facts(path) == {}
    else:
        with pytest.raises(UserError, match="figure.png"):
            read_facts(path)


def test_the_same_figure_is_the_same_file(images, tmp_path):
    files = [
        save_figure(image_grid(images, title="A"), tmp_path / f"{n}.png", {"seed": 0}).read_bytes() for n in (0, 1)
    ]
    assert files[0] == files[1]


def test_any_matplotlib_figure_can_be_saved_with_its_facts(tmp_path):
    from matplotlib.figure import Figure

    fig = Figure(figsize=(3.333, 2.777))
    fig.subplots().plot([1, 2])
    dpi = fig.dpi
    path = save_figure(fig, tmp_path / "figure.png", {"seed": 0})
    assert read_facts(path) == {"seed": 0} and fig.dpi == dpi


def test_facts_read_as_words():
    found = describe({"seeds": [3, 5], "t": [349, 348, 347], "w": 2.5, "ema": True}).replace("\u00a0", " ")
    assert found == "Seeds 3 and 5, t = 349, 348 and 347, guidance weight w = 2.5, ema = True"
    assert describe({"seeds": range(200, 300, 5)}) == "Seeds 200, 205, …, 295"
    assert describe({"t": [349, 299, 249, 199, 149, 99]}).endswith("349, 299, …, 99")
    assert describe({"seeds": [0, 2, 4, 6, 8]}) == "Seeds 0, 2, 4, 6 and 8"
    assert describe({"seeds": [0, 2, 4, 6, 8, 9]}) == "Seeds 0, 2, 4, 6, 8 and 9"
    assert describe({"seeds": [0, 1, 4_000_000_000]}) == "Seeds 0, 1 and 4000000000"
    assert describe({"eta": 0.0}) == "η\u00a0=\u00a00"
    assert describe({"t": 349, "w": 1}).startswith("t\u00a0=\u00a0349, "), "T is something else"
    assert describe({"fast": False, "signal leak": True}) == "In float32, noise with the mean colours of the data"
    assert describe({"files": [PurePosixPath("/srv/me/a.png")], "seeds": "10…15 and 30…35"}) == (
        "Files\u00a0=\u00a0a.png, seeds 10…15 and 30…35"
    )
    for odd in (np.array([10, 50]), None, 3.0, [], {"a": 1}, {3, "b"}, ()):  # whatever they are, a figure can be saved
        assert all(describe({name: odd}) for name in WORDS)
    assert describe({"seeds": range(10), "weights": PurePosixPath("/runs/a.safetensors")}) == (
        "Seeds 0 to 9, model “a.safetensors”"
    )


def test_figures_go_where_the_environment_says_or_beside_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.setenv("DLCV_FIGURES", str(tmp_path / "here"))
    assert figures_folder() == tmp_path / "here"
    monkeypatch.delenv("DLCV_FIGURES")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert figures_folder() == tmp_path / "figures"
    monkeypatch.chdir(tmp_path / "notebooks")
    assert figures_folder() == tmp_path / "figures"


# --- manners -----------------------------------------------------------------------------------------------


def test_a_figure_shows_itself_small_and_sharp_with_words_for_those_who_do_not_see_it(images):
    data, metadata = image_grid(images, title="Five", caption="Digits", facts={"seed": 3})._repr_mimebundle_()
    width, height = (int.from_bytes(data["image/png"][i : i + 4], "big") for i in (16, 20))
    shown = {"width": width // DENSITY, "height": height // DENSITY}
    assert metadata["image/png"] == {**shown, "alt": "Five. Digits. Seed 3"}
    assert data["text/plain"] == "<figure: Digits. Seed 3>"


def test_nothing_global_is_changed(images, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    save_figure(schedule_plot(NoiseSchedule.linear(10)), tmp_path / "a.png", {"T": 10})
    image_grid(images, title="A").to_png()
    assert dict(matplotlib.rcParams) == before


def test_a_users_own_style_does_not_leak_in(tmp_path):
    import matplotlib

    light = schedule_plot(NoiseSchedule.linear(10)).to_png()
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "figure.facecolor": "black"}):
        assert schedule_plot(NoiseSchedule.linear(10)).to_png() == light


def test_no_pyplot_and_no_matplotlib_until_figures_are_asked_for():
    code = (
        "import sys, json, dlcv_diffusion; a = 'matplotlib' in sys.modules; import dlcv_diffusion.figures;"
        "print(json.dumps([a, 'matplotlib.pyplot' in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(out.stdout) == [False, False]


def test_a_report_figure_is_placed_by_the_unit(tmp_path):
    fig = ReportFigure(100, 60)
    axes = fig.place(10, 20, 30, 40)
    axes.imshow(np.zeros((1, 1, 3)), aspect="auto")
    axes.set_axis_off()
    fig.facts = {}
    drawn = pixels(fig, tmp_path)[: 60 * DENSITY]
    ys, xs = np.nonzero(drawn[..., 0] == 0)
    assert (xs.min(), xs.max() + 1) == (10 * DENSITY, 40 * DENSITY)
    assert (ys.min(), ys.max() + 1) == (20 * DENSITY, 60 * DENSITY)


def test_a_mark_above_all_curves_is_within_the_axes():
    axes = line_plot([0, 1], {"near": [1.0, 2.0]}, "x", "y", marks={"far": 9.0}).axes[0]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 9
    right = trade_off_plot([0, 1], {"half": [0.9, 1.0]}, {"half": [2.0, 3.0]}, marks={"far": 9.0}).axes[1]
    assert right.get_ylim()[0] == 0 and right.get_ylim()[1] > 9


def test_a_line_plot_has_its_curves_its_band_and_its_gaps():
    fig = line_plot([10, 20, 50], {"eta = 0": [3.0, np.nan, 1.0]}, "steps", "distance", band=(0, 1), log_x=True)
    axes = fig.axes[0]
    assert axes.lines[0].get_xdata().tolist() == [10, 50] and axes.get_ylim()[0] == 0
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "20", "50"]
    with pytest.raises(UserError, match="2 values for 3 places"):
        line_plot([10, 20, 50], {"short": [1, 2]}, "x", "y")
