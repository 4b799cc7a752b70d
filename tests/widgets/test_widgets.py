"""Explorers: a live panel and a still picture behind it, pictures kept within bounds, errors shown.

How a move of the slider is drawn beside the kernel's other work is tested in an event loop, as a notebook has one.
"""

import asyncio
import threading
import time
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dlcv_diffusion import Denoiser, NoiseSchedule, UserError, ddim, guided, last, seeded_noise
from dlcv_diffusion.figures import read_facts, tile
from dlcv_diffusion.interpolation import lerp, slerp
from dlcv_diffusion.models.autoguidance import AutoGuidance
from dlcv_diffusion.widgets import (
    Control,
    Explorer,
    alpha_explorer,
    eta_explorer,
    guidance_explorer,
    step_explorer,
)
from dlcv_diffusion.widgets import explorer as explorer_module
from dlcv_diffusion.widgets import live as live_module

LIVE = "application/vnd.jupyter.widget-view+json"


class Grey:
    """A picture of one grey, and a count of how often it was asked for."""

    def __init__(self, images=1):
        self.asked, self.images = [], images

    def __call__(self, value):
        self.asked.append(value)
        return np.full((self.images, 3, 8, 8), int(value * 10), np.uint8)


def slide(explorer, value, control=0):
    """Set the first control, or another, as its reader would."""
    explorer.move(**{list(explorer.controls)[control]: value})


def image(explorer):
    return explorer.panel.picture


def words(explorer):
    return explorer.panel.line


def field(explorer, number=0):
    return explorer.panel.fields[number]


@pytest.fixture
def outputs(monkeypatch):
    """A function that gives what an explorer puts below its cell: the data of each output."""

    def shown(explorer):
        found = []

        def display(thing, raw=False):
            found.append(thing if raw else {"text/html": thing.data} if hasattr(thing, "data") else bundle(thing))

        monkeypatch.setattr(live_module, "display", display)
        explorer._ipython_display_()
        return found

    def bundle(figure):
        data, metadata = figure._repr_mimebundle_()
        assert metadata["image/png"]["width"] > 0
        return data

    return shown


def test_the_outputs_are_the_panel_and_behind_it_the_still_picture(outputs):
    style, panel, still = outputs(guidance_explorer(Grey(), facts={"steps": 20}, caption="Greys"))
    assert ".dlcv-explorer" in style["text/html"]
    assert panel[LIVE]["model_id"] and panel["text/plain"] == "" and "image/png" not in panel
    assert still["image/png"][:4] == b"\x89PNG" and LIVE not in still
    assert still["text/plain"] == "<figure: Greys. Run this cell to move the controls. 20 steps>"


def test_moving_the_slider_changes_the_picture_and_not_its_size():
    explorer = step_explorer(Grey(), range(10), describe=lambda t: f"SNR < {t}")
    first, size = image(explorer), explorer.panel.size
    slide(explorer, 7)
    assert image(explorer) == explorer.png(7) != first
    assert explorer.panel.size == size == [360, 360]
    assert words(explorer) == "SNR < 7"


def test_a_picture_is_drawn_once_and_only_so_many_are_kept():
    grey = Grey()
    explorer = guidance_explorer(grey, [0, 1, 2, 3], start=0, still=[0], cache=2)
    explorer.panel  # noqa: B018 - built when it is first asked for
    for w in (1, 0, 1, 0):
        slide(explorer, w)
    assert grey.asked == [0, 1]
    for w in (2, 3, 0):
        slide(explorer, w)
    assert grey.asked == [0, 1, 2, 3, 0]
    assert len(explorer.pictures) == 2


def test_an_error_is_shown_and_the_slider_goes_on_working():
    def draw(w):
        if w == 3:
            raise MemoryError("too <many> images")
        return Grey()(w)

    explorer = guidance_explorer(draw, [0, 2, 3, 4], still=[0, 2])
    before = image(explorer)
    slide(explorer, 3.0)
    assert words(explorer) == "w = 3: MemoryError: too <many> images" and image(explorer) == before
    assert explorer.panel.state == "error"
    slide(explorer, 4.0)
    assert words(explorer) == "" and image(explorer) == explorer.png(4.0)


def test_sliders_say_what_they_are():
    steps, guidance = field(step_explorer(Grey(), range(10))), field(guidance_explorer(Grey(), live=False))
    assert (steps["label"], steps["live"], steps["play"], steps["whole"]) == ("timestep t", True, True, True)
    assert (guidance["label"], guidance["live"], guidance["whole"]) == ("guidance w", False, False)
    assert guidance["values"][:3] == [0, 0.5, 1] and guidance["texts"][:3] == ["0", "0.5", "1"]


def test_numbers_between_the_positions_can_be_typed_where_there_is_a_picture():
    assert field(step_explorer(Grey(), range(10)))["between"]
    assert not field(step_explorer([Grey()(t) for t in (1, 2)], [1, 2]))["between"]
    explorer = guidance_explorer(Grey())
    slide(explorer, 0.7)
    assert image(explorer) == explorer.png(0.7) and "w = 0.7" in explorer.panel.alt


def test_words_are_chosen_by_buttons_or_from_a_list():
    few, many = Control(["slerp", "lerp"], "along", label=str), Control(list("abcdefg"), "letter", label=str)
    assert (few.field().kind, many.field().kind) == ("choice", "select")


def test_the_panel_says_all_that_the_still_picture_says():
    explorer = guidance_explorer(
        Grey(), title="Greys", caption="All alike.", facts={"steps": 20}, code=lambda w: f"grey({w:g})"
    )
    slide(explorer, 3)
    panel = explorer.panel
    assert (panel.title, panel.alt) == ("Greys", "Greys: w = 3")
    assert panel.facts == "All alike. 20 steps, guidance weight w\u00a0=\u00a03" and panel.code == "grey(3)"


def test_two_positions_are_seen_beside_each_other():
    explorer = guidance_explorer(Grey())
    slide(explorer, 5)
    explorer.panel.compare = True
    assert explorer.panel.beside == explorer.png(2.0) and image(explorer) == explorer.png(5.0)
    assert (explorer.panel.beside_label, explorer.panel.label) == ("w = 2", "w = 5")


def test_a_picture_is_downloaded_with_its_facts(tmp_path):
    explorer, sent = guidance_explorer(Grey(), facts={"steps": 20}), []
    explorer.panel.send = lambda message, buffers: sent.append((message, buffers))
    slide(explorer, 5)
    explorer._asked({"do": "download"})
    (message, (png,)) = sent[0]
    (tmp_path / message["file"]).write_bytes(png)
    assert read_facts(tmp_path / "w=5.png") == {"steps": 20, "w": 5}


def test_a_samplers_steps_are_shown_as_x_above_x0():
    def step(t):
        x = torch.full((3, 3, 8, 8), t / 10)
        return SimpleNamespace(t=t, x=x, x0=-x)

    explorer = step_explorer((step(t) for t in (9, 5, 0)), images=[0, 2])
    assert field(explorer)["values"] == [9, 5, 0]
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
    slide(explorer, 2, control=1)
    assert image(explorer) == explorer.png(0.0, 2)


def test_a_slider_that_cannot_stand_anywhere_is_refused():
    for values, start in (([], None), ([1, 2], 3), ([0.1, 0.2], 0.15), (["a"], "b"), ([1], "1")):
        with pytest.raises(UserError, match="the slider 'amount'"):
            Control(values, "amount", start=start)


NUMBERS = {
    "arange": np.arange(-0.2, 1.25, 0.05),  # 0.05 · 7 − 0.2 is 0.15000000000000002, and zero is 5.6e-17
    "cumsum": np.cumsum(np.full(29, 0.05)) - 0.25,
    "float32": np.arange(-0.2, 1.25, 0.05, dtype=np.float32),
    "float16": np.linspace(-0.2, 1.2, 29, dtype=np.float16),
    "torch": torch.linspace(-0.2, 1.2, 29),
    "decimal": [Decimal(step) / 20 for step in range(-4, 25)],
    "fraction": [Fraction(step, 20) for step in range(-4, 25)],
    "python": [step * 0.05 for step in range(-4, 25)],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_positions_may_be_numbers_of_any_type(name):
    control = Control(NUMBERS[name], "amount", start=0.15)
    assert control.values == [step / 20 for step in range(-4, 25)]
    assert {type(value) for value in control.values} == {int, float}
    assert control.start == 0.15 and control.label(control.start) == "0.15"
    assert [control.find(value) for value in (np.float32(0.35), torch.tensor(0.95), 1, 0)] == [0.35, 0.95, 1, 0]
    assert "0" in map(control.label, control.values) and "1" in map(control.label, control.values)


@pytest.mark.parametrize("kind", [list, np.array, np.float64, np.uint8, torch.tensor])
def test_whole_numbers_stay_whole(kind):
    control = Control(kind([2, 5, 200]), "steps", label=str, start=kind([5])[0])
    assert [control.label(value) for value in control.values] == ["2", "5", "200"]
    assert {type(value) for value in [*control.values, control.start]} == {int}


def test_large_seeds_and_words_are_kept_exactly():
    assert Control([2**62, 2**62 + 1], "seed", start=2**62 + 1).start == 2**62 + 1
    assert Control(["slerp", True, None], "any").values == ["slerp", True, None]


ARANGE = np.arange(0, 1.01, 0.05)


@pytest.mark.parametrize("kind", ["eta", "alpha", "guidance", "step"])
def test_every_explorer_starts_and_stands_still_at_rounded_positions(kind, denoiser):
    explorer = {
        "eta": lambda: eta_explorer(
            denoiser,
            etas=ARANGE,
            steps=np.array([2, 5]),
            seeds=torch.arange(3),
            start=(0.15, 5.0, 2),
            still=ARANGE[3:5],
        ),
        "alpha": lambda: alpha_explorer(
            denoiser, alphas=ARANGE, steps=2, start=(0.15, "both", 0, 1), still=ARANGE[3:5]
        ),
        "guidance": lambda: guidance_explorer(Grey(), ARANGE, start=0.15, still=ARANGE[3:5]),
        "step": lambda: step_explorer(Grey(), np.linspace(0, 20, 21), start=15.0, still=np.float32([15, 20])),
    }[kind]()
    assert [*explorer.panel.values.values()][0] == (15 if kind == "step" else 0.15)
    stills = [text.get_text() for text in explorer.still.texts]
    assert any("= 0.15" in text or "= 15" in text for text in stills)
    first, *others = explorer.still_positions[0]
    assert first in (0.15, 15)
    assert (explorer.picture(first + 1e-13, *others) == explorer.picture(first, *others)).all()
    assert len(explorer.pictures) == len(explorer.still_positions) + (kind == "alpha")  # which starts at "both"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_told_in_a_sentence(value, outputs, capsys):
    def draw(w):
        yield np.zeros((1, 3, 8, 8), np.float32)
        yield np.full((1, 3, 8, 8), value if w == 3 else w / 10, np.float32)

    explorer = guidance_explorer(draw, [0, 2, 3, 4], still=[0, 2])
    explorer.panel  # noqa: B018
    slide(explorer, 3)
    assert words(explorer).startswith("w = 3: ") and "finite" in words(explorer) and "Error" not in words(explorer)
    assert (3,) not in explorer.pictures
    slide(explorer, 4)
    assert words(explorer) == "" and image(explorer) == explorer.png(4)
    style, panel = outputs(guidance_explorer(draw, [0, 2, 3, 4], still=[0, 3]))
    assert LIVE in panel and "finite" in capsys.readouterr().out


# --- drawing while the kernel goes on -----------------------------------------------------------------------


class Sampler:
    """A sampler of grey pictures for each value, that notes every step it takes and on which thread."""

    def __init__(self, steps=20, seconds=0.0):
        self.steps, self.seconds, self.taken, self.threads = steps, seconds, [], set()

    def __call__(self, w):
        return self._run(w), self.steps

    def _run(self, w):
        for number in range(1, self.steps + 1):
            time.sleep(self.seconds)
            self.taken.append((w, number))
            self.threads.add(threading.get_ident())
            yield SimpleNamespace(x0=grey_of(w, number), x=grey_of(w, 100))

    def values(self):
        return [w for w in dict.fromkeys(w for w, _ in self.taken)]


def grey_of(w, number):
    return np.full((1, 3, 8, 8), int(w * 10 + number), np.uint8)


def in_a_loop(scenario):
    """Run a scenario as a cell is run: in an event loop, to which moves of the slider are left."""

    async def limited():
        await asyncio.wait_for(scenario(), 60)

    asyncio.run(limited())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def finished(explorer, w):
    return (w,) in explorer.pictures and image(explorer) == explorer.png(w)


@pytest.fixture
def every_draft(monkeypatch):
    monkeypatch.setattr(explorer_module, "BETWEEN_DRAFTS", -1)


def watched(explorer, *traits):
    seen = []
    explorer.panel.observe(lambda change: seen.append(change.new), names=list(traits))
    return seen


def test_moving_on_gives_up_the_work_under_way():
    async def scenario():
        sampler = Sampler()
        explorer = guidance_explorer(sampler, [0, 1, 2], start=0, still=[0])
        explorer.panel  # noqa: B018 - built when it is first asked for
        slide(explorer, 1)
        await until(lambda: (1, 3) in sampler.taken)
        slide(explorer, 2)
        await until(lambda: finished(explorer, 2))
        given_up = [number for w, number in sampler.taken if w == 1]
        assert given_up[-1] < 20 and sampler.taken[-1] == (2, 20)
        assert (1,) not in explorer.pictures  # a draft is never taken for the picture
        assert not [w for w, _ in sampler.taken[sampler.taken.index((2, 1)) :] if w != 2]

    in_a_loop(scenario)


def test_of_many_moves_only_the_latest_is_drawn():
    async def scenario():
        sampler = Sampler()
        explorer = guidance_explorer(sampler, range(10), start=0, still=[0])
        explorer.panel  # noqa: B018
        for w in range(1, 10):
            slide(explorer, w)
        await until(lambda: finished(explorer, 9))
        assert sampler.values() == [0, 9]

    in_a_loop(scenario)


def test_a_move_that_comes_on_another_thread_is_drawn_on_that_of_the_cells_once_they_are_done():
    async def scenario():
        sampler = Sampler()
        explorer = guidance_explorer(sampler, [0, 1, 2], start=0, still=[0])
        explorer.panel  # noqa: B018

        def moves():
            slide(explorer, 1)
            slide(explorer, 2)

        subshell = threading.Thread(target=moves)
        subshell.start()
        subshell.join()  # the loop does not run meanwhile, as in a long cell
        assert sampler.values() == [0]
        await until(lambda: finished(explorer, 2))
        assert sampler.values() == [0, 2] and sampler.threads == {threading.get_ident()}

    in_a_loop(scenario)


def test_other_work_of_the_loop_goes_on_between_two_steps():
    async def scenario():
        sampler, ticks = Sampler(steps=5, seconds=0.002), []

        async def clock():
            while True:
                ticks.append(len(sampler.taken))
                await asyncio.sleep(0)

        explorer = guidance_explorer(sampler, [0, 1], start=0, still=[0])
        explorer.panel  # noqa: B018
        clock_task = asyncio.create_task(clock())
        slide(explorer, 1)
        await until(lambda: finished(explorer, 1))
        clock_task.cancel()
        assert set(range(6, 10)) <= set(ticks)  # it ticked after every step

    in_a_loop(scenario)


def test_a_sampler_without_a_draft_shows_what_is_near_the_end(every_draft):
    explorer = guidance_explorer(
        Sampler(steps=10), [0, 1], start=0, still=[0], describe=lambda w: f"w < {w + 1:g}", columns=1
    )
    pictures, sizes = watched(explorer, "picture"), watched(explorer, "size")
    slide(explorer, 1)
    drafts = [explorer._png(tile(grey_of(1, number), explorer._columns)) for number in (7, 8, 9)]
    assert pictures == [*drafts, explorer._png(tile(grey_of(1, 100), explorer._columns))]
    assert words(explorer) == "w < 2" and not sizes


def test_a_draft_comes_first_and_then_only_the_picture():
    explorer = guidance_explorer(
        Sampler(steps=10), [0, 1], start=0, still=[0], draft=lambda w: (grey_of(w, n) for n in (50, 60))
    )
    states, pictures = watched(explorer, "state"), watched(explorer, "picture")
    slide(explorer, 1)
    assert states == ["busy", "draft", "done"]
    assert pictures == [explorer._png(tile(grey_of(1, number))) for number in (60, 100)]


def test_the_draft_of_the_next_move_of_the_same_kind_is_drawn_ahead():
    drafted = []

    def sketch(w):
        drafted.append(w)
        return (grey_of(w, number) for number in (20, 50)), 2

    explorer = guidance_explorer(Sampler(steps=10), [0, 1, 2, 3, 4], start=0, still=[0], draft=sketch)
    states = watched(explorer, "state")
    slide(explorer, 1)
    assert drafted == [1, 2], "one to the right, and so will be the next"
    assert states == ["busy", "draft", "done"]
    slide(explorer, 2)
    assert drafted == [1, 2, 3] and states[3:] == ["draft", "done"], "it is there at once"
    slide(explorer, 4)
    assert drafted == [1, 2, 3, 4], "two to the right: there is no further place like that"
    slide(explorer, 2)
    slide(explorer, 3)
    assert drafted == [1, 2, 3, 4], "what is drawn already needs no draft"


def test_a_draft_that_is_drawn_at_one_go_is_not_drawn_ahead():
    drafted = []

    def sketch(w):
        drafted.append(w)
        return grey_of(w, 50)

    explorer = guidance_explorer(Sampler(), [0, 1, 2], start=0, still=[0], draft=sketch)
    slide(explorer, 1)
    assert drafted == [1]


def test_a_move_that_tells_of_several_things_is_answered_once_and_leaves_a_core_to_the_browser():
    threads, before = [], torch.get_num_threads()

    def draw(w):
        threads.append(torch.get_num_threads())
        return grey_of(w, 0)

    async def scenario():
        torch.set_num_threads(2)
        try:
            explorer = guidance_explorer(draw, [0, 1], start=0, still=[0])
            assert explorer.panel.state == "done"
            threads.clear()
            explorer.panel.say(values={"w": 1}, moved=1)  # two traits, of which each tells of the move
            explorer._begin()
            task = explorer._task
            explorer._begin()
            assert explorer._task is task, "one task for one move"
            await until(lambda: explorer.panel.state == "done" and explorer.panel.answered == 1)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)

    in_a_loop(scenario)
    assert threads == [1]


def test_a_draft_near_the_one_before_is_that_picture_and_what_changed():
    """Of draft and picture, 40 apart, the next draft, 10 further, is the picture and those 10."""
    explorer = guidance_explorer(
        lambda w: np.full((1, 3, 8, 8), 140 + int(10 * w), np.uint8),
        [0, 1, 9],
        start=0,
        still=[0],
        draft=lambda w: np.full((1, 3, 8, 8), 100 + int(10 * w), np.uint8),
    )
    slide(explorer, 9)
    slide(explorer, 0)
    pictures = watched(explorer, "picture")
    slide(explorer, 1)
    near = explorer._png(np.full((8, 8, 3), 150, np.uint8))
    assert pictures[-1] == near and len(pictures) == 1  # the guess was the picture itself


def test_words_come_no_more_often_than_the_eye_can_follow(monkeypatch):
    explorer = guidance_explorer(Sampler(), [0, 1], start=0, still=[0])
    lines, pictures = watched(explorer, "line"), watched(explorer, "picture")
    monkeypatch.setattr(explorer_module, "BETWEEN_DRAFTS", 3600)
    slide(explorer, 1)
    assert lines == ["drawing …", ""] and len(pictures) == 1


def test_a_drawing_can_be_stopped():
    async def scenario():
        sampler = Sampler()
        explorer = guidance_explorer(sampler, [0, 1], start=0, still=[0])
        before = image(explorer)
        slide(explorer, 1)
        await until(lambda: (1, 3) in sampler.taken)
        explorer._asked({"do": "stop"})
        await until(lambda: explorer.panel.state == "stopped")
        taken = len(sampler.taken)
        await asyncio.sleep(0.05)
        assert len(sampler.taken) == taken and image(explorer) == before and (1,) not in explorer.pictures
        slide(explorer, 0)
        slide(explorer, 1)
        await until(lambda: finished(explorer, 1))

    in_a_loop(scenario)


def test_the_reader_is_told_which_of_his_moves_was_heard():
    explorer = guidance_explorer(Grey(), [0, 1, 2], start=0, still=[0])
    explorer.panel.say(values={"w": 2}, moved=7)
    assert explorer.panel.answered == 7 and image(explorer) == explorer.png(2)


def test_a_picture_that_was_seen_is_there_without_drafts(every_draft):
    sampler = Sampler()
    explorer = guidance_explorer(sampler, [0, 1], start=0, still=[0])
    explorer.panel  # noqa: B018
    slide(explorer, 1)
    taken, pictures = len(sampler.taken), watched(explorer, "picture")
    slide(explorer, 0)
    slide(explorer, 1)
    assert pictures == [explorer.png(0), explorer.png(1)] and len(sampler.taken) == taken


def test_pictures_that_get_better_need_no_number_of_steps(every_draft):
    explorer = guidance_explorer(lambda w: (grey_of(w, n) for n in (1, 2)), [0, 1], start=0, still=[0])
    explorer.panel  # noqa: B018
    lines, steps = watched(explorer, "line"), watched(explorer, "steps")
    slide(explorer, 1)
    assert lines == ["drawing …", ""] and steps == ["step 1 of …", "step 2 of …"]
    assert explorer.picture(1)[0, 0, 0] == 12


def test_an_error_half_way_is_shown_and_the_slider_goes_on_working():
    def draw(w):
        yield grey_of(w, 1)
        if w == 1:
            raise ValueError("the network burst")
        yield grey_of(w, 2)

    async def scenario():
        explorer = guidance_explorer(draw, [0, 1, 2], start=0, still=[0])
        explorer.panel  # noqa: B018
        slide(explorer, 1)
        await until(lambda: words(explorer) == "w = 1: ValueError: the network burst")
        assert (1,) not in explorer.pictures
        slide(explorer, 2)
        await until(lambda: finished(explorer, 2))
        assert words(explorer) == ""

    in_a_loop(scenario)


def test_a_sampler_that_has_been_run_already_is_told():
    once = Sampler()(1)
    explorer = guidance_explorer(lambda w: once, [0, 1], start=0, still=[0])
    explorer.panel  # noqa: B018
    slide(explorer, 1)
    assert words(explorer).startswith("w = 1: no picture came; a sampler can be run only once")


def test_after_its_loop_has_ended_the_slider_draws_at_once():
    async def build():
        explorer = guidance_explorer(Grey(), [0, 1], start=0, still=[0])
        explorer.panel  # noqa: B018
        return explorer

    explorer = asyncio.run(build())
    slide(explorer, 1)
    assert image(explorer) == explorer.png(1)


# --- DDIM ---------------------------------------------------------------------------------------------------


class Small(torch.nn.Module):
    """A network in name: its ε is x pulled about, and differs from timestep to timestep."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.9))

    def forward(self, x, t):
        return self.weight * x.roll(1, -1) + 0.1 * t.reshape(-1, 1, 1, 1) / 100


@pytest.fixture
def denoiser():
    return Denoiser(Small(), NoiseSchedule.linear(100), shape=(1, 8, 8), name="small")


def test_the_eta_explorer_shows_what_ddim_gives(denoiser):
    explorer = eta_explorer(denoiser, steps=(5, 10), seeds=(3, 4), start=(0.25, 10, 3), zoom=1)
    assert [each["label"] for each in explorer.panel.fields] == ["noise added, η", "steps", "seed of the noise"]
    assert explorer.panel.values == {"eta": 0.25, "steps": 10, "seed": 3}
    assert all(each["live"] for each in explorer.panel.fields)
    x_T = seeded_noise((1, 1, 8, 8), [4])
    expected = last(ddim(denoiser, x_T, denoiser.schedule, steps=5, eta=0.5, seeds=[4])).x
    assert (explorer.picture(0.5, 5, 4) == tile(expected)).all()
    assert "fresh noise" in words(explorer)
    slide(explorer, 0)
    assert "follows from x_T" in words(explorer)
    assert explorer.panel.facts == "DDIM, model “small”, η\u00a0=\u00a00, 10 steps, seed 3"


@pytest.mark.parametrize("explorer", [eta_explorer, alpha_explorer])
def test_the_line_of_code_makes_the_picture_again(explorer, denoiser):
    of_eta = explorer is eta_explorer
    made = explorer(denoiser, **({"steps": (6, 12), "start": (0.0, 12, 0)} if of_eta else {"steps": 6}))
    made.move(**({"eta": 0.35, "steps": 12, "seed": 5} if of_eta else {"alpha": 0.3, "way": "lerp"}))
    names = {"last": last, "ddim": ddim, "seeded_noise": seeded_noise, "lerp": lerp, "denoiser": denoiser}
    again = eval(made.panel.code, names)  # noqa: S307 - it is what the panel says
    assert (made.picture(*made.panel.values.values()) == tile(again)).all()


def test_the_eta_explorers_still_picture_goes_through_eta(denoiser):
    still = eta_explorer(denoiser, start=(0.0, 5, 7), facts={"data": "none"}).still
    assert [text.get_text() for text in still.texts][:5] == [f"η = {eta}" for eta in ("0", "0.25", "0.5", "0.75", "1")]
    assert still.facts == {"sampler": "ddim", "steps": 5, "seed": 7, "weights": "small", "data": "none"}


def test_the_eta_explorer_refuses_what_ddim_cannot_draw_and_needs_no_still_positions(denoiser):
    with pytest.raises(UserError, match="eta is 2"):
        eta_explorer(denoiser, etas=(0, 2.0))
    with pytest.raises(UserError, match="2000"):
        eta_explorer(denoiser, steps=(2, 2000), start=(0.0, 2, 0))
    explorer = eta_explorer(denoiser, start=(0.25, 5, 3), still=[])
    assert explorer.still.to_png()[:4] == b"\x89PNG" and list(explorer.pictures) == [(0.25, 5, 3)]


def test_the_alpha_explorer_goes_along_the_sphere_or_the_line(denoiser):
    explorer = alpha_explorer(denoiser, steps=5, seeds=range(4), start=(0.5, "both", 2, 3), zoom=1)
    names = ["α", "along", "seed at α = 0", "seed at α = 1"]
    assert [each["label"] for each in explorer.panel.fields] == names
    a, b = (seeded_noise((1, 1, 8, 8), [seed]) for seed in (2, 3))
    for way, between in (("slerp", slerp), ("lerp", lerp)):
        expected = last(ddim(denoiser, between(a, b, 0.3), denoiser.schedule, steps=5)).x
        assert (explorer.picture(0.3, way, 2, 3) == tile(expected)).all()
    both = explorer.picture(0.3, "both", 2, 3)
    assert both.shape == (8, 17, 3)
    assert abs(both[:, :8].astype(int) - explorer.picture(0.3, "slerp", 2, 3)).max() <= 1
    assert abs(both[:, 9:].astype(int) - explorer.picture(0.3, "lerp", 2, 3)).max() <= 1
    lengths = [f"{(x.norm() / 8).item():.2f}" for x in (slerp(a, b, 0.5), lerp(a, b, 0.5))]
    assert words(explorer) == f"length of the noise: slerp (left) {lengths[0]} √D, lerp (right) {lengths[1]} √D"
    slide(explorer, "lerp", control=1)
    assert words(explorer) == f"length of the noise: lerp {lengths[1]} √D"


def test_the_alpha_explorers_still_picture_is_a_table(denoiser):
    still = alpha_explorer(denoiser, steps=2, still=(0, 0.5, 1)).still
    labels = ["slerp", "lerp", "α = 0", "α = 0.5", "α = 1"]
    assert sorted(text.get_text() for text in still.texts) == sorted(labels)


def test_alpha_goes_beyond_both_ends_in_the_same_strides(denoiser):
    alphas = alpha_explorer(denoiser, steps=2, alphas=(0, 0.25, 0.5, 0.75, 1), beyond=0.5, still=[0]).controls["alpha"]
    assert alphas.values == [-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]


@pytest.mark.parametrize("explorer", [eta_explorer, alpha_explorer])
def test_a_denoiser_may_be_any_function_whose_schedule_and_size_are_given(explorer, denoiser):
    def plain(x, t):
        return denoiser(x, t)

    with pytest.raises(UserError, match="give schedule="):
        explorer(plain)
    with pytest.raises(UserError, match="give shape="):
        explorer(plain, schedule=denoiser.schedule)
    given = explorer(plain, schedule=denoiser.schedule, shape=(1, 8, 8))
    assert "weights" not in given.still.facts


def test_a_guided_denoiser_knows_its_schedule_and_shape():
    network = Denoiser(
        lambda x, t, c: 0.1 * c.reshape(-1, 1, 1, 1) * x, NoiseSchedule.linear(100), null=2, shape=(1, 8, 8)
    )
    denoise = guided(network, [1], w=1.0)
    expected = last(ddim(denoise, seeded_noise((1, 1, 8, 8), [4]), steps=5)).x
    assert (eta_explorer(denoise, steps=(5,), start=(0, 5, 4)).picture(0, 5, 4) == tile(expected)).all()


def test_words_for_ddim_are_passed_on(denoiser):
    plain, clipped = (
        eta_explorer(denoiser, steps=(5,), start=(0.0, 5, 0), sampling=words) for words in (None, {"clip_x0": 0.1})
    )
    assert (plain.picture(0.0, 5, 0) != clipped.picture(0.0, 5, 0)).any() and clipped.still.facts["clip_x0"] == 0.1


# --- what a draft, a choice, a stop may meet ------------------------------------------------------------


def test_a_choice_that_changes_the_pictures_size_after_a_draft_is_drawn(denoiser):
    explorer = alpha_explorer(denoiser, steps=12)
    explorer.move(alpha=0.55)
    explorer.move(way="slerp")
    assert explorer.panel.state == "done" and image(explorer) == explorer.png(0.55, "slerp", 0, 1)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_drafts_end_where_the_course_does(denoiser, eta):
    explorer, states = eta_explorer(denoiser, sampling={"final_alpha": "first"}), []
    explorer.panel.observe(lambda change: states.append(change.new), names="state")
    explorer.move(eta=eta, seed=3)
    assert states == ["busy", "draft", "done"]


def test_a_draft_that_fails_does_not_take_the_picture_with_it():
    def broken(w):
        raise RuntimeError("no draft today")

    explorer = guidance_explorer(Grey(), draft=broken)
    slide(explorer, 5)
    assert explorer.panel.state == "done" and image(explorer) == explorer.png(5)


def test_a_sampler_without_a_count_shows_nothing_of_its_beginning(every_draft):
    explorer = guidance_explorer(lambda w: Sampler(steps=10)(w)[0], [0, 1], start=0, still=[0])
    pictures = watched(explorer, "picture")
    slide(explorer, 1)
    assert pictures == [explorer.png(1)]


def test_comparing_draws_each_picture_once_and_needs_no_room_for_two():
    grey = Grey()
    explorer = guidance_explorer(grey, still=[2], cache=1)
    explorer.panel.compare = True
    slide(explorer, 5)
    assert explorer.panel.state == "done" and explorer.panel.beside and grey.asked.count(5) == 1
    slide(explorer, 2)
    assert explorer.panel.beside == image(explorer)


def test_stopping_what_was_not_heard_yet_is_heard():
    async def scenario():
        explorer = guidance_explorer(Sampler(), [0, 1], start=0, still=[0])
        explorer.panel.say(values={"w": 1}, moved=1)
        explorer._asked({"do": "stop"})
        await until(lambda: explorer.panel.state == "stopped")
        assert explorer.panel.answered == 1
        explorer.panel.say(values={"w": 0}, moved=2)
        await until(lambda: explorer.panel.state == "done")
        explorer._asked({"do": "stop"})
        await asyncio.sleep(0.05)
        assert explorer.panel.state == "done", "there is nothing to stop"

    in_a_loop(scenario)


def test_what_is_downloaded_is_what_is_seen():
    async def scenario():
        explorer = guidance_explorer(Sampler(), [0, 1], start=0, still=[0])
        explorer.panel.say(values={"w": 1}, moved=1)
        explorer._asked({"do": "stop"})
        await until(lambda: explorer.panel.state == "stopped")
        assert explorer._file()[0] == "w=0.png"

    in_a_loop(scenario)


def test_guidance_of_another_kind_is_no_shipped_model_in_the_line_of_code(denoiser):
    shipped = Denoiser(denoiser.model, denoiser.schedule, shape=denoiser.shape, name="faces")
    assert "load_denoiser('faces')" in eta_explorer(shipped, steps=(5,), start=(0, 5, 0)).panel.code
    own = AutoGuidance(shipped, denoiser, 1.0)
    assert "ddim(denoiser, " in eta_explorer(own, steps=(5,), start=(0, 5, 0)).panel.code
    given = eta_explorer(lambda x, t: x, steps=(5,), start=(0, 5, 0), schedule=denoiser.schedule, shape=(1, 8, 8))
    assert "schedule=schedule" in given.panel.code


def test_mathematics_is_plain_on_the_page():
    explorer = guidance_explorer(Grey(), caption=r"above $x$, below $\hat{x}_0$")
    assert explorer.panel.facts.startswith("above x, below x\u0302₀. ")
    assert explorer.still.caption.startswith(r"above $x$, below $\hat{x}_0$")
