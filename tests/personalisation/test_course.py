"""The course's input.json to its 25 pictures a prompt, and their grade: end to end on the small pipeline."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from single_files import single_file
from small_concepts import write_concept
from small_pipelines import write_sd1

from dlcv_diffusion import UserError
from dlcv_diffusion.models.text_to_image import load_text_to_image
from dlcv_diffusion.personalisation import read_concept_file
from dlcv_diffusion.personalisation.concepts import write_embedding
from dlcv_diffusion.personalisation.course import picture_name, read_input
from dlcv_diffusion.personalisation.grading import grade_personalisation
from dlcv_diffusion.zero_shot import load_clip

NAMES = "new1", "new2"
ASKED = {
    "0": {
        "src_image": "dog",
        "token_name": "<new1>",
        "prompt": ["a <new1> next to a fox", "a <new1>"],
        "prompt_4_clip_eval": ["a dog next to a fox", "a dog"],
        "baseline": [[79, 34], [-100, -100]],
    },
    "1": {
        "src_image": "painter",
        "token_name": "<new2>",
        "prompt": ["a fox in the style of <new2>"],
        "prompt_4_clip_eval": ["a fox"],
        "baseline": [[-100.0, -100.0]],
    },
}


@pytest.fixture
def input_json(tmp_path):
    path = tmp_path / "input.json"
    path.write_text(json.dumps(ASKED))
    for concept, colour in (("0", "red"), ("1", "blue")):
        write_concept(tmp_path / concept, colour)
    for name in NAMES:
        vectors = torch.randn(1, 32, generator=torch.Generator().manual_seed(len(name) + 2))
        write_embedding(tmp_path / f"{name}.safetensors", f"<{name}>", vectors)
    return path


@pytest.fixture
def sample(dlcv, pipeline_folder, input_json):
    def run(model=pipeline_folder, learnt=("new1", "new2"), more=""):
        given = " ".join(f"--embeddings {name}.safetensors" for name in learnt)
        return dlcv(f"personalise sample input.json out {given} --model {model} --steps 2 --device cpu {more}")

    return run


def test_the_pictures_and_their_grade(sample, dlcv, tmp_path):
    code, said, wrong = sample()
    assert code == 0, wrong
    assert said == "75 pictures: out/0/0/source0_prompt0_0.png … source1_prompt0_24.png\n"
    wanted = {picture_name(c, p, i) for c, p in (("0", 0), ("0", 1), ("1", 0)) for i in range(25)}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == wanted
    opened = [Image.open(tmp_path / "out" / name) for name in sorted(wanted)]
    assert {picture.size for picture in opened} == {(32, 32)} and len({p.tobytes() for p in opened}) == 75
    code, said, _ = dlcv("grade personalisation input.json . out")
    assert code == 1 and said.count("FAIL") == 1 and said.count("PASS") == 2
    assert "2 of 3 prompts pass, read by clip-small" in said and "another CLIP gives other scores" in said


def test_on_a_folder_in_the_layout_of_stable_diffusion_1(sample, tmp_path):
    write_sd1(tmp_path / "sd1")
    code, said, wrong = sample("sd1", more="--count 2")
    assert code == 0, wrong
    assert said.startswith("6 pictures")
    assert Image.open(tmp_path / "out" / picture_name("1", 0, 1)).size == (64, 64)


def test_on_a_single_file_in_the_original_layout(sample, dlcv, tmp_path):
    """Trained, sampled and graded on a `.ckpt`, whose configs and tokenizer a folder of the same sizes gives."""
    sd = load_text_to_image(write_sd1(tmp_path / "sd1"), "cpu")
    torch.save({"state_dict": single_file(sd.unet, sd.autoencoder, sd.text_encoder)}, tmp_path / "sd.ckpt")
    words = "--images 0 --token <new1> --initialiser fox --out run --steps 1 --batch-size 1 --precision no --device cpu"
    code, _, wrong = dlcv(f"personalise train {words} --model sd.ckpt --config sd1")
    assert code == 0, wrong
    (tmp_path / "new1.safetensors").unlink()
    (tmp_path / "run" / "model.safetensors").rename(tmp_path / "new1.safetensors")
    code, said, wrong = sample("sd.ckpt", more="--count 2 --config sd1")
    assert code == 0 and said.startswith("6 pictures"), wrong
    code, said, _ = dlcv("grade personalisation input.json . out --count 2")
    assert code == 1 and "2 of 3 prompts pass" in said


def test_the_scores_are_the_formula(tmp_path, input_json):
    """Pictures of the concept itself among noise: the best five, and their means, computed without the library."""
    generator, clip = torch.Generator().manual_seed(0), load_clip("emoji")
    for concept, each in ASKED.items():
        for p in range(len(each["prompt"])):
            for i in range(7):
                pixels = torch.randint(256, (64, 64, 3), generator=generator, dtype=torch.uint8)
                picture = Image.open(tmp_path / concept / "0.png") if i in (1, 4) else Image.fromarray(pixels.numpy())
                path = tmp_path / "out" / picture_name(concept, p, i)
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    grade = grade_personalisation(input_json, tmp_path, tmp_path / "out", clip, count=7)
    drawn = [Image.open(tmp_path / "out" / picture_name("0", 0, i)) for i in range(7)]
    given = [Image.open(tmp_path / "0" / f"{i}.png") for i in range(4)]
    x, y, text = clip.encode_images(drawn), clip.encode_images(given), clip.encode_texts(["a dog next to a fox"])
    image, words = 100 * (x @ y.T).mean(1), 100 * (x @ text.T)[:, 0]
    best = (image + 2.5 * words).argsort(descending=True)[:5]
    first = grade.prompts[0]
    assert first.best == tuple(best.tolist())
    assert (first.image, first.text) == pytest.approx((image[best].mean().item(), words[best].mean().item()), abs=1e-3)
    assert not first.passed and grade.prompts[1].passed and not grade.passed


def test_a_file_that_calls_its_word_otherwise(sample, tmp_path):
    assert sample(more="--count 2")[0] == 0
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    assert len(pictures) == 6
    found = read_concept_file(tmp_path / "new1.safetensors").vectors["<new1>"]
    torch.save({"string_to_param": {"*": found}, "name": "mine"}, tmp_path / "mine.pt")  # as AUTOMATIC1111 writes it
    (tmp_path / "new1.safetensors").unlink()
    code, _, wrong = sample(learnt=("new2",), more="--embeddings <new1>=mine.pt --count 2")
    assert code == 0, wrong
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")} == pictures


def test_words_of_one_file_by_their_names(sample, tmp_path):
    found = {f"<{name}>": read_concept_file(tmp_path / f"{name}.safetensors").vectors[f"<{name}>"] for name in NAMES}
    torch.save(found, tmp_path / "two.bin")
    code, _, wrong = sample(learnt=(), more="--embeddings <new1>=two.bin --embeddings <new2>=two.bin --count 1")
    assert code == 0, wrong
    code, _, wrong = sample(learnt=("new1",), more="--embeddings <new1>=two.bin")
    assert code == 2 and "two of the files hold the token '<new1>'; load one of them by another name" in wrong


def test_the_guidance_scale_is_the_models(dlcv, input_json, monkeypatch, pipeline_folder):
    monkeypatch.setattr("dlcv_diffusion.personalisation.load_concepts", lambda *paths: None)
    scales = []

    def write(sd, asked, out, *, scale, **rest):
        scales.append(scale)
        return [Path("0.png")]

    monkeypatch.setattr("dlcv_diffusion.personalisation.course.write_hw2_personalisation", write)
    for model, more in (("emoji", ""), (pipeline_folder, ""), ("emoji", "--scale 1.5")):
        code, _, wrong = dlcv(f"personalise sample input.json out --embeddings a --model {model} --device cpu {more}")
        assert code == 0, wrong
    assert scales == [3.0, 6.0, 1.5]


def test_a_token_that_was_not_loaded(sample):
    code, _, wrong = sample(learnt=("new1",))
    assert code == 2 and "does not know <new2>; load what `dlcv personalise train` wrote" in wrong


def test_a_word_that_only_a_prompt_has(sample, input_json):
    """The course's prompts with both words are there for one concept, whose own token is loaded."""
    asked = {"0": {**ASKED["0"], "prompt": ["a <new1> next to a <new2>", "a <new1>"]}}
    input_json.write_text(json.dumps(asked))
    code, _, wrong = sample(learnt=("new1",))
    assert code == 2 and "does not know <new2>" in wrong


def test_a_picture_that_is_missing(sample, dlcv, tmp_path):
    assert sample(more="--count 3")[0] == 0
    code, _, wrong = dlcv("grade personalisation input.json . out")
    assert code == 2 and "lacks '0/0/source0_prompt0_3.png' and 21 more" in wrong
    code, _, wrong = dlcv("grade personalisation input.json . out --count 2")
    assert code == 2 and "holds '0/0/source0_prompt0_2.png', which does not belong there" in wrong
    (tmp_path / "0" / "0.png").write_bytes(b"no picture")
    code, _, wrong = dlcv("grade personalisation input.json . out --count 3")
    assert code == 2 and "0.png' is not a picture" in wrong


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": ["a fox", "a <new1>"]}, "the prompt 'a fox' lacks the token <new1>"),
        ({"baseline": [[1, 2]]}, "has for the concept 0 2 prompts, 2 of prompt_4_clip_eval and 1 baselines"),
        ({"baseline": [[1], [2]]}, "baseline"),
        ({"prompt": []}, "prompt"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_another_input(tmp_path, change, said):
    path = tmp_path / "input.json"
    path.write_text(json.dumps({"0": {**ASKED["0"], **change}}))
    with pytest.raises(UserError, match=said):
        read_input(path)


def test_only_grading_needs_more_than_prompts(tmp_path):
    path = tmp_path / "input.json"
    path.write_text(json.dumps({"0": {name: ASKED["0"][name] for name in ("token_name", "prompt")}}))
    assert read_input(path)["0"].prompt == ASKED["0"]["prompt"]
    with pytest.raises(UserError, match="2 prompts, 0 of prompt_4_clip_eval and 0 baselines; there must be as many"):
        read_input(path, graded=True)


def test_no_json(tmp_path):
    (tmp_path / "input.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_input(tmp_path / "input.json")
    with pytest.raises(UserError, match="is not there"):
        read_input(tmp_path / "other.json")
    for name in ("../0", "..", ".", "0/1", ""):
        (tmp_path / "input.json").write_text(json.dumps({name: ASKED["0"]}))
        with pytest.raises(UserError, match="input.json"):
            read_input(tmp_path / "input.json")
