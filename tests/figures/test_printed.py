"""Figures for a report: their size in inches, letters that can be read there, captions in words, and text as text."""

import re

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.figures import image_grid, line_plot, printed, read_facts, save_figure, schedule_plot
from dlcv_diffusion.figures.words import WORDS, describe

FACTS = {"seeds": range(10), "sampler": "dpm_solver", "steps": 15, "w": 2.0, "signal leak": True, "weights": "digits"}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 3, 28, 28), np.uint8)
ROWS = ["MNIST-M, 0  $x$", "predicted $x_0$", "street digits, 0  $x$", "predicted $x_0$"]
INCHES = {"column": 3.3, "page": 7.0}


def strip():
    heads = [f"t = {t}" for t in (349, 140, 84, 42, 14, 0)]
    return image_grid(IMAGES, ROWS, heads, "The reverse process of two digits, in six frames", "Above: x", facts=FACTS)


def plot():
    title = "How long is the noise between two noises that were drawn one by one?"
    return line_plot([0, 0.5, 1], {"lerp": [1, 0.71, 1]}, "α", "length of the noise / √D", title, facts={"seed": 0})


def schedules():
    return schedule_plot({"linear": NoiseSchedule.linear(350)}, facts={"T": 350})


@pytest.mark.parametrize("width", INCHES)
@pytest.mark.parametrize("make", [strip, plot, schedules])
def test_letters_are_no_smaller_than_7_points_at_the_printed_width(tmp_path, width, make):
    with printed(width):
        fig = make()
        path = save_figure(fig, tmp_path / "a.png")
    sizes = [text.get_fontsize() for text in fig.findobj(Text) if text.get_text() and text.get_visible()]
    assert len(sizes) >= 5 and min(sizes) >= 7
    image = Image.open(path)
    dpi = round(image.info["dpi"][0])
    assert dpi == 300 and 0.8 * INCHES[width] < image.width / dpi <= INCHES[width] + 0.01
    assert read_facts(path)


@pytest.mark.parametrize("width", INCHES)
@pytest.mark.parametrize("make", [strip, plot, schedules])
def test_no_word_is_cut_off_or_lies_on_another(tmp_path, width, make):
    with printed(width):
        fig = make()
        fig.canvas.draw()
    inside, (across, up) = fig.get_tightbbox(fig.canvas.get_renderer()), fig.get_size_inches()
    assert inside.x0 > -0.01 and inside.y0 > -0.01 and inside.x1 < across + 0.01 and inside.y1 < up + 0.01
    boxes = [text.get_window_extent().shrunk(0.98, 0.7) for text in fig.texts if text.get_text().strip()]
    assert not [(a, b) for number, a in enumerate(boxes) for b in boxes[:number] if a.overlaps(b)]


def test_the_physical_size_of_a_figure_for_the_screen_is_known_too(tmp_path):
    image = Image.open(save_figure(strip(), tmp_path / "a.png"))
    assert round(image.info["dpi"][0]) == 200 and 4 < image.width / 200 <= 7.61


def test_the_caption_is_in_words_and_may_be_left_out(tmp_path):
    with printed("column") as captions:
        with_it = save_figure(strip(), tmp_path / "with.png")
    with printed("column", caption=False) as alone:
        without = save_figure(strip(), tmp_path / "without.png")
    said = (
        "Above: x. Seeds 0 to 9, DPM-Solver++, 15 steps, guidance weight w = 2, noise with the mean colours of the data"
    )
    assert captions["with.png"].replace("\u00a0", " ") == f"{said}, model “digits”"
    assert alone["without.png"] == captions["with.png"] == Image.open(without).text["Description"]
    assert Image.open(with_it).height > Image.open(without).height + 60


def test_no_fact_of_ours_is_a_code_word():
    facts = {
        name: [0.1, 3] if name == "guided where σ in" else 2.0 if name in ("w", "clip_x0") else "x" for name in WORDS
    }
    assert not re.search(
        r"_| = x|\[", describe({**facts, "seeds_of_z": [1, 4], "noises": ["00", "01"]}).replace("η", "")
    )
    assert describe({"an_other": [0.5, 1]}) == "An other\u00a0=\u00a00.5 and 1"


def test_an_svg_has_text_and_a_pdf_has_fonts(tmp_path):
    with printed("column", format="svg"):
        svg = save_figure(strip(), tmp_path / "a.png")
    text = svg.read_text(encoding="utf-8")
    assert svg.name == "a.svg" and ">The reverse" in text and ">349" in text and "Above: x." in text
    width = float(re.search(r'width="([\d.]+)pt"', text)[1])
    assert 0.8 * 3.3 * 72 < width <= 3.31 * 72
    with printed("column", format="pdf"):
        pdf = save_figure(strip(), tmp_path / "a.png").read_bytes()
    assert pdf.startswith(b"%PDF") and b"DejaVuSans" in pdf and b'"sampler": "dpm_solver"' in pdf


@pytest.mark.parametrize("format", ["pdf", "svg"])
def test_equal_figures_are_equal_files_and_keep_no_caption(tmp_path, format):
    with printed("page", format=format):
        fig = strip()
        one, other = (save_figure(fig, tmp_path / f"{n}.{format}").read_bytes() for n in (0, 1))
    assert one == other


def test_other_widths_and_formats_are_told():
    for options, said in (({"width": "wide"}, "no such width: 'wide'"), ({"format": "jpg"}, "no such format: 'jpg'")):
        with pytest.raises(UserError, match=said), printed(**options):
            pass


def test_the_command_line_writes_them(dlcv, tmp_path):
    words = "figures --only faces --steps 2 --device cpu --width column --format svg --no-caption --out figures"
    code, out, err = dlcv(words)
    names = [f"faces_{name}.svg" for name in ("eta_grid", "slerp", "lerp", "norms", "corners")]
    assert code == 0 and out.split() == [f"figures/{name}" for name in [*names, "captions.txt"]], err
    captions = (tmp_path / "figures" / "captions.txt").read_text(encoding="utf-8")
    assert [line.split(":")[0] for line in captions.splitlines()] == names and "DDIM, 2 steps" in captions
