"""The prompt explorer draws what its controls say, as the samplers do, and says what is wrong in a line."""

import pytest
import torch

from dlcv_diffusion import UserError, dpm_solver, guidance_weight, guided, seeded_noise
from dlcv_diffusion.models.text_to_image import as_text_to_image
from dlcv_diffusion.personalisation import add_token, prompt_explorer
from dlcv_diffusion.personalisation.explorer import learnt_words
from dlcv_diffusion.samplers import last


@pytest.fixture
def sd(pipeline):
    sd = as_text_to_image(pipeline)
    add_token(sd, "<new1>", torch.randn(2, 32, generator=torch.Generator().manual_seed(0)))
    add_token(sd, "<new2>", torch.zeros(32))
    return sd


def test_it_draws_what_the_sampler_draws(sd):
    explorer = prompt_explorer(sd, "a <new1>", seed=5, scale=4.0, count=2, steps=3)
    c = sd.encode_prompts(["an owl"]).expand(2, -1, -1)
    noise = seeded_noise((2, *sd.shape), [7, 8])
    z = last(dpm_solver(guided(sd, c, guidance_weight(2.5)), noise, steps=3)).x
    assert torch.equal(explorer.picture("an owl", 7, 2.5), sd.decode(z))


def test_learnt_words_have_buttons_and_several_vectors_are_one_word(sd):
    assert learnt_words(sd) == ["<new1>", "<new2>"]
    panel = prompt_explorer(sd, "a fox", count=1, steps=2).panel
    assert panel.fields[0]["insert"] == ["<new1>", "<new2>"]


def test_controls_move_the_picture_and_back(sd):
    explorer = prompt_explorer(sd, "a fox", count=1, steps=2)
    panel = explorer.panel
    first = panel.picture
    explorer.move(seed=4)
    second = panel.picture
    explorer.move(scale=8.0)
    third = panel.picture
    explorer.move(prompt="a fox <new2>")
    assert len({first, second, third, panel.picture}) == 4
    assert panel.alt == "1 picture of the prompt: a fox <new2>" and panel.line == "read as a · fox · <new2>"
    assert panel.facts.endswith("guidance scale 8, seed 4") and panel.state == "done"
    panel.values = dict(panel.start)
    assert panel.picture == first


def test_a_draft_comes_first(sd):
    explorer, states = prompt_explorer(sd, "a fox", count=1, steps=10), []
    explorer.panel.observe(lambda change: states.append(change.new), names="state")
    explorer.move(seed=4)
    assert states == ["busy", "draft", "done"]


def test_what_is_shown_is_downloaded_and_the_line_of_code_draws_it_again(sd):
    explorer = prompt_explorer(sd, "a fox", count=2, steps=2)
    explorer.move(prompt="an owl", seed=3, scale=2.5)
    assert explorer._file()[1].startswith(b"\x89PNG")
    again = eval(explorer.panel.code, {"explorer": explorer})  # noqa: S307 - it is what the panel says
    assert torch.equal(again, explorer.picture("an owl", 3, 2.5))


def test_what_cannot_be_drawn_is_said_and_nothing_is_lost(sd):
    explorer = prompt_explorer(sd, "a fox", count=1, steps=2)
    before = explorer.panel.picture
    explorer.move(prompt="a fox " * 30)
    assert "shorten it" in explorer.panel.line and explorer.panel.state == "error"
    assert explorer.panel.picture == before
    explorer.move(prompt="")
    assert "the empty prompt" in explorer.panel.line and explorer.panel.state == "done"


def test_the_still_has_a_row_for_each_prompt(sd, monkeypatch):
    explorer = prompt_explorer(sd, "a fox", still=["a fox", "a <new1>"], count=3, steps=2, caption="Two prompts")
    seen = []
    monkeypatch.setattr("dlcv_diffusion.personalisation.explorer.image_grid", lambda *a, **k: seen.append((a, k)))
    explorer.still  # noqa: B018 - drawn when it is first asked for
    (rows,), words = seen[0]
    assert torch.equal(rows, torch.cat([explorer.picture(prompt, 0, 3.0) for prompt in ("a fox", "a <new1>")]))
    assert words["row_labels"] == ["a fox", "a <new1>"] and words["columns"] == 3
    assert words["facts"]["seeds"] == range(3) and words["caption"].startswith("Two prompts. Run this cell")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale": 0.5}, "choose one from 1 to 10"),
        ({"count": 9}, "give 1 to 8"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": 2**32 - 1}, "choose at most"),
        ({"still": "an owl"}, "still is a list of texts"),
        ({"words": "<new1>"}, "words is a list of texts"),
        ({"prompt": "a fox " * 30}, "shorten it"),
    ],
)
def test_what_does_not_do(sd, change, said):
    with pytest.raises(UserError, match=said):
        prompt_explorer(sd, **{"prompt": "a fox", **change})
