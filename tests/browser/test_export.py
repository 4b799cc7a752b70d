"""Exported notebooks as a reader has them: in a browser without a network, and on a sheet of A4."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from run_notebooks import LIVE, environment

from dlcv_diffusion.export import export_notebook

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
SHEET = round(180 / 25.4 * 96)  # A4 without its margins of 15 mm, in the pixels of a page
PHONE = 390

WORDS = """() => {
  const copy = document.querySelector('main').cloneNode(true);
  copy.querySelectorAll('pre, code, svg').forEach(part => part.remove());
  return copy.textContent;
}"""
"""All words but those of code and of outputs."""

CUT = """() => [...document.querySelectorAll('main *:not(pre code, pre code *)')].filter(part => {
  const {left, right, width} = part.getBoundingClientRect();
  const hidden = ['auto', 'hidden', 'scroll'].includes(getComputedStyle(part).overflowX);
  return width > 0 && (right > innerWidth + 1 || left < -1 || (!hidden && part.scrollWidth > part.clientWidth + 1
    && getComputedStyle(part).display === 'block' && part.tagName === 'PRE'));
}).map(part => `${part.tagName} ${part.className.baseVal ?? part.className} ${part.textContent.slice(0, 60)}`)"""
"""Parts that stand out of the window, or are cut off in it."""

LETTERS = """() => Math.min(...[...document.querySelectorAll('main pre, main p, main td')]
  .filter(part => part.checkVisibility()).map(part => parseFloat(getComputedStyle(part).fontSize)))"""


@pytest.fixture(scope="module")
def page_of(browser):
    """A function that opens a file in a page that has no network, and notes what it asks the network for."""
    contexts = []

    def open_file(path, width=1000):
        context = browser.new_context(offline=True, viewport={"width": width, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_without_a_network_and_on_paper(page_of, tmp_path, screenshots, path):
    exported = export_notebook(path, tmp_path / f"{path.stem}.html")
    assert exported.unset == []
    page = page_of(exported.path)
    screenshots.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=screenshots / f"exported_{path.stem}.png", full_page=True)
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert page.locator("script, link, iframe").count() == 0

    words = page.evaluate(WORDS)
    assert not re.search(r"\$|\\[A-Za-z]+|\\\(", words), "TeX that was not drawn"
    equations = page.locator("svg[role=img]")
    sizes = equations.evaluate_all("all => all.map(svg => svg.getBBox()).map(box => Math.min(box.width, box.height))")
    assert len(sizes) > 20 and min(sizes) > 0

    shown = [
        o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    images = page.locator("main img")
    assert images.count() == len(shown)
    assert images.evaluate_all(
        "all => all.every(image => image.complete && image.naturalWidth > 0 && image.alt.trim())"
    )

    page.set_viewport_size({"width": PHONE, "height": 900})
    assert page.evaluate(CUT) == []
    page.emulate_media(media="print")
    page.set_viewport_size({"width": SHEET, "height": 900})
    assert page.evaluate(CUT) == []
    assert page.evaluate(LETTERS) >= 6 / 72 * 96, "letters of less than 6 pt on paper"
    page.screenshot(path=screenshots / f"exported_{path.stem}_paper.png", full_page=True)
    folded = page.locator("details pre")
    assert folded.count() and all(each.is_visible() for each in folded.all()), "on paper nothing can be unfolded"


EXPLORE = """
import numpy as np
from dlcv_diffusion.widgets import step_explorer
step_explorer(lambda t: np.full((3, 8, 8), 40 * t, np.uint8), range(5))
"""


def test_an_explorer_that_was_run_shows_its_still(page_of, tmp_path, screenshots, write_notebook):
    write_notebook(tmp_path / "explore.ipynb", EXPLORE)
    notebook = nbformat.read(tmp_path / "explore.ipynb", as_version=4)
    NotebookClient(notebook, kernel_name="python3").execute(env=environment(tmp_path, cpu=True) | dict(os.environ))
    (output,) = notebook.cells[0].outputs
    output.data.setdefault(
        LIVE, {"model_id": "0" * 32, "version_major": 2, "version_minor": 0}
    )  # as JupyterLab saves it
    nbformat.write(notebook, tmp_path / "explore.ipynb")
    page = page_of(export_notebook(tmp_path / "explore.ipynb", tmp_path / "explore.html").path)
    image = page.locator("main img")
    assert image.count() == 1 and image.is_visible() and image.get_attribute("alt")
    assert image.evaluate("image => Math.min(image.naturalWidth, image.naturalHeight)") > 32
    assert not re.search("Error|VBox|widget", page.locator("main").inner_text().replace(EXPLORE.strip(), ""))
    page.screenshot(path=screenshots / "exported_explorer.png")
