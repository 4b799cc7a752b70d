"""The sliders where they live: JupyterLab in a headless Chromium, moved by keyboard."""

import subprocess
import sys

import nbformat
import pytest

SLOW = """
import time
from dlcv_diffusion import NoiseSchedule
from dlcv_diffusion.widgets import eta_explorer

calls = []

def denoise(x, t):
    calls.append(int(t[0]))
    time.sleep(0.05)
    return x.roll(1, -1)
"""

EXPLORE = """
eta_explorer(
    denoise, schedule=NoiseSchedule.linear(1000), shape=(1, 64, 64), seeds=range(50), steps=(20,), still=[0],
    describe=lambda eta, steps, seed: f"seed {seed}, {len(calls)} calls before",
)
"""


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory, write_notebook):
    """The notebooks with their explorer's cells alone, and one whose network is slow and counts its calls."""
    folder = tmp_path_factory.mktemp("notebooks")
    for path in [*root.glob("notebooks/04_*.ipynb"), *root.glob("notebooks/05_*.ipynb")]:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell in code:
            cell.outputs, cell.execution_count = [], None
        needed = [code[0], next(cell for cell in code if "_explorer(" in cell.source)]  # nbval runs all of them
        notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown" or cell in needed]
        nbformat.write(notebook, folder / path.name)
    write_notebook(folder / "slow.ipynb", SLOW, EXPLORE)
    return folder


def picture_sizes(events):
    return {tuple(event["what"]["size"]) for event in events if event["kind"] == "picture"}


@pytest.mark.parametrize(
    ("name", "label", "key", "others", "button"),
    [
        ("04_ddim_eta", "noise added, η", "ArrowRight", ["steps", "seed of the noise"], None),
        ("05_slerp_vs_lerp", "α", "ArrowLeft", ["seed at α = 0", "seed at α = 1"], "slerp"),
    ],
)
def test_a_notebook_runs_and_its_sliders_move_the_picture(open_notebook, screenshots, name, label, key, others, button):
    with open_notebook(f"{name}.ipynb") as notebook:
        try:
            notebook.run_all(patience=900)
            assert notebook.errors() == []
            before = notebook.fingerprint()
            notebook.screenshot(screenshots / f"{name}_before.png", 0)
            notebook.watch()
            handle = notebook.handle(label)
            handle.focus()
            handle.press(key)
            notebook.wait_until_finished()
            after = notebook.fingerprint()
            assert after != before
            assert len([event for event in notebook.events() if event["kind"] == "picture"]) > 1  # drafts came first
            handle.press("ArrowLeft" if key == "ArrowRight" else "ArrowRight")
            notebook.wait_until_finished()
            assert notebook.fingerprint() == before
            handle.press(key)
            notebook.wait_until_finished()
            assert notebook.fingerprint() == after
            seen = {after}
            for other in others:
                handle = notebook.handle(other)
                handle.focus()
                handle.press("ArrowRight")
                notebook.wait_until_finished()
                assert notebook.fingerprint() not in seen, f"'{other}' changed nothing"
                seen.add(notebook.fingerprint())
            assert len(picture_sizes(notebook.events())) == 1  # of the file and on the screen, drafts and all
            if button is not None:
                notebook.handle(button).press("Space")
                notebook.wait_until_finished()
                assert notebook.fingerprint() not in seen, f"'{button}' changed nothing"
            assert notebook.errors() == []
        finally:
            notebook.screenshot(screenshots / f"{name}.png")


def test_a_held_key_leaves_nothing_in_the_queue(open_notebook, screenshots):
    with open_notebook("slow.ipynb") as notebook:
        try:
            notebook.run_all()
            notebook.watch()
            assert notebook.page.locator(".jp-OutputArea-output img:visible").count() == 1  # not the still one
            handle = notebook.handle("seed of the noise")
            handle.focus()
            for _ in range(8):
                handle.press("ArrowRight")
            notebook.page.wait_for_function("() => window.sliderView.dataset.state === 'draft'")
            assert "seed 8" in notebook.facts()
            notebook.screenshot(screenshots / "slow_refining.png", 0)
            notebook.wait_until_finished()
            assert notebook.words().startswith("seed 8,")
            finished = notebook.fingerprint()
            handle.press("ArrowRight")
            notebook.wait_until_finished()
            handle.press("ArrowLeft")
            notebook.wait_until_finished()
            assert notebook.fingerprint() == finished  # the picture of seed 8, and of no other
            # the first picture, seeds 8 and 9 with a draft each, and of the seven on the way no more than a start
            calls = int(notebook.words().split()[2])
            assert calls < 3 * 26 + 7 * 10, "the seeds on the way were drawn to the end"
            assert notebook.errors() == []
        finally:
            notebook.screenshot(screenshots / "slow.png")


def test_a_page_made_of_a_notebook_shows_the_still_without_a_network(browser, folder, tmp_path, screenshots):
    options = ["--execute", "--to", "html", "--output-dir", tmp_path]
    subprocess.run(
        [sys.executable, "-m", "nbconvert", *options, folder / "slow.ipynb"], check=True, capture_output=True
    )
    context = browser.new_context(offline=True)
    try:
        page = context.new_page()
        page.goto((tmp_path / "slow.html").as_uri())
        (size,) = page.locator("img").evaluate_all("images => images.map(image => [image.naturalWidth, image.height])")
        assert min(size) > 64 and page.locator("img").is_visible()
        assert page.locator(".jp-Notebook").inner_text().count("rror") == 0
        screenshots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=screenshots / "exported.png", full_page=True)
    finally:
        context.close()
