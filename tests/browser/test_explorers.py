"""What all explorers have in common, in JupyterLab: the still picture behind them, their controls, their looks."""

import json
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from lab_in_browser import TEXT_SIZE, TOO_WIDE
from PIL import Image
from small_clips import SEEING, small_clip
from small_concepts import write_small_pipeline

from dlcv_diffusion.figures import read_facts
from dlcv_diffusion.models.clip.small import save_small_clip

SMALL = """
import numpy as np, time, torch
from dlcv_diffusion import Denoiser, NoiseSchedule
from dlcv_diffusion.models.text_to_image import load_text_to_image
from dlcv_diffusion.personalisation import prompt_explorer
from dlcv_diffusion.widgets import alpha_explorer, eta_explorer, guidance_explorer, step_explorer
from dlcv_diffusion.zero_shot import Pictures, load_clip, zero_shot_explorer

small = Denoiser(lambda x, t: 0.9 * x.roll(1, -1), NoiseSchedule.linear(1000), shape=(1, 64, 64), name="small")
images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
pictures = Pictures.of(images, [0, 1, 2, 0], ["fox", "owl", "castle"])
"""
EXPLORERS = [
    'eta_explorer(small, still=[0, 1], title="DDIM", caption="A small one")',
    "alpha_explorer(small, steps=2, still=[0, 1])",
    "step_explorer(lambda t: np.full((1, 28, 28), t, np.uint8), range(50))",
    "guidance_explorer(lambda w: np.full((10, 1, 28, 28), int(9 * w), np.uint8))",
    'zero_shot_explorer(load_clip("clip.safetensors", device="cpu"), pictures)',
    'prompt_explorer(load_text_to_image("model", "cpu"), "a fox", steps=3, count=2, title="Any prompt")',
]
ETA = 0
SIZES = {"narrow": (480, 1000), "half": (700, 1000), "wide": (1000, 1000), "at 200 %": (500, 500)}
FACTS = "window.sliderView.querySelector('.dlcv-facts').textContent"
SQUEEZED = """image => {
  const {width, height} = image.getBoundingClientRect();
  return Math.abs(width / height / (image.naturalWidth / image.naturalHeight) - 1);
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_notebook):
    folder = tmp_path_factory.mktemp("explorers")
    save_small_clip(small_clip(SEEING), folder / "clip.safetensors")
    write_small_pipeline(folder / "model")
    write_notebook(folder / "all.ipynb", SMALL, *EXPLORERS)
    write_notebook(folder / "kept.ipynb", SMALL, EXPLORERS[ETA], "for _ in range(20):\n    time.sleep(0.1)")
    return folder


@pytest.fixture(scope="module")
def everything(open_notebook):
    """A notebook with all of them, run once."""
    with open_notebook("all.ipynb") as notebook:
        notebook.run_all()
        assert notebook.errors() == []
        yield notebook


def test_the_still_picture_is_never_lost(open_notebook, folder, screenshots):
    with open_notebook("kept.ipynb") as notebook:
        page = notebook.page
        notebook.run_all()
        assert page.locator(".jp-OutputArea-output img:visible").count() == 1, "live, the still picture is hidden"
        notebook.save()
        notebook.restart_kernel()
        page.wait_for_function("() => document.querySelector('.dlcv-explorer').dataset.state === 'gone'")
        assert "run this cell" in notebook.words()
        notebook.reload()
        dead = page.locator(".jp-OutputArea-output.jupyter-widgets")
        dead.get_by_text("Error displaying widget").wait_for(state="attached")
        assert dead.evaluate(TEXT_SIZE) == 0 and notebook.errors() == []
        still = page.locator(".jp-RenderedImage img")
        assert still.is_visible() and still.evaluate("image => image.naturalWidth") > 300
        notebook.screenshot(screenshots / "reloaded.png")
        page.locator(".jp-CodeCell").nth(0).click()
        notebook.run_all()
        assert notebook.state() == "done" and not still.is_visible()
    cells = json.loads((folder / "kept.ipynb").read_text(encoding="utf-8"))["cells"]
    kinds = [set(output["data"]) for output in cells[1]["outputs"]]
    assert {"image/png", "text/plain"} in kinds


def test_a_saved_notebook_as_a_page_shows_the_still_without_a_network(browser, open_notebook, folder, tmp_path):
    with open_notebook("kept.ipynb") as notebook:
        notebook.run_all()
        notebook.save()
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", tmp_path, folder / "kept.ipynb"]
    subprocess.run(command, check=True, capture_output=True)
    context = browser.new_context(offline=True)
    try:
        page = context.new_page()
        page.goto((tmp_path / "kept.html").as_uri())
        assert page.locator("img:visible").evaluate_all("images => images.map(image => image.naturalWidth > 300)") == [
            True
        ]
        assert page.locator("body").inner_text().count("rror") == 0
    finally:
        context.close()


def test_a_move_while_another_cell_runs_waits_and_says_so(open_notebook):
    with open_notebook("kept.ipynb") as notebook:
        notebook.run_all()
        notebook.page.locator(".jp-CodeCell").nth(2).locator(".jp-InputPrompt").click()
        notebook.page.keyboard.press("Control+Enter")
        notebook.handle("noise added, η").press("ArrowRight")
        notebook.page.get_by_text("waiting for the kernel").wait_for(timeout=5_000)
        assert notebook.state() == "waiting"
        figures = notebook.view().locator(".dlcv-figures").last
        notebook.page.wait_for_function("part => getComputedStyle(part).opacity < 0.6", arg=figures.element_handle())
        notebook.page.wait_for_function("() => document.querySelector('.dlcv-explorer').dataset.state === 'done'")
        assert "η\u00a0=\u00a00.05" in notebook.facts()


def test_typed_values_reset_random_compare_and_the_line_of_code(everything):
    view, page = everything.view(ETA), everything.page
    everything.watch(ETA)
    start = everything.facts(ETA)
    typed = view.get_by_label("noise added, η, typed", exact=True)
    for said, meant in (("0.37", "0.37"), ("7", "1"), ("", "1"), ("0.05", "0.05")):
        typed.fill(said)
        typed.press("Enter")
        page.wait_for_function(
            f"() => /η\\s=\\s{meant},/.test(window.sliderView.querySelector('.dlcv-facts').textContent)"
        )
        assert typed.input_value() == meant
    assert everything.handle("noise added, η", ETA).input_value() == "1"
    assert everything.handle("noise added, η", ETA).get_attribute("aria-valuetext") == "0.05"
    view.get_by_role("button", name="compare").click()
    page.wait_for_function("() => window.sliderView.querySelectorAll('figure:not([hidden])').length === 2")
    assert [text for text in view.locator("figcaption:visible").all_inner_texts()][0].startswith("η = 0,")
    view.get_by_role("button", name="random seed").click()
    page.wait_for_function(f"() => !/ seed 0$/.test({FACTS})")
    view.get_by_text("more", exact=True).click()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.get_by_role("button", name="copy the code").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('last(ddim(')")
    view.get_by_role("button", name="reset").click()
    page.wait_for_function(f"() => {FACTS} === {json.dumps(start)}")
    view.get_by_text("more", exact=True).click()
    view.get_by_role("button", name="compare").click()
    assert everything.errors() == []


def test_the_picture_is_downloaded_with_its_facts(everything, tmp_path):
    view = everything.view(ETA)
    view.get_by_text("more", exact=True).click()
    with everything.page.expect_download() as download:
        view.get_by_role("button", name="download PNG").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == ".png" and {"η", "steps", "seed", "weights"} <= set(read_facts(path))
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    view.get_by_text("more", exact=True).click()


def test_play_goes_through_all_positions(everything):
    number = 2
    view = everything.view(number)
    view.get_by_label("timestep t, typed").fill("45")
    view.get_by_label("timestep t, typed").press("Enter")
    view.get_by_role("button", name="play timestep t").click()
    last = view.get_by_text("t = 49", exact=True)
    last.wait_for()
    view.get_by_role("button", name="play timestep t").wait_for()


def test_nothing_serious_is_in_the_way_of_those_who_cannot_see_or_use_a_mouse(everything):
    everything.page.emulate_media(color_scheme="light")
    found = Axe().run(everything.page, context=".dlcv-explorer").response["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert serious == []
    for number in range(len(EXPLORERS)):
        images = everything.view(number).locator("img:visible").all()
        assert images and all(image.get_attribute("alt") for image in images)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_they_fit_whatever_the_width_and_the_theme(everything, screenshots, theme, size):
    page, (width, height) = everything.page, SIZES[size]
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(theme == 'light').lower()}'")
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(300)
    for number in range(len(EXPLORERS)):
        view = everything.view(number)
        path = screenshots / f"explorer_{number}_{size.replace(' ', '_').replace('_%', '')}_{theme}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        view.screenshot(path=path)
        assert view.evaluate(TOO_WIDE) == []
        for image in view.locator("figure img:visible").all():
            assert image.evaluate(SQUEEZED) < 0.02, "squeezed, or with a gap"
