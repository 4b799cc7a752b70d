"""Explorers: one output that is a live slider and a still picture, pictures kept within bounds, errors shown."""

import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbconvert import HTMLExporter

from dlcv_diffusion import UserError
from dlcv_diffusion.widgets import Control, Explorer, guidance_explorer, step_explorer

LIVE = "application/vnd.jupyter.widget-view+json"


class Grey:
    """A picture of one grey, and a count of how often it was asked for."""

    def __init__(self, images=1):
        self.asked, self.images = [], images

    def __call__(self, value):
        self.asked.append(value)
        return np.full((self.images, 3, 8, 8), int(value * 10), np.uint8)


def slider(explorer):
    first = explorer.widget.children[0]
    return first.children[0] if hasattr(first, "children") else first


def image(explorer):
    return explorer.widget.children[-2]


def words(explorer):
    return explorer.widget.children[-1].value


def test_the_output_holds_the_widget_and_the_still_picture():
    data, metadata = guidance_explorer(Grey(), facts={"steps": 20})._repr_mimebundle_()
    assert data[LIVE]["model_id"]
    assert data["image/png"][:4] == b"\x89PNG"
    assert metadata["image/png"]["width"] > 0
    assert data["text/plain"] == "<figure: steps = 20>"


def test_without_ipywidgets_the_still_picture_is_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    explorer = step_explorer(Grey(), range(10))
    assert explorer.widget is None
    data, _ = explorer._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}


def test_html_made_without_a_kernel_shows_the_still_picture():
    import base64

    data, _ = step_explorer(Grey(), range(10))._repr_mimebundle_()
    data["image/png"] = base64.b64encode(data["image/png"]).decode()
    output = nbformat.v4.new_output("display_data", data)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explorer", outputs=[output])])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert data["image/png"] in page


def test_moving_the_slider_changes_the_picture_and_not_its_size():
    explorer = step_explorer(Grey(), range(10), describe=lambda t: f"SNR < {t}")
    first, size = image(explorer).value, (image(explorer).layout.width, image(explorer).layout.height)
    slider(explorer).value = 7
    assert image(explorer).value == explorer.png(7) != first
    assert (image(explorer).layout.width, image(explorer).layout.height) == size
    assert words(explorer) == "SNR &lt; 7"


def test_a_picture_is_drawn_once_and_only_so_many_are_kept():
    grey = Grey()
    explorer = guidance_explorer(grey, [0, 1, 2, 3], start=0, still=[0], cache=2)
    explorer.widget  # noqa: B018 - built when it is first asked for
    for w in (1, 0, 1, 0):
        slider(explorer).value = w
    assert grey.asked == [0, 1]
    for w in (2, 3, 0):
        slider(explorer).value = w
    assert grey.asked == [0, 1, 2, 3, 0]
    assert len(explorer.kept) == 2


def test_an_error_is_shown_and_the_slider_goes_on_working():
    def draw(w):
        if w == 3:
            raise MemoryError("too <many> images")
        return Grey()(w)

    explorer = guidance_explorer(draw, [0, 2, 3, 4], still=[0, 2])
    before = image(explorer).value
    slider(explorer).value = 3.0
    assert words(explorer) == "w = 3: MemoryError: too &lt;many&gt; images" and image(explorer).value == before
    slider(explorer).value = 4.0
    assert words(explorer) == "" and image(explorer).value == explorer.png(4.0)


def test_sliders_say_what_they_are_and_slow_ones_wait_until_they_are_let_go():
    steps, guidance = step_explorer(Grey(), range(10)), guidance_explorer(Grey())
    assert slider(steps).description == "timestep t" and slider(steps).continuous_update
    assert slider(guidance).description == "guidance w" and not slider(guidance).continuous_update
    assert slider(guidance).value == 2.0 and [label for label, _ in slider(guidance).options][:3] == ["0", "0.5", "1"]


def test_a_player_runs_through_the_steps():
    player = step_explorer(Grey(), range(0, 100, 10)).widget.children[0].children[1]
    assert (player.min, player.max, player.value) == (0, 9, 0)


def test_a_samplers_steps_are_shown_as_x_above_x0():
    def step(t):
        x = torch.full((3, 3, 8, 8), t / 10)
        return SimpleNamespace(t=t, x=x, x0=-x)

    explorer = step_explorer((step(t) for t in (9, 5, 0)), images=[0, 2])
    assert [value for _, value in slider(explorer).options] == [9, 5, 0]
    picture = explorer.picture(9)
    assert picture.shape == (17, 17, 3)  # two rows and columns of 8, a gap of 1
    assert (picture[:8, :8] == 242).all() and (picture[9:, 9:] == 13).all()


def test_pictures_can_be_a_list():
    explorer = step_explorer([Grey()(t) for t in (1, 2)], [1, 2])
    assert explorer.picture(2)[0, 0, 0] == 20
    for pictures, timesteps in (([Grey()(1)], [1, 2]), ([Grey()(1)], None), (Grey(), None)):
        with pytest.raises(UserError, match="timesteps"):
            step_explorer(pictures, timesteps)


def test_the_still_picture_shows_its_positions_side_by_side_or_stacked():
    few = step_explorer(Grey(), range(10), still=[0, 4, 9], title="Noise")
    assert [text.get_text() for text in few.still.texts] == ["Noise", "t = 0", "t = 4", "t = 9"]
    wide = guidance_explorer(Grey(images=10))
    assert [text.get_text() for text in wide.still.texts] == ["w = 0", "w = 2", "w = 4", "w = 6"]
    assert wide.still.width > 2 * wide.still.height * 0.8


def test_several_controls():
    controls = {"eta": Control([0.0, 1.0], "η"), "seed": Control([1, 2], "seed", label=str)}
    explorer = Explorer(lambda eta, seed: Grey()(eta + seed), controls, [(0.0, 1), (1.0, 2)])
    assert [text.get_text() for text in explorer.still.texts] == ["eta = 0, seed = 1", "eta = 1, seed = 2"]
    explorer.widget.children[1].value = 2
    assert image(explorer).value == explorer.png(0.0, 2)


@pytest.mark.parametrize("control", [Control([], "empty"), Control([1, 2], "start", start=3)])
def test_a_slider_that_cannot_stand_anywhere_is_refused(control):
    with pytest.raises(UserError, match="the slider 'a'"):
        Explorer(Grey(), {"a": control}, [])
