"""The judge, reports of digits, and the course's grading on real folders."""

import json
import math
import sys
from collections import Counter

import pytest
import torch
from PIL import Image

from dlcv_diffusion import UserError
from dlcv_diffusion.digits.data import load_digits
from dlcv_diffusion.digits.evaluation import against_held_out, evaluate_digits, judge_accuracy
from dlcv_diffusion.digits.grading import CourseLeNet, grade_digits, load_course_classifier
from dlcv_diffusion.digits.judge import JUDGE, DigitClassifier, Judge, JudgeConfig, load_judge, save_judge
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.models import UNet, save_model
from dlcv_diffusion.models.registry import read_tensors, write_tensors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sample() -> ImageArrays:
    """The held-out images of the embedded sample: 40 of each class, which the judge has never seen."""
    return load_digits("sample", split="held_out")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


# --- beside held-out images -------------------------------------------------------------------------------------------


class Reference:
    """A judge whose real features are known: digit d lies around (5 d, 0, …), spread 1."""

    def __init__(self, dim=16):
        around = torch.zeros(10, 1, dim)
        around[:, 0, 0] = 5 * torch.arange(10.0)
        self.reference = (around + torch.randn(2, 10, 100, dim, generator=generator(5))).half()

    def features(self, digits, spread=1.0, seed=6):
        f = spread * torch.randn(len(digits), self.reference.shape[-1], generator=generator(seed))
        f[:, 0] += 5 * digits
        return f


def test_real_features_are_as_real_as_others():
    real, digits = Reference(), torch.arange(10).repeat_interleave(50)
    found = against_held_out(real.features(digits), digits, 1, real)
    assert 0.85 < found.frechet_ratio < 1.15
    assert found.recall == pytest.approx(found.recall_real, abs=0.05) and found.recall > 0.5


def test_lost_variety_and_wrong_digits_are_seen():
    real, digits = Reference(), torch.arange(10).repeat_interleave(50)
    alike = against_held_out(real.features(digits, spread=0.4), digits, 0, real)
    assert alike.frechet_ratio > 2 and alike.recall < 0.2 * alike.recall_real
    collapsed = against_held_out(real.features(torch.full_like(digits, 3)), digits, 0, real)
    assert collapsed.frechet_ratio > 10


def test_real_images_are_drawn_with_the_labels_of_the_samples():
    """Samples of two digits are compared with real images of those two, and are no worse for it."""
    real, digits = Reference(), torch.tensor([2, 7]).repeat_interleave(60)
    assert 0.8 < against_held_out(real.features(digits), digits, 0, real).frechet_ratio < 1.2


def test_a_handful_is_not_compared():
    real, digits = Reference(), torch.arange(10)
    found = against_held_out(real.features(digits), digits, 0, real)
    assert all(math.isnan(value) for value in vars(found).values())


# --- the judge ------------------------------------------------------------------------------------------------------


def test_judge_is_small_and_good(judge):
    assert JUDGE.stat().st_size <= 500_000
    assert all(sum(p.numel() for p in half.parameters()) <= 120_000 for half in judge.halves)
    assert judge.metadata["accuracy"]["mnistm"] >= 0.99
    assert judge.metadata["accuracy"]["svhn"] >= 0.97


def test_judge_reads_images_it_has_never_seen(sample, judge):
    """Other photographs, other handwriting and other fonts than it was trained on."""
    found = judge_accuracy(sample.images, sample.labels, judge)
    assert found["mnistm"].count == found["svhn"].count == 400
    assert found["mnistm"].accuracy >= 0.97 and found["svhn"].accuracy >= 0.96


def test_judge_features_are_normalised_and_independent_of_the_batch(sample, judge):
    images = sample.images[:50]
    digits, features = judge.read(images, half=0)
    singly = [judge.read(part, half=0) for part in images.split(7)]
    assert torch.equal(digits, torch.cat([again for again, _ in singly]))
    torch.testing.assert_close(features, torch.cat([again for _, again in singly]), atol=1e-4, rtol=1e-4)
    assert torch.equal(judge.halves[0].encode(images), features)
    torch.testing.assert_close(features.mean(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(1, correction=0), torch.ones(50), atol=1e-3, rtol=0)


def test_accuracy_and_confusion_of_wrong_labels(sample, judge):
    """Ask for 3 where there is 5: the confusion matrix says so."""
    rows = sample.labels == 15
    found = judge_accuracy(sample.images[rows], torch.full((40,), 13), judge)
    assert list(found) == ["svhn"]
    half = found["svhn"]
    assert half.confusion[3][5] >= 36 and half.accuracy <= 0.1
    assert half.per_class[3] == pytest.approx(half.accuracy)
    assert math.isnan(half.per_class[0]) and sum(map(sum, half.confusion)) == 40


SMALL = JudgeConfig(channels=(4, 8, 16), blocks=1, feature_dim=12)


def test_judge_comes_back_from_disk(tmp_path):
    judge = Judge(SMALL, references=4).eval()
    judge.reference.normal_(generator=generator())
    judge.metadata = {"accuracy": {"mnistm": 0.5}}
    save_judge(judge, tmp_path / "judge.safetensors")
    again = load_judge(tmp_path / "judge.safetensors")
    images = torch.randint(256, (6, 3, 28, 28), generator=generator(), dtype=torch.uint8)
    torch.testing.assert_close(judge.read(images, 1)[1], again.read(images, 1)[1], atol=0.02, rtol=0.02)
    torch.testing.assert_close(judge.reference, again.reference, atol=1 / 32, rtol=0)  # stored in steps of 1/16
    assert again.metadata == judge.metadata and again.config == SMALL and not again.training


def test_a_judge_that_is_not_finite_is_neither_saved_nor_loaded(tmp_path):
    path, judge = tmp_path / "judge.safetensors", Judge(SMALL, references=4)
    save_judge(judge, path)
    before = path.read_bytes()
    for value in (math.nan, 1e6):  # the latter is infinite in float16
        with torch.no_grad():
            judge.halves[1].head.bias[3] = value
        with pytest.raises(UserError, match="halves.1.head.bias hold NaN or infinite"):
            save_judge(judge, path)
    assert path.read_bytes() == before
    tensors, header = read_tensors(path)
    tensors["halves.0.head.weight"][0, 0] = math.nan
    write_tensors(path, tensors, header)
    with pytest.raises(UserError, match="judge.safetensors' are not finite: 'halves.0.head.weight'"):
        load_judge(path)


def test_a_judge_whose_features_are_not_finite_says_so(sample):
    judge = Judge(SMALL, references=4).eval()
    for _, variance in judge.named_buffers():
        variance.fill_(-1)  # finite, but its root is not
    with pytest.raises(UserError, match="features hold NaN or infinite"):
        judge_accuracy(sample.images[:3], sample.labels[:3], judge)


CRAFTED = {
    "judge": ["{}", [], 3, None, {"channels": "abc"}, {"channels": [16, 32]}, {"channels": [0, 1, 2]}, {"wings": 2}]
    + [{"channels": [10**9] * 3}, {"channels": [-1] * 3}, {"blocks": 10**7}, {"blocks": -1}, {"feature_dim": 1e300}]
    + [{"feature_dim": None}, {"channels": {"a": 1}}],
    "references": [0, -1, 10**12, "many", None, [], 2.5, 5],
    "metadata": [[], "text", None, 3],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in CRAFTED.items() for value in values])
def test_crafted_headers_are_told_in_a_sentence(tmp_path, name, value):
    path = tmp_path / "judge.safetensors"
    save_judge(Judge(SMALL, references=4), path)
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, {**header, name: value})
    with pytest.raises(UserError, match="judge.safetensors") as raised:
        load_judge(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["reference", "halves.1.head.bias"])
def test_a_judge_with_a_part_missing(tmp_path, name):
    path = tmp_path / "judge.safetensors"
    save_judge(Judge(SMALL, references=4), path)
    tensors, header = read_tensors(path)
    write_tensors(path, {k: v for k, v in tensors.items() if k != name}, header)
    with pytest.raises(UserError, match="are not those of this Judge"):
        load_judge(path)


def test_judge_file_of_something_else(tmp_path):
    save_model(UNet(channels=(8, 16), blocks=1, num_classes=20), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="holds no digit judge"):
        load_judge(tmp_path / "model.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(JUDGE.read_bytes()[:5000])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_judge(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 28, 28), torch.zeros(2, 3, 32, 32).byte(), torch.zeros(0).byte()])
def test_judge_refuses_other_images(images, judge):
    with pytest.raises(UserError, match="uint8"):
        judge.read(images, half=0)


@pytest.mark.parametrize("labels", [[0], [0, 20], [-1, 0], [0.5, 1.0], ["0", "1"]])
def test_labels_that_do_not_fit(labels, judge):
    with pytest.raises(UserError, match="whole numbers from 0 to 19"):
        judge_accuracy(torch.zeros(2, 3, 28, 28, dtype=torch.uint8), labels, judge)


# --- all at once ----------------------------------------------------------------------------------------------------


def test_report_of_real_images(sample, judge):
    """Real images read well, lie near to real images, and the report says so in a table and in strict JSON."""
    training = load_digits("sample", split="train")
    report = evaluate_digits(
        sample.images,
        sample.labels,
        judge=judge,
        training=(training.images, training.labels),
        held_out=(sample.images[::4], sample.labels[::4]),
    )
    assert set(report.halves) == {"mnistm", "svhn"} and report.accuracy >= 0.965
    for half in report.halves.values():
        assert half.frechet_ratio < 5
        assert half.nearest.smallest > 5 and half.nearest.median == pytest.approx(half.nearest.real_median, rel=0.2)
    table = str(report)
    assert "nearest training image, mnistm: " in table
    assert "street" not in table, "nobody said what is in svhn/"
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["svhn"]["count"] == 400
    assert all(half.recall == pytest.approx(half.recall_real, abs=0.1) for half in report.halves.values())


def test_report_sees_what_the_accuracy_does_not(sample, judge):
    """One image of each digit over and over: read as well as ever, but far from real variety."""
    rows = (sample.labels < 10).nonzero().flatten()
    right = rows[judge.read(sample.images[rows], 0)[0] == sample.labels[rows]]
    first = torch.stack([right[sample.labels[right] == digit][0] for digit in range(10)]).repeat_interleave(40)
    varied = evaluate_digits(sample.images[rows], sample.labels[rows], judge=judge).halves["mnistm"]
    same = evaluate_digits(sample.images[first], sample.labels[first], judge=judge).halves["mnistm"]
    assert same.accuracy == 1
    assert same.frechet_ratio > 3 * varied.frechet_ratio and same.recall < 0.1 < varied.recall


def test_report_of_a_few_images_of_one_half(sample, judge):
    report = evaluate_digits(sample.images[:5], sample.labels[:5], judge=judge)
    assert list(report.halves) == ["mnistm"] and "–" in str(report)


# --- the course's grading -------------------------------------------------------------------------------------------


def write_folder(folder, images, labels, per_digit=3):
    """The course's layout from the first images of each class."""
    counts = Counter()
    for image, label in zip(images, labels.tolist(), strict=True):
        counts[label] += 1
        if counts[label] <= per_digit:
            path = folder / ("mnistm", "svhn")[label // 10] / f"{label % 10}_{counts[label]:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


@pytest.fixture
def folder(tmp_path, sample):
    return write_folder(tmp_path / "out", sample.images, sample.labels)


def first_of_each(sample, per_digit):
    return torch.cat([(sample.labels == label).nonzero().flatten()[:per_digit] for label in range(20)])


def test_grade_is_the_judges_accuracy(tmp_path, sample, judge):
    folder = write_folder(tmp_path / "out", sample.images, sample.labels, per_digit=10)
    (folder / "mnistm" / ".DS_Store").write_bytes(b"what a Mac leaves behind")
    (folder / "svhn" / "Thumbs.db").write_bytes(b"what Windows leaves behind")
    (folder / "svhn" / "desktop.ini").write_bytes(b"what Windows leaves behind")
    grade = grade_digits(folder, per_digit=10)
    rows = first_of_each(sample, 10)
    direct = judge_accuracy(sample.images[rows], sample.labels[rows], judge)
    assert {name: half.accuracy for name, half in grade.halves.items()} == {
        name: half.accuracy for name, half in direct.items()
    }
    assert grade.accuracy == pytest.approx(sum(half.accuracy for half in direct.values()) / 2)
    assert "street" not in str(grade) and "\nsvhn " in str(grade)
    assert str(grade).count(" our judge\n") == 2 and str(grade).endswith(
        "svhn is read by our judge, not by the course's classifier: no statement about the course's baselines"
    )


def test_grade_counts_swapped_digits_as_wrong(folder):
    for number in (1, 2, 3):
        two, seven = (folder / "svhn" / f"{digit}_{number:03d}.png" for digit in (2, 7))
        held = two.read_bytes()
        two.write_bytes(seven.read_bytes())
        seven.write_bytes(held)
    grade = grade_digits(folder, per_digit=3)
    assert grade.halves["svhn"].per_class[2] <= 1 / 3 and grade.halves["svhn"].accuracy <= 0.87


def test_grade_asks_for_fifty_of_each_by_default(folder):
    with pytest.raises(
        UserError, match=r"lacks '0_004.png' and 469 more: 30 pictures there; .* 500 pictures.*per_digit \(--count\)"
    ):
        grade_digits(folder)


def with_extra(folder):
    (folder / "mnistm" / "7_004.png").write_bytes((folder / "mnistm" / "7_001.png").read_bytes())


def with_another_name(folder):
    (folder / "svhn" / "7_001.png").rename(folder / "svhn" / "7_1.png")


def of_another_size(folder):
    Image.new("RGB", (32, 32)).save(folder / "svhn" / "0_002.png")


def no_picture(folder):
    (folder / "mnistm" / "5_003.png").write_text("not a picture")


def cut_short(folder):
    path = folder / "mnistm" / "9_003.png"
    path.write_bytes(path.read_bytes()[:200])


def a_folder(folder):
    (folder / "svhn" / "4_002.png").unlink()
    (folder / "svhn" / "4_002.png").mkdir()


def a_dangling_link(folder):
    (folder / "svhn" / "4_002.png").unlink()
    (folder / "svhn" / "4_002.png").symlink_to(folder / "gone.png")


def one_missing(folder):
    (folder / "svhn" / "6_002.png").unlink()


def half_missing(folder):
    (folder / "svhn").rename(folder / "street")


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (with_extra, r"mnistm' holds '7_004.png', a name that does not belong there"),
        (
            with_another_name,
            r"svhn' holds '7_1.png', a name that does not belong .* 30 pictures, 0_001.png … 9_003.png",
        ),
        (of_another_size, r"0_002.png' is 32×32; the course asks for 28×28"),
        (no_picture, r"5_003.png' is not a picture"),
        (cut_short, r"9_003.png' is not a picture"),
        (a_folder, r"4_002.png' is a folder"),
        (a_dangling_link, r"4_002.png' is a link to what is not there"),
        (one_missing, r"svhn' lacks '6_002.png': 29 pictures there"),
        (half_missing, r"svhn' is not there; .* the course asks for mnistm/ and svhn/"),
    ],
)
def test_grade_says_what_is_wrong(folder, spoil, sentence):
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as raised:
        grade_digits(folder, per_digit=3)
    assert "\n" not in str(raised.value)


def test_grade_without_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        grade_digits(tmp_path / "nothing")


def test_grey_and_transparent_pictures_are_read_as_rgb(folder, sample):
    for half in ("mnistm", "svhn"):
        path = folder / half / "0_001.png"
        Image.open(path).convert("RGBA" if half == "svhn" else "L").save(path)
    assert grade_digits(folder, per_digit=3).halves["svhn"].count == 30


# The course's own classifier, written as its training script does.


class CoursesClassifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 6, 5)
        self.pool = torch.nn.MaxPool2d(2, 2)
        self.conv2 = torch.nn.Conv2d(6, 16, 5)
        self.fc1 = torch.nn.Linear(16 * 4 * 4, 128)
        self.fc2 = torch.nn.Linear(128, 64)
        self.fc3 = torch.nn.Linear(64, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


@pytest.mark.parametrize("in_a_dict", [True, False])
def test_the_courses_classifier_reads_the_mnistm_half(folder, tmp_path, sample, in_a_dict):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = CoursesClassifier().eval()
    wrapped = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": wrapped} if in_a_dict else theirs.state_dict(), tmp_path / "Classifier.pth")
    rows = first_of_each(sample, 3)[:30]
    x = (sample.images[rows] / 255 - 0.5) / 0.5  # ToTensor and Normalize of the course
    ours = load_course_classifier(tmp_path / "Classifier.pth")
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
        expected = (theirs(x).argmax(1) == sample.labels[rows]).float().mean().item()
    grade = grade_digits(folder, tmp_path / "Classifier.pth", per_digit=3)
    assert grade.halves["mnistm"].accuracy == pytest.approx(expected)
    assert grade.read_by == {"mnistm": "the LeNet in Classifier.pth", "svhn": "our judge"}
    assert str(grade).count("the LeNet in Classifier.pth\n") == str(grade).count(" our judge\n") == 1


class Trap:
    """Unpickled, it would run code."""

    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.parametrize(
    "content",
    [
        {"weights": 1},
        {"state_dict": {"conv1.weight": torch.zeros(6, 3, 5, 5)}},
        {"state_dict": DigitClassifier(JudgeConfig((4, 8, 16))).state_dict()},
        {"state_dict": 3},
        torch.zeros(3),
        Trap(),
        b"no torch file at all",
        b"",
    ],
)
def test_other_files_are_not_the_courses_classifier(tmp_path, capfd, content):
    path = tmp_path / "Classifier.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    said = "are not those of this CourseLeNet|holds no state dict|is not a whole .pt file"
    with pytest.raises(UserError, match=f"Classifier.pth'.*({said})") as raised:
        load_course_classifier(path)
    assert "\n" not in str(raised.value) and "code was run" not in capfd.readouterr().out


def test_a_classifier_that_is_not_finite(tmp_path):
    state = CourseLeNet().state_dict()
    state["fc3.bias"][0] = math.inf
    torch.save({"state_dict": state}, tmp_path / "Classifier.pth")
    with pytest.raises(UserError, match="Classifier.pth' are not finite: 'fc3.bias' has NaN or infinite"):
        load_course_classifier(tmp_path / "Classifier.pth")


def test_no_classifier_at_all(folder, tmp_path):
    with pytest.raises(UserError, match="nothing.pth' is not there"):
        grade_digits(folder, tmp_path / "nothing.pth", per_digit=3)
    assert sum(p.numel() for p in CourseLeNet().parameters()) == 44_674


# --- the tool that measures -----------------------------------------------------------------------------------------


def test_measuring_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    import measure_digits

    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_model(UNet(channels=(8, 16), blocks=1, num_classes=20), tmp_path / "model.safetensors")
    out = tmp_path / "results" / "digits.json"
    arguments = ["--quick", "--per-class", "2", "--steps", "2", "--no-neighbours", "--device", "cpu", "--out", str(out)]
    arguments += ["--weights", str(tmp_path / "model.safetensors"), "--work", str(tmp_path / "kept")]
    monkeypatch.setattr(sys, "argv", ["measure_digits.py", *arguments, "--threads", str(torch.get_num_threads())])
    sample_digits, calls = measure_digits.sample_digits, []

    def stops_after_one(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample_digits(*args, **kwargs)

    monkeypatch.setattr(measure_digits, "sample_digits", stops_after_one)
    with pytest.raises(KeyboardInterrupt):
        measure_digits.main()
    assert len(json.loads(out.read_text())) == 1
    measure_digits.main()
    rows = json.loads(out.read_text())
    assert [(row["w"], row["interval"]) for row in rows] == [(0, None), (2, None), (2, [0.2, 2.0])]
    assert {row["spacing"] for row in rows} == {"trailing"} and rows[0]["names"]["mnistm"] == "MNIST-M"
    assert len(calls) == 4
    assert capsys.readouterr().out.count("| DPM-Solver++ | 2 |") == 3
    measure_digits.main()  # all is there: nothing is sampled again
    assert len(calls) == 4 and json.loads(out.read_text()) == rows


def test_measuring_takes_the_average_of_a_run(tmp_path):
    import measure_digits

    from dlcv_diffusion.digits.recipes import digits_recipe
    from dlcv_diffusion.models.registry import write_tensors

    average = digits_recipe("tiny").build(seed=4)
    tensors = {f"ema.module.{k}": v for k, v in average.state_dict().items()} | {"ema.n_averaged": torch.tensor(9)}
    schedule = digits_recipe("tiny").schedule().config
    facts = {"schedule": schedule, "train": {"prediction": "v"}}
    write_tensors(tmp_path / "c.safetensors", tensors, {"checkpoint": {"step": 9, "facts": facts}})
    denoiser = measure_digits.load_weights(str(tmp_path / "c.safetensors"), "tiny")
    assert all(torch.equal(v, average.state_dict()[k]) for k, v in denoiser.model.state_dict().items())
    assert denoiser.facts["step"] == 9 and not denoiser.model.training
    assert (denoiser.prediction, denoiser.null, denoiser.schedule.config) == ("v", 20, schedule)


# --- the tool that trains the judge -----------------------------------------------------------------------------------


def test_augmentation_stays_in_range_and_follows_its_generator():
    from train_judge import augmented

    x = torch.rand(16, 3, 28, 28, generator=generator()) * 2 - 1
    first, again = augmented(x, generator(3)), augmented(x, generator(3))
    assert torch.equal(first, again) and first.abs().max() <= 1
    assert not torch.equal(first, augmented(x, generator(4)))
