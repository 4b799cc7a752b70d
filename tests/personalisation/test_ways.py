"""Five ways to two concepts, and what is measured of them, on a model of random weights."""

import csv
import json
from functools import partial

import measure_personalisation
import pytest
import torch
from PIL import Image
from small_concepts import custom
from small_worlds import write_small_world

from dlcv_diffusion import UserError, dpm_solver, last, seeded_noise
from dlcv_diffusion.composition import composed, halves
from dlcv_diffusion.emoji.concepts import true_pictures
from dlcv_diffusion.emoji.judge import load_judge
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.models.text_to_image import draw, load_text_to_image
from dlcv_diffusion.personalisation import add_token, load_concepts, shipped
from dlcv_diffusion.personalisation.concepts import write_embedding
from dlcv_diffusion.personalisation.measure import markdown, measure, shows
from dlcv_diffusion.personalisation.report import leak_figure, shipped_study, write_personalisation_figures
from dlcv_diffusion.personalisation.ways import WAYS, StudyFiles, apart, beside, draw_by, in_style
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
    for seed, name in enumerate(("joint", "merged")):
        custom(load(), tmp_path / f"{name}.safetensors", ["<new1>", "<new2>"], seed)
    both = tmp_path / "0.safetensors", tmp_path / "1.safetensors"
    return StudyFiles(both, tmp_path / "joint.safetensors", tmp_path / "merged.safetensors")


def test_what_is_asked_for(world):
    pair, styled = beside(world, "owl", "guitar"), in_style(world, "owl", "woodcut")
    assert (pair.prompt, pair.plain) == ("a <new1> next to a <new2>", "a parrot next to a violin")
    assert pair.apart == ("a <new1> next to a pizza", "a pizza next to a <new2>") and pair.masks
    assert styled.prompt == "a <new1> in the style of <new2>" and not styled.masks
    assert styled.apart == ("a <new1>", "in the style of <new2>")


def test_each_way_is_the_call_by_hand(world, load, learnt):
    """Each loads its own files and draws its own prompt."""
    for wanted in (beside(world, "owl", "guitar"), in_style(world, "owl", "woodcut")):
        files = {"textual inversion": learnt.apart, "Custom Diffusion, joint": (learnt.joint,)}
        files |= {"plain words": (), "Custom Diffusion, merged": (learnt.merged,)}
        found = {way: draw_by(way, load, learnt, wanted, [3], steps=2) for way in WAYS}
        for way, paths in files.items():
            sd = load()
            load_concepts(sd, *paths)
            prompt = wanted.prompt if paths else wanted.plain
            assert torch.equal(found[way], draw(sd, [prompt], [3], scale=3.0, steps=2)), way
        sd = load()
        load_concepts(sd, learnt.joint)
        told = [sd.encode_prompts([sentence]) for sentence in wanted.apart]
        denoise = composed(sd, told, 3.0, masks=halves(16, 16) if wanted.style is None else None)
        z = last(dpm_solver(denoise, seeded_noise((1, *sd.shape), [3]), steps=2)).x
        assert torch.equal(found["composed"], sd.decode(z))
        assert len({picture.numpy().tobytes() for picture in found.values()}) == len(WAYS)
    with pytest.raises(UserError, match="there is no way 'magic'; there are plain words"):
        draw_by("magic", load, learnt, wanted, [3])


def test_composed_halves_are_told_apart(world, load, learnt, tmp_path):
    """What stands in the right half's sentence does not reach the left one within a step."""
    sd = load()
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


@pytest.fixture(scope="module")
def measured(load, tmp_path_factory):
    """What the tool makes in a few steps: three concepts alone by three methods, two tasks by five ways."""
    folder = tmp_path_factory.mktemp("measured")
    work, ship, out = (folder / name for name in ("work", "ship", "rows.json"))
    words = f"--model {load.args[0]} --work {work} --out {out} --assets {ship} --count 8 --steps 2 --sampling-steps 2"
    measure_personalisation.main(words.split())
    return folder, words


def test_the_tool_measures_what_it_learns(measured):
    folder, words = measured
    rows = json.loads((folder / "rows.json").read_text())
    assert len(rows) == 3 * 4 + 2 * 6 and [row["way"] for row in rows[12:18]] == [*WAYS, "true pictures"]
    assert {row["way"]: row["both"] for row in rows[12:18]}["true pictures"] > 0.8
    assert all(row["model"] and row["steps"] == 2 and len(row["scores"]) == 8 for row in rows)
    assert len([*(folder / "work" / "sheets").glob("*.png")]) == 24
    names = ["guitar", "guitar_alone", "owl", "owl_alone", "owl_guitar", "owl_guitar_merged"]
    names += ["owl_woodcut", "owl_woodcut_merged", "woodcut"]
    assert sorted(path.stem for path in (folder / "ship").iterdir()) == names

    before = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.safetensors")}
    again = measure_personalisation.Study(measure_personalisation.parsed(words.split()))
    files = again.both("owl", "guitar")  # what was learnt is there
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.safetensors")}
    assert {*files.apart, files.joint, files.merged} <= set(before)
    other = measure_personalisation.Study(measure_personalisation.parsed([*words.split(), "--steps", "3"]))
    assert other.folder != again.folder, "what was learnt in another way is learnt anew"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--things owl", "give two things or more"),
        ("--things owl fox", "'fox' is not held out; the things to learn are owl"),
        ("--style oil", "there is no style 'oil'"),
    ],
)
def test_what_the_tool_refuses(words, said):
    with pytest.raises(UserError, match=said):
        measure_personalisation.main(words.split())


def test_the_figures_are_of_what_was_measured(load, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "CONCEPTS", measured[0] / "ship")
    rows = shipped.measured_concepts(measured[0] / "rows.json")
    monkeypatch.setattr("dlcv_diffusion.personalisation.report.measured_concepts", lambda: rows)
    paths = write_personalisation_figures(tmp_path, load)
    assert [path.name.removeprefix("personalisation_") for path in paths] == [
        *("beside.png", "style.png", "leak_apart.png", "leak_joint.png", "measured.csv")
    ]
    with Image.open(paths[0]) as picture:
        assert picture.width > 600 and "of 8 pictures the best and the worst 4" in picture.info["Description"]
    table = list(csv.DictReader(paths[-1].open(encoding="utf-8")))
    assert len(table) == 24 and "scores" not in table[0]
    assert float(table[12]["both_low"]) <= float(table[12]["both"]) <= float(table[12]["both_high"])
    with pytest.raises(UserError, match="no study 'owl' ships; there are owl guitar, owl woodcut"):
        shipped_study("owl")
    there = "guitar, guitar alone, owl, owl alone, owl guitar"
    with pytest.raises(UserError, match=f"no concept 'fox' ships; there are {there}"):
        shipped.shipped_concept("fox")


def test_attention_is_that_of_the_words_own_tokens(load):
    """Of a word of two vectors the next one stands a place further on."""
    sd = load()
    vectors = torch.randn(2, sd.table.embedding_dim, generator=torch.Generator().manual_seed(0))
    add_token(sd, "<new1>", vectors)
    add_token(sd, "<new2>", vectors[0])
    ids, known = sd.tokens(["a <new1> next to a <new2>"])[0].tolist(), sd.tokenizer.convert_tokens_to_ids("<new2>")
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlcv_diffusion.personalisation.report.attention_figure", lambda *a, **k: seen.update(words=a[2]))
        leak_figure(sd, "a <new1> next to a <new2>", ["<new1>", "<new2>"], seeds=[0])
    assert seen["words"]["<new2>"] == ids.index(known) == seen["words"]["<new1>"] + 5
    with pytest.raises(UserError, match="'Fox' is no token of the prompt, which is read as a · fox"):
        leak_figure(sd, "a fox", ["Fox"])
