"""The judge reads what is asked for in its place; the judge that ships reads true scenes."""

import pytest
import torch

from dlcv_diffusion import UserError
from dlcv_diffusion.emoji.concepts import concept_scenes, rendered, true_pictures, write_concept
from dlcv_diffusion.emoji.judge import GROUNDS, JudgeConfig, build_judge, ground_of, load_judge, save_judge
from dlcv_diffusion.emoji.splits import pictures
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.images.folders import picture_names
from dlcv_diffusion.personalisation.pictures import read_captions_of, read_concept


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def small():
    return build_judge(JudgeConfig(["fox", "owl", "guitar"], ["neon"], layers=(1, 1, 1, 1), width=4)).eval()


def test_the_grounds_colour_is_read(world):
    images, shown = pictures(world, "everything", 300, 5, kinds={"white": 0.3, "colour": 0.4, "pair": 0.3})
    found = [list(GROUNDS)[place] for place in ground_of(images)]
    right = [name == (scene.background or "white") for name, scene in zip(found, shown, strict=True)]
    assert sum(right) >= 297


def test_a_file_holds_all_of_it(small, tmp_path):
    small.metadata = {"right": {"things": 0.5}}
    save_judge(small, tmp_path / "judge.safetensors")
    again = load_judge(tmp_path / "judge.safetensors")
    images = torch.randint(256, (6, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert again.metadata == small.metadata and again.styles == ["neon", "plain"]
    torch.testing.assert_close(again.encode(images), small.encode(images), atol=0.05, rtol=0.05)  # half precision


def test_two_things_have_to_be_in_their_places(world, small):
    """A reading by hand: what is left and right counts, and not what is there in all."""
    _, (scene,) = true_pictures(world, ["owl", "guitar"], 1)
    image = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    with torch.no_grad():
        for layer in (small.thing, small.style, small.pair):
            layer.weight.zero_()
            layer.bias.zero_()
        small.style.bias[1] = 1.0
        small.pair.bias[0] = 1.0  # one thing
        small.thing.bias[1] = 1.0  # owls everywhere
    assert small.right(image, [scene])["things"].tolist() == [False]
    _, (alone,) = true_pictures(world, ["owl"], 1)
    found = small.right(image, [alone])
    assert {name: part.tolist() for name, part in found.items()} == {
        **{"things": [True], "style": [True], "ground": [True]},
        "all": [True],
    }
    with pytest.raises(UserError, match="the judge knows no 'tiger'"):
        small.right(image, true_pictures(world, ["tiger"], 1)[1])
    with pytest.raises(UserError, match="1 pictures and 2 scenes"):
        small.right(image, [alone, alone])


def test_a_pair_is_neither_of_its_things_alone(world):
    judge = load_judge()
    images, pairs = true_pictures(world, ["owl", "guitar"], 20)
    assert judge.right(images, pairs)["all"].float().mean() > 0.9
    for thing in ("owl", "guitar"):
        alone = true_pictures(world, [thing], 20)
        assert judge.right(images, alone[1])["things"].sum() == 0
        assert judge.right(alone[0], pairs)["things"].sum() == 0


def test_reading_leaves_the_judge_as_it_was():
    judge = build_judge(JudgeConfig(["fox"], ["neon"], layers=(1, 1, 1, 1), width=4))
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    judge.read(torch.zeros(4, 3, 64, 64, dtype=torch.uint8))
    assert judge.training and all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())


def test_the_judge_that_ships_reads_true_scenes(world):
    judge = load_judge()
    images, shown = pictures(world, "everything", 200, 77)
    found = {name: part.float().mean().item() for name, part in judge.right(images, shown).items()}
    assert found["things"] >= 0.95 and found["style"] >= 0.97
    assert judge.metadata["right"]["things"] >= 0.97
    for name in world.held_out_things:
        images, shown = true_pictures(world, [name], 10)
        assert judge.right(images, shown)["things"].float().mean() >= 0.8, name


def test_a_concepts_pictures(world, tmp_path):
    folder = write_concept(world, "owl", tmp_path / "owl")
    assert picture_names(folder) == [f"{n}.png" for n in range(5)]
    assert torch.equal(read_concept(folder, 64), rendered(world, concept_scenes(world, "owl")))
    scenes, said = concept_scenes(world, "owl"), read_captions_of(folder, "<new1>")
    for scene, sentences in zip(scenes, said, strict=True):
        grounds = [f"a <new1> on a {scene.background} background"] if scene.background else []
        assert sentences[:1] == grounds, "a coloured ground is said, or it would be learnt as a part of the owl"
    own = {scene.seed for scene in scenes}
    assert own.isdisjoint(scene.seed for scene in true_pictures(world, ["owl"], 50)[1])
    styled = concept_scenes(world, world.held_out_style)
    assert len({scene.things for scene in styled}) == 5 and not any(world.is_held_out(s.things) for s in styled)
    with pytest.raises(UserError, match="no thing 'ovl'; did you mean owl"):
        concept_scenes(world, "ovl")


def test_what_a_model_draws_is_measured_as_it_is(world, monkeypatch, tmp_path):
    """A "model" that draws true pictures of what it is asked for, but foxes for every pair."""
    from dlcv_diffusion.emoji import drawn
    from dlcv_diffusion.emoji.scenes import render

    told = {}

    def of(world, question, count, seed):
        scenes, said = asked(world, question, count, seed)
        told[tuple(said)] = scenes
        return scenes, said

    def cheat(sd, prompts, seeds, **how):
        scenes = told[tuple(prompts)]
        fox = rendered(world, concept_scenes(world, "fox", 1))[0]
        return torch.stack([fox if len(scene.things) == 2 else render(world, scene) for scene in scenes])

    asked = drawn.asked
    monkeypatch.setattr(drawn, "asked", of)
    monkeypatch.setattr(drawn, "draw", cheat)
    rows, images = drawn.measure_drawn(None, load_judge(), world, 20)
    found = {row["question"]: row["all"] for row in rows}
    assert min(found[name] for name in ("alone on white", "on a colour", "in a style")) >= 0.9
    assert found["next to another"] <= 0.1 and found["held-out pairs of thing and style"] >= 0.9
    assert drawn.sheet_order(images, 4).shape == (20, 3, 64, 64)
    held_out = {(scene.things[0], scene.style) for scene in asked(world, "held-out pairs of thing and style", 30)[0]}
    assert held_out <= world.held_out_pairs
