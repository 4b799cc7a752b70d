"""`prompt_explorer` in JupyterLab: typed into, its buttons pressed, its sliders moved, as a student would.

Its model has random weights: what is tested is that every control moves what it should, and nothing else.
"""

import pytest
from lab_in_browser import PIXELS
from small_concepts import write_small_pipeline

MODEL = """
import torch
from dlcv_diffusion.models.text_to_image import load_text_to_image
from dlcv_diffusion.personalisation import add_token, prompt_explorer

sd = load_text_to_image("model", "cpu")
add_token(sd, "<new1>", torch.randn(32, generator=torch.Generator().manual_seed(0)))
"""
EXPLORE = 'prompt_explorer(sd, "a fox", steps=3, title="Any prompt")'


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_notebook):
    folder = tmp_path_factory.mktemp("prompts")
    write_small_pipeline(folder / "model")
    write_notebook(folder / "explore.ipynb", MODEL, EXPLORE)
    return folder


class View:
    """The explorer's live view, as it is seen and touched."""

    def __init__(self, notebook):
        self.page, self.box = notebook.page, notebook.page.locator(".dlcv-explorer")
        self.prompt = self.box.get_by_label("prompt", exact=True)
        self.image, self.line = self.box.locator("figure:last-of-type img"), self.box.locator(".dlcv-line")
        self.facts = self.box.locator(".dlcv-facts")
        self.image.wait_for()

    def seen(self):
        picture = self.image.evaluate(PIXELS)
        return picture, self.image.get_attribute("alt"), self.line.inner_text() + self.facts.inner_text()

    def finished(self, before):
        """What is seen once it is something else, no draft, and stays."""
        last = before
        for _ in range(150):
            self.page.wait_for_timeout(300)
            now = self.seen()
            if now == last != before and self.box.get_attribute("data-state") in ("done", "error"):
                return now
            last = now
        raise AssertionError("nothing changed")


def test_prompt_words_seed_and_scale_move_the_pictures(open_notebook, folder, screenshots):
    with open_notebook("explore.ipynb") as notebook:
        try:
            notebook.run_all()
            assert notebook.errors() == []
            view = View(notebook)
            start = view.seen()
            assert start[1] == "4 pictures of the prompt: a fox" and "read as a · fox" in start[2]

            view.prompt.fill("an owl")
            typed = view.finished(start)
            assert typed[0] != start[0] and typed[1].endswith("an owl")
            view.box.get_by_role("button", name="<new1>").click()
            assert view.prompt.input_value() == "an owl <new1>"
            learnt = view.finished(typed)
            assert learnt[0] != typed[0] and "<new1>" in learnt[2]

            view.box.get_by_label("seed of the first", exact=True).press("PageUp")
            other = view.finished(learnt)
            assert other[0] != learnt[0] and other[1] == learnt[1] and "seeds 2 to 5" in other[2]
            handle = view.box.get_by_label("guidance scale", exact=True)
            handle.press("ArrowRight")
            stronger = view.finished(other)
            assert stronger[0] != other[0] and "guidance scale 3.5" in stronger[2]
            handle.press("ArrowLeft")
            assert view.finished(stronger) == other

            view.prompt.fill("a fox " * 30)
            refused = view.finished(other)
            assert refused[0] == other[0] and "shorten it" in refused[2]
            view.prompt.fill("an owl <new1>")
            assert view.finished(refused) == other
            assert notebook.errors() == []
        finally:
            notebook.screenshot(screenshots / "prompts.png")
