"""Five ways to two concepts, and what is measured of them, on a model of random weights."""

import json
from functools import partial

import measure_personalisation
import pytest
import torch
from small_worlds import write_small_world

from dlcv_diffusion import UserError
from dlcv_diffusion.emoji.concepts import true_pictures
from dlcv_diffusion.emoji.judge import load_judge
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.models.text_to_image import draw, load_text_to_image
from dlcv_diffusion.personalisation.concepts import write_embedding
from dlcv_diffusion.personalisation.measure import markdown, measure, shows
from dlcv_diffusion.personalisation.ways import WAYS, Learnt, beside, draw_by, in_style
from dlcv_diffusion.zero_shot import load_clip


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    return partial(load_text_to_image, write_small_world(tmp_path_factory.mktemp("world")), "cpu")


@pytest.fixture
def learnt(tmp_path, load):
    width = load().table.embedding_dim
    for seed, token in enumerate(("<new1>", "<new2>")):
        vectors = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
        write_embedding(tmp_path / f"{seed}.safetensors", token, vectors)
    both = tmp_path / "0.safetensors", tmp_path / "1.safetensors"
    return Learnt(both, both[0], both[0])


def test_what_is_asked_for(world):
    pair, styled = beside(world, "owl", "guitar"), in_style(world, "owl", "woodcut")
    assert (pair.prompt, pair.plain) == ("a <new1> next to a <new2>", "a parrot next to a violin")
    assert pair.apart == ("a <new1> next to a pizza", "a pizza next to a <new2>") and pair.masks
    assert styled.prompt == "a <new1> in the style of <new2>" and not styled.masks
    assert styled.apart == ("a <new1>", "in the style of <new2>")


def test_each_way_draws_its_own_prompt(world, load, learnt):
    """As the calls by hand: with the vectors, with the plain words, and half by half."""
    pair = beside(world, "owl", "guitar")
    drawn = draw_by("plain words", load, learnt, pair, [3], steps=2)
    assert torch.equal(drawn, draw(load(), [pair.plain], [3], scale=3.0, steps=2))
    assert not torch.equal(drawn, draw_by("textual inversion", load, learnt, pair, [3], steps=2))
    with pytest.raises(UserError, match="there is no way 'magic'; there are plain words"):
        draw_by("magic", load, learnt, pair, [3])


def test_composed_halves_are_told_apart(world, load, learnt, tmp_path):
    """What stands in the right half's sentence does not reach the left one within a step."""
    sd = load()
    from dlcv_diffusion.personalisation import load_concepts
    from dlcv_diffusion.personalisation.ways import apart

    load_concepts(sd, *learnt.apart)
    pair, x, t = beside(world, "owl", "guitar"), torch.randn(1, *sd.shape), torch.tensor([500])
    other = beside(world, "owl", "guitar", tokens=("<new1>", "<new1>"))
    one, two = (apart(sd, each, 3.0)(slice(0, 1))(x, t) for each in (pair, other))
    assert torch.equal(one[..., :7], two[..., :7]) and not torch.allclose(one[..., 9:], two[..., 9:])


def test_true_pictures_measure_as_true(world):
    judge, clip = load_judge(), load_clip("emoji")
    for wanted in (beside(world, "owl", "guitar"), in_style(world, "owl", "woodcut")):
        truth, _ = true_pictures(world, list(wanted.things), 40, style=wanted.style)
        others, _ = true_pictures(world, list(wanted.things), 40, style=wanted.style, seed=5_000)
        wrong, _ = true_pictures(world, ["fox", "pizza"], 40)
        row, bad = (measure(judge, clip, images, truth, wanted) for images in (others, wrong))
        assert row["both"] > 0.9 > 0.1 > bad["both"] and row["image"] > bad["image"]
        assert abs(row["distance"]) < bad["distance"] / 10
        low, high = row["both_interval"]
        assert low < row["both"] <= high and len(row["scores"]) == 40
        assert json.loads(json.dumps(row))["count"] == 40
    assert shows(judge, truth, wanted)["both"].dtype == torch.bool
    assert markdown([{**row, "wanted": "a", "way": "b"}]).count("\n") == 2


def test_the_tool_measures_what_it_learns(load, tmp_path, capsys):
    """All of it in a few steps: three concepts alone by three methods, two tasks by five ways."""
    work, ship, out = (tmp_path / name for name in ("work", "ship", "rows.json"))
    words = f"--model {load.args[0]} --work {work} --out {out} --assets {ship} --count 2 --steps 2"
    measure_personalisation.main(words.split())
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 3 * 3 + 2 * 5 and [row["way"] for row in rows[9:14]] == list(WAYS)
    assert "| owl, guitar | composed |" in capsys.readouterr().out
    assert len([*(tmp_path / "work" / "sheets").glob("*.png")]) == 19
    shipped = ["guitar", "owl", "owl_guitar", "owl_guitar_merged", "owl_woodcut", "owl_woodcut_merged", "woodcut"]
    assert sorted(path.stem for path in (tmp_path / "ship").iterdir()) == shipped
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    args = measure_personalisation.parsed(words.split())
    learnt = measure_personalisation.Study(args).both(("owl", "guitar"))  # what was learnt is there
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.safetensors")}
    assert {*learnt.apart, learnt.joint, learnt.merged} <= set(before)
