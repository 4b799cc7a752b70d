"""`dlcv personalise`, end to end on the small pipeline, and what it says of words that do not do."""

import shlex

import pytest
from small_concepts import custom, write_concept

from dlcv_diffusion.personalisation import load_concepts, read_concept_file

QUICK = "--steps 2 --batch-size 2 --device cpu --precision no"


@pytest.fixture
def personalise(dlcv, pipeline_folder, tmp_path):
    write_concept(tmp_path / "dog")
    write_concept(tmp_path / "mug", "blue")
    return lambda words: dlcv(f"personalise {words} --model {shlex.quote(str(pipeline_folder))}")


def test_textual_inversion(personalise, pipeline, tmp_path):
    code, said, wrong = personalise(
        f"train --images dog --token <new1> --initialiser fox --vectors 2 --out run {QUICK}"
    )
    assert code == 0, wrong
    assert "trained weights: run/model.safetensors" in said
    assert load_concepts(pipeline, tmp_path / "run") == ["<new1>"]
    assert read_concept_file(tmp_path / "run").vectors["<new1>"].shape == (2, 32)


def test_custom_diffusion_of_two(personalise, tmp_path):
    words = "train --method custom-diffusion --images dog --token <new1> --images mug --token <new2>"
    code, _, wrong = personalise(f"{words} --kind object --kind style --out run {QUICK}")
    assert code == 0, wrong
    assert list(read_concept_file(tmp_path / "run").vectors) == ["<new1>", "<new2>"]


def test_merge(personalise, pipeline, tmp_path):
    for seed, name in enumerate(("a", "b")):
        custom(pipeline, tmp_path / f"{name}.safetensors", [f"<{name}>"], seed)
    code, said, wrong = personalise("merge a.safetensors b.safetensors --out both.safetensors")
    assert (code, said) == (0, "<a>, <b>: both.safetensors\n"), wrong
    assert load_concepts(pipeline, tmp_path / "both.safetensors") == ["<a>", "<b>"]
    (tmp_path / "captions.txt").write_text("a fox\n\nan owl\n")
    code, _, wrong = personalise("merge a.safetensors b.safetensors --out other.safetensors --captions captions.txt")
    assert code == 0, wrong
    one, other = (read_concept_file(tmp_path / f"{name}.safetensors").deltas for name in ("both", "other"))
    assert any((one[name] - other[name]).abs().max() > 1e-3 for name in one)
    (tmp_path / "captions.txt").write_text("\n")
    code, _, wrong = personalise("merge a.safetensors b.safetensors --out other.safetensors --captions captions.txt")
    assert code == 2 and "holds no sentence" in wrong
    code, _, wrong = personalise("merge a.safetensors b.safetensors --out both")
    assert code == 2 and "is no .safetensors file" in wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--images dog --token <new1> --token <new2>", "1 --images and 2 --token; give one for each concept, in order"),
        ("--images dog --images mug --token <new1> --token <new2>", "textual inversion learns one concept at a time"),
        ("--images dog --token <new1> --prior 3", "--prior goes with --method custom-diffusion"),
        ("--images none --token <new1>", "'none' is not there; give a folder of three to six pictures"),
        ("--images dog --token fox", "'fox' is an ordinary word of the vocabulary already"),
        ("--images dog --token <new1> --initialiser foxlike", "is not one token of the vocabulary"),
        ("--images dog --token <new1> --template photo", "the template 'photo' has no {} where the new word goes"),
    ],
)
def test_words_that_do_not_do(personalise, tmp_path, words, said):
    code, _, wrong = personalise(f"train {words} --out run {QUICK}")
    assert code == 2 and said in wrong and wrong.count("\n") == 1, wrong
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there(dlcv, tmp_path):
    write_concept(tmp_path / "dog")
    code, _, wrong = dlcv("personalise train --images dog --token <new1> --model nowhere")
    assert code == 2 and "nowhere" in wrong
