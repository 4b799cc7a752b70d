"""Zero-shot classification is open_clip's recipe and transformers' pipeline, from the course's folder to its table."""

import csv
import json
import re

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from small_clips import (  # noqa: F401 – fixtures
    NAMES,
    clip_file,
    course_folder,
    open_clip_name,
    transformers_folder,
)
from small_runs import names, one_thread  # noqa: F401 – for every test here
from transformers import pipeline

from dlcv_diffusion import UserError, zero_shot
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.zero_shot import (
    Pictures,
    class_embeddings,
    classify,
    load_clip,
    load_pictures,
    picture_features,
    scores,
    search,
)
from dlcv_diffusion.zero_shot.pictures import world_pictures

WORDS = [name.replace("_", " ") for name in NAMES]
TEMPLATES = ["A photo of a {}.", "a blurry photo of the {}."]


@pytest.fixture
def course(tmp_path):
    return tmp_path / "clip_zeroshot", course_folder(tmp_path / "clip_zeroshot")


@pytest.fixture
def ours(clip_file):  # noqa: F811
    return load_clip(clip_file, device="cpu")


# --- equal to others' -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES], ids=["one template", "two"])
@pytest.mark.parametrize("kind", ["ours", "by name"])
def test_embeddings_and_logits_are_open_clips_own_recipe(kind, templates, course, clip_file, open_clip_name):  # noqa: F811
    source = (clip_file, None) if kind == "ours" else (open_clip_name[0], str(open_clip_name[1]))
    clip = load_clip(*source, device="cpu")
    model, tokenizer, transform = clip.towers.model, clip.towers.tokenizer, clip.towers.transform
    if kind == "by name":
        model, _, transform = open_clip.create_model_and_transforms(*source)
        tokenizer = open_clip.get_tokenizer(source[0])
        model.eval()
    wanted = open_clip.build_zero_shot_classifier(model, tokenizer, WORDS, templates)
    found = class_embeddings(clip, WORDS, templates)
    assert torch.allclose(found, wanted.T, atol=1e-5)

    folder, arrays = course
    x = torch.stack([transform(Image.fromarray(array)) for array in arrays.values()])
    with torch.no_grad():
        logits = model.logit_scale.exp() * model.encode_image(x, normalize=True) @ wanted
    result = classify(clip, load_pictures(folder), templates=templates, batch_size=4)
    assert result.files == tuple(arrays) and result.classes == tuple(WORDS)
    assert torch.allclose(result.probabilities, logits.softmax(1), atol=1e-5)
    read, true = logits.argmax(1), torch.tensor([int(name.split("_")[0]) for name in arrays])
    assert torch.equal(result.predictions, read) and result.accuracy == (read == true).double().mean()
    assert result.top_k(2) == (logits.topk(2).indices == true[:, None]).any(1).double().mean()


def test_probabilities_are_transformers_pipelines(course, transformers_folder):  # noqa: F811
    folder, arrays = course
    theirs = pipeline("zero-shot-image-classification", str(transformers_folder), device="cpu")
    clip = load_clip(transformers_folder, device="cpu")
    result = classify(clip, load_pictures(folder), templates=["This is a photo of {}."])
    for row, name in enumerate(result.files):
        found = theirs(Image.fromarray(arrays[name]), candidate_labels=WORDS)
        by_name = {each["label"]: each["score"] for each in found}
        assert result.probabilities[row].tolist() == pytest.approx([by_name[word] for word in WORDS], abs=1e-5)
    assert result.probabilities.std(0).max() > 1e-3, "the pictures differ, so something was compared"


def test_eight_lines_by_hand_give_the_same(course, ours):
    folder, arrays = course
    texts = [f"A photo of a {word}." for word in WORDS]
    images = torch.from_numpy(np.stack(list(arrays.values()))).permute(0, 3, 1, 2)
    similar = ours.encode_images(images) @ ours.encode_texts(texts).T
    probabilities = (similar * ours.logit_scale).softmax(1)
    assert torch.allclose(classify(ours, load_pictures(folder)).probabilities, probabilities, atol=1e-6)
    assert torch.allclose(scores(ours, ours(images), ours.encode_texts(texts)), probabilities, atol=1e-6)
    cold = scores(ours, ours(images), ours.encode_texts(texts), temperature=1e-3)
    assert (cold.max(1).values >= probabilities.max(1).values).all()


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_change_nothing_and_hold_few_pictures(course, ours):
    pictures = load_pictures(course[0])
    wanted, opened, done = classify(ours, pictures).probabilities, [], []

    def read(row):
        opened.append(row)
        assert len(opened) - len(done) <= 2 * 4, "two batches at most"
        return pictures.read(row)

    watched = Pictures(pictures.files, pictures.labels, pictures.classes, read)
    encode = ours.encode_prepared
    ours.encode_prepared = lambda x, **how: (done.extend(range(len(x))), encode(x, **how))[1]
    assert torch.allclose(classify(ours, watched, batch_size=4).probabilities, wanted, atol=1e-6)
    assert sorted(opened) == list(range(len(pictures)))


def test_embeddings_are_kept_until_the_model_changes(ours):
    texts = []
    encode = ours.encode_texts
    ours.encode_texts = lambda given, **how: (texts.extend(given), encode(given, **how))[1]
    one = class_embeddings(ours, WORDS)
    assert class_embeddings(ours, WORDS) is one and len(texts) == len(WORDS)
    assert class_embeddings(ours, WORDS, TEMPLATES) is not one and len(texts) == 3 * len(WORDS)
    with torch.no_grad():
        ours.towers.model.text_projection.add_(torch.randn(ours.towers.model.text_projection.shape))
    assert not torch.allclose(class_embeddings(ours, WORDS), one)


def test_a_clip_is_an_encoder(ours):
    from dlcv_diffusion.evaluation.neighbours import nearest_neighbours

    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, distances = nearest_neighbours(images[:2], images, encoder=ours)
    assert rows[:, 0].tolist() == [0, 1] and distances.max() < 1e-6


def test_words_find_the_nearest_pictures(course, ours):
    pictures = load_pictures(course[0])
    (course[0] / "val" / "0_1.png").write_bytes(b"")
    rows, features = picture_features(ours, pictures, batch_size=4)
    assert len(rows) == len(features) == 14 and 1 not in rows
    places, cosines = search(ours, features, ["a fox", "an owl"], k=3)
    similar = ours.encode_texts(["a fox", "an owl"]) @ features.T
    assert torch.equal(places, similar.argsort(1, descending=True)[:, :3])
    assert torch.allclose(cosines, similar.sort(1, descending=True).values[:, :3])
    with pytest.raises(UserError, match="cannot find 15 pictures among 14"):
        search(ours, features, ["a fox"], k=15)


# --- the result -------------------------------------------------------------------------------------------------------


def test_cases_follow_from_the_seed_and_are_what_they_say(course, ours):
    result = classify(ours, load_pictures(course[0]))
    cases = result.cases(right=2, wrong=3, seed=4)
    assert [case.right for case in cases] == [True] * 2 + [False] * 3
    assert cases == result.cases(right=2, wrong=3, seed=4) != result.cases(right=2, wrong=3, seed=5)
    for case in cases:
        row = result.files.index(case.file)
        assert case.true == WORDS[int(case.file.split("_")[0])] and case.predicted == case.top[0][0]
        assert case.top[0][1] == pytest.approx(result.probabilities[row].max().item())
    assert len(result.cases(right=1000, wrong=0)) == round(result.accuracy * result.count)


def test_the_most_confused_are_counted_over_all_pictures(course, ours):
    result = classify(ours, load_pictures(course[0]))
    pairs = zip(result.labels.tolist(), result.predictions.tolist(), strict=True)
    wrong = [(WORDS[true], WORDS[read]) for true, read in pairs if true != read]
    found = result.most_confused(100)
    assert {(true, read): times for true, read, times in found} == {pair: wrong.count(pair) for pair in wrong}
    assert [times for *_, times in found] == sorted((times for *_, times in found), reverse=True)


def test_the_table_of_predictions_names_every_picture(tmp_path, course, ours):
    result = classify(ours, load_pictures(course[0]))
    result.write_csv(tmp_path / "found.csv")
    rows = list(csv.DictReader((tmp_path / "found.csv").open(encoding="utf-8")))
    assert [row["file"] for row in rows] == list(result.files)
    assert np.mean([int(row["right"]) for row in rows]) == pytest.approx(result.accuracy)
    assert float(rows[0]["probability"]) == pytest.approx(result.probabilities[0].max().item(), abs=1e-6)


# --- what is caught ---------------------------------------------------------------------------------------------------


def test_unreadable_pictures_are_named_and_counted_and_the_rest_goes_on(course, ours):
    folder, arrays = course
    whole = classify(ours, load_pictures(folder))
    for name in ("0_0.png", "3_1.png"):
        (folder / "val" / name).write_bytes((folder / "val" / name).read_bytes()[:60])
    result = classify(ours, load_pictures(folder), batch_size=2)
    assert set(result.unreadable) == {"0_0.png", "3_1.png"} and result.count == len(arrays) - 2
    kept = [row for row, name in enumerate(whole.files) if name not in result.unreadable]
    assert torch.allclose(result.probabilities, whole.probabilities[kept], atol=1e-6)
    assert "not read: 2 pictures, such as '0_0.png'" in str(result)
    for path in (folder / "val").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the 15 pictures can be read: .*0_0.png' is not a picture"):
        classify(ours, load_pictures(folder))


@pytest.mark.parametrize(
    ("templates", "said"),
    [(["a photo"], "no place for the name"), ([], "no template"), ([3], "no place for the name")],
)
def test_templates_without_a_place_are_refused(ours, templates, said):
    with pytest.raises(UserError, match=said):
        class_embeddings(ours, WORDS, templates)


def test_classes_that_cannot_be_told_apart_are_refused(course, ours):
    with pytest.raises(UserError, match="two classes are called 'fox'"):
        class_embeddings(ours, ["fox", "owl", "fox"])
    with pytest.raises(UserError, match="one class alone"):
        class_embeddings(ours, ["fox"])
    with pytest.raises(UserError, match="5 classes of pictures, and 2 names"):
        classify(ours, load_pictures(course[0]), ["fox", "owl"])


def test_a_model_that_knows_its_classes_says_which_are_new_to_it(course, ours):
    ours.facts["classes"] = ["fox", "castle", "owl"]
    notes = classify(ours, load_pictures(course[0])).notes
    assert len(notes) == 1 and "2 of the 5 classes are not names of things that 'small' was trained on" in notes[0]


# --- from the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "transformers", "open_clip"])
def test_the_command_line_does_it_all(kind, dlcv, tmp_path, course, clip_file, transformers_folder, open_clip_name):  # noqa: F811
    model = {"ours": f"--model {clip_file}", "transformers": f"--model {transformers_folder}"}.get(
        kind, f"--model {open_clip_name[0]} --pretrained {open_clip_name[1]} --quick-gelu"
    )
    (tmp_path / "templates.txt").write_text("# mine\nA photo of a {object}.\n\na drawing of a {}.\n")
    words = "clip_zeroshot/val clip_zeroshot/id2label.json --templates templates.txt --csv found.csv --device cpu"
    code, out, err = dlcv(f"zero-shot {words} {model} --right 2 --wrong 2")
    assert code == 0, err
    assert "15 pictures, 5 classes, 2 templates" in out and re.search(r"accuracy \d+\.\d\d% \(chance 20\.0%\)", out)
    assert all(word in out for word in WORDS) and "every prediction: found.csv" in out
    assert ("QuickGELU: computed with that" in out) == (kind == "open_clip")
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 16
    pictures = load_pictures(tmp_path / "clip_zeroshot")
    source = open_clip_name if kind == "open_clip" else (clip_file if kind == "ours" else transformers_folder, None)
    clip = load_clip(*source, quick_gelu=True if kind == "open_clip" else None, device="cpu")
    found = classify(clip, pictures, templates=["A photo of a {}.", "a drawing of a {}."])
    assert f"accuracy {found.accuracy:.2%}" in out and found.report_table(2, 2) in out


def test_bad_input_is_one_sentence(dlcv, tmp_path, course, clip_file, monkeypatch):  # noqa: F811
    whole = names(tmp_path)
    monkeypatch.setattr(zero_shot, "classify", lambda *_, **__: pytest.fail("nothing is classified"))
    for words, said in (
        (f"clip_zeroshot --model {clip_file} --csv clip_zeroshot/val", "Is a directory"),
        (f"clip_zeroshot --model {clip_file} --quick-gelu", "does nothing for"),
        ("nowhere id2label.json", "'nowhere' is not there"),
        ("clip_zeroshot/val none.json", "'none.json' is not there"),
        (f"clip_zeroshot --model {clip_file} --templates none.txt", "'none.txt' is not there"),
        ("clip_zeroshot --model ViT-B-32", "a network without weights"),
        (f"clip_zeroshot --model {clip_file} --batch-size 0", "greater than or equal to 1"),
    ):
        code, _, err = dlcv(f"zero-shot {words}")
        assert code == 2 and said in err and err.count("\n") == 1, err
    assert names(tmp_path) == whole


def test_the_shipped_clip_reads_a_folder_of_the_emoji_world(dlcv, tmp_path):
    """The course's layout, `val/{label}_{n}.png`, written here from scenes that nobody trained on."""
    found, _ = world_pictures(load_world(), "unseen", 60, seed=11)
    labels = sorted(set(found.labels.tolist()))
    (tmp_path / "clip_zeroshot" / "val").mkdir(parents=True)
    for row, label in enumerate(found.labels.tolist()):
        found.read(row).save(tmp_path / "clip_zeroshot" / "val" / f"{labels.index(label)}_{row}.png")
    known = {str(number): found.classes[label].replace(" ", "_") for number, label in enumerate(labels)}
    (tmp_path / "clip_zeroshot" / "id2label.json").write_text(json.dumps(known))
    code, out, err = dlcv("zero-shot clip_zeroshot --device cpu --csv found.csv")
    assert code == 0, err
    assert float(re.search(r"accuracy ([\d.]+)%", out)[1]) > 95 and f"{len(labels)} classes" in out
    assert (tmp_path / "found.csv").read_text().count("\n") == 61
    assert load_clip("emoji").notes == () and "note:" not in out
