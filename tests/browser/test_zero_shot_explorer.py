"""`zero_shot_explorer` in JupyterLab: typed into, chosen from, uploaded to, as a student would.

Its CLIP has random weights: what is tested is that every control moves what it should, and nothing else.
"""

import re

import pytest
from PIL import Image
from small_clips import SEEING, small_clip

from dlcv_diffusion.emoji.captions import TEMPLATES
from dlcv_diffusion.models.clip.small import save_small_clip

MODEL = """
from dlcv_diffusion.zero_shot import load_clip, load_pictures, zero_shot_explorer

clip = load_clip("clip.safetensors", device="cpu")
pictures = load_pictures("emoji").subset(range(8))
"""
EXPLORE = 'zero_shot_explorer(clip, pictures, title="Words and a picture")'
ROWS = "box => [...box.querySelectorAll('tbody tr')].map(row => [...row.children].map(cell => cell.textContent))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_notebook):
    folder = tmp_path_factory.mktemp("zero_shot")
    known = {"templates": [text.format("a {}") for text in TEMPLATES], "classes": ["fox", "owl", "door", "ring"]}
    save_small_clip(small_clip(SEEING, **known), folder / "clip.safetensors")
    write_notebook(folder / "explore.ipynb", MODEL, EXPLORE)
    Image.new("RGB", (300, 200), "navy").save(folder / "my photo.png")
    (folder / "notes.png").write_text("no picture at all")
    return folder


class View:
    """The explorer's live view, as it is seen and touched."""

    def __init__(self, notebook):
        self.page, self.box = notebook.page, notebook.page.locator(".dlcv-explorer")
        self.words = self.box.get_by_label("words", exact=True)
        self.template = self.box.get_by_label("template", exact=True)
        self.choice = self.box.locator("select")
        self.line = self.box.locator(".dlcv-line")
        self.box.get_by_role("table", name="probabilities").wait_for()

    def bars(self):
        """(word, probability, cosine), row by row, as they are written."""
        return [(name.removeprefix("▸ "), p, cos) for name, p, cos in self.box.evaluate(ROWS)]

    def upload(self, path):
        self.box.get_by_label("or your own").set_input_files(path)

    def picture(self):
        return self.box.locator(".dlcv-area img").get_attribute("src")

    def seen(self):
        return self.bars(), self.picture(), self.line.inner_text()

    def wait_for_change(self, before):
        """What is seen once it is something else."""
        for _ in range(600):
            self.page.wait_for_timeout(50)
            if self.seen() != before:
                self.page.wait_for_timeout(400)  # what else may come
                return self.seen()
        raise AssertionError("nothing changed")


def names(seen):
    return [name for name, *_ in seen[0]]


def test_words_pictures_temperatures_and_uploads_move_what_they_should(open_notebook, folder, screenshots):
    with open_notebook("explore.ipynb") as notebook:
        try:
            notebook.run_all()
            assert notebook.errors() == []
            view = View(notebook)
            start = view.seen()
            assert len(start[0]) == 6 and all(re.fullmatch(r"[<>]? ?\d+\.\d %", p) for _, p, _ in start[0])

            view.words.fill("a fox, an owl, a big red balloon")
            typed = view.wait_for_change(start)
            assert names(typed) == ["a fox", "an owl", "a big red balloon"] and typed[1] == start[1]
            assert (
                "a photo of a fox." in typed[2]
                and "Not the name of a thing that it was trained on: a big red balloon." in typed[2]
            )

            view.choice.select_option(index=3)
            chosen = view.wait_for_change(typed)
            assert chosen[1] != typed[1] and chosen[0] != typed[0]
            assert names(chosen) == names(typed), "bars stay in their order"

            handle = view.box.get_by_label(re.compile("^temperature τ")).first
            for _ in range(8):
                handle.press("ArrowRight")
            warmer = view.wait_for_change(chosen)
            assert warmer[1:] == chosen[1:] and warmer[0] != chosen[0]
            assert [(name, cos) for name, _, cos in warmer[0]] == [(name, cos) for name, _, cos in chosen[0]]
            for _ in range(8):
                handle.press("ArrowLeft")
            assert view.wait_for_change(warmer) == chosen

            view.upload(folder / "my photo.png")
            own = view.wait_for_change(chosen)
            assert own[1] != chosen[1] and own[0] != chosen[0]
            assert view.box.locator(".dlcv-area img").get_attribute("alt") == "the picture your own: my photo.png"
            view.upload(folder / "notes.png")
            refused = view.wait_for_change(own)
            assert refused[:2] == own[:2] and "'notes.png' is not a picture that can be read" in refused[2]
            view.choice.select_option(index=3)
            assert view.wait_for_change(refused) == chosen
            view.upload(folder / "my photo.png")
            assert view.wait_for_change(chosen) == own, "the same file once more"
            view.choice.select_option(index=3)
            assert view.wait_for_change(own) == chosen

            view.words.fill("a fox")
            alone = view.wait_for_change(chosen)
            assert alone[:2] == chosen[:2] and "type at least two words" in alone[2]
            view.words.fill("a fox, an owl, a big red balloon")
            assert view.wait_for_change(alone) == chosen
            view.template.fill("an icon")
            assert "no place for the name" in view.wait_for_change(chosen)[2]
            assert notebook.errors() == []
        finally:
            notebook.screenshot(screenshots / "zero_shot.png")


def test_typing_leaves_nothing_in_the_queue(open_notebook):
    with open_notebook("explore.ipynb") as notebook:
        notebook.run_all()
        view = View(notebook)
        view.words.fill("")
        words = [f"door {number}" for number in range(12)]
        view.words.press_sequentially(", ".join(words), delay=5)
        rest = view.box.get_by_text("and 2 less probable")
        for _ in range(150):  # answers to words half typed, or to eleven, may come before the last one
            shown = names(view.seen())
            if set(shown) < set(words) and len(shown) == 10 and rest.is_visible():
                break
            notebook.page.wait_for_timeout(100)
        assert set(shown) < set(words) and len(shown) == 10
        assert rest.is_visible()
