"""Training faces: a folder or zip becomes weights that say what they are; a stopped run goes on to the same weights."""

import csv
from dataclasses import replace

import pytest
import torch
from small_faces import write_pictures, zipped
from small_runs import attentive, names, one_thread, with_random_weights  # noqa: F401 – for every test here

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.faces.recipes import ATTENTION_GUIDANCE, AUTOGUIDANCE, faces_recipe
from dlcv_diffusion.faces.sampling import FaceSampling, sample_faces
from dlcv_diffusion.faces.training import train_faces
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.models import UNet
from dlcv_diffusion.models.perturbed import PerturbedAttention
from dlcv_diffusion.models.registry import read_tensors, save_model, write_tensors
from dlcv_diffusion.training.config import TrainConfig, learning_rate
from dlcv_diffusion.training.objective import noised_batch

SIZE = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("faces"))


def run(pictures, out, *, steps=4, until=None, **options):
    """A run of four steps; `until`: it is killed after so many."""
    options = {"size": SIZE, "batch_size": 4, "device": "cpu", "preview_every": 100, **options}
    states = []
    for state in train_faces(pictures, "tiny", out, steps=steps, checkpoint_every=2, **options):
        states.append(state)
        if state.step == until:
            break
    return states


def weights(out):
    return load_denoiser(out / "model.safetensors").model.state_dict()


def losses(out):
    with open(out / "metrics.csv", newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_a_run_gives_weights_that_draw(pictures, tmp_path):
    states = run(zipped(pictures, tmp_path / "faces.zip"), tmp_path / "run", channels=3)
    assert [state.step for state in states] == [1, 2, 3, 4]
    files = ["checkpoint.safetensors", "metrics.csv", "model.safetensors", "samples", "samples/step_000004.png"]
    assert names(tmp_path / "run") == files
    facts = load_denoiser(tmp_path / "run" / "model.safetensors").facts
    expected = {"name": "faces-tiny", "data": "faces.zip", "images": 11, "shape": (3, SIZE, SIZE)}
    assert facts | expected | {"prediction": "v"} == facts
    denoise = load_denoiser(tmp_path / "run" / "model.safetensors", device="cpu")
    assert (denoise.prediction, denoise.shape, denoise.name) == ("v", (3, SIZE, SIZE), "faces-tiny")
    faces = sample_faces(denoise, torch.randn(2, 3, SIZE, SIZE), FaceSampling(steps=2))
    assert faces.shape == (2, 3, SIZE, SIZE)


def test_a_stopped_run_goes_on_to_the_same_weights(pictures, tmp_path):
    run(pictures, tmp_path / "whole")
    run(pictures, tmp_path / "stopped", until=3)
    again = run(pictures, tmp_path / "stopped", resume=True)
    assert [state.step for state in again] == [3, 4]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")


def test_a_run_of_an_older_version_goes_on(pictures, tmp_path):
    """Older checkpoints call the shape image_size."""
    run(pictures, tmp_path / "run", until=3)
    tensors, header = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    facts = header["checkpoint"]["facts"]
    facts["image_size"] = facts.pop("shape")
    write_tensors(tmp_path / "run" / "checkpoint.safetensors", tensors, header)
    assert [state.step for state in run(pictures, tmp_path / "run", resume=True)] == [3, 4]
    assert load_denoiser(tmp_path / "run" / "model.safetensors").shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_first_loss_is_that_of_the_target(pictures, tmp_path, prediction):
    """A new network gives zeros, so that its loss is the mean square of what it should have given."""
    state = run(pictures, tmp_path / "run", until=1, prediction=prediction)[0]
    schedule = NoiseSchedule.linear(1000)
    config = replace(faces_recipe("tiny").train, batch_size=4, steps=4, prediction=prediction)
    x0, _, t, eps = noised_batch(0, load_faces(pictures, size=SIZE), schedule, 0, config)
    abar = schedule.alphas_bar[t].reshape(-1, 1, 1, 1)
    target = {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[prediction]
    assert state.loss == pytest.approx(target.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_in_memory_may_have_any_number_of_channels_and_any_size(tmp_path, channels):
    data = ImageArrays(
        torch.randint(0, 256, (6, channels, 9, 13), dtype=torch.uint8), torch.zeros(6, dtype=torch.int64)
    )
    run(data, tmp_path / "run", steps=2, preview_every=2)
    denoise = load_denoiser(tmp_path / "run" / "model.safetensors", device="cpu")
    assert denoise.shape == (channels, 9, 13)
    assert (tmp_path / "run" / "samples" / "step_000002.png").exists()
    assert sample_faces(denoise, torch.randn(1, channels, 9, 13), FaceSampling(steps=2)).shape == (1, channels, 9, 13)


def test_flips_are_half_of_the_faces_and_no_noise_is_mirrored(pictures):
    data, schedule = load_faces(pictures, size=SIZE), NoiseSchedule.linear(1000)
    kinds = {}
    for flip in (True, False):
        config = TrainConfig(steps=20, batch_size=11, flip=flip)
        kinds[flip] = [noised_batch(step, data, schedule, 0, config) for step in range(20)]
    mirrored = 0
    for (x0, _, t, eps), (plain, _, t_plain, eps_plain) in zip(kinds[True], kinds[False], strict=True):
        assert torch.equal(t, t_plain) and torch.equal(eps, eps_plain)
        for a, b in zip(x0, plain, strict=True):
            assert torch.equal(a, b) or torch.equal(a, b.flip(-1))
            mirrored += not torch.equal(a, b)
    assert 80 < mirrored < 140  # of 220


def test_the_learning_rate_stays_until_its_cosine_begins():
    config = faces_recipe("small").train
    rates = [learning_rate(step, config) / config.lr for step in range(config.steps)]
    begins = round(config.steps * (1 - config.decay))
    assert rates[config.warmup : begins + 1] == [1.0] * (begins + 1 - config.warmup)
    assert all(later < earlier for earlier, later in zip(rates[begins:], rates[begins + 1 :], strict=False))
    assert rates[-1] < 1e-6


@pytest.mark.parametrize(
    "options, said",
    [
        ({"prediction": "score"}, "prediction is 'score'; it should be 'eps', 'v' or 'x0'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"channels": 2}, "1 .grey. or 3 .RGB. channels, not 2"),
    ],
)
def test_settings_that_do_not_fit_leave_nothing(pictures, tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        run(pictures, tmp_path / "run", **options)
    assert names(tmp_path) == []


def write_teacher(path, seed=0, **config):
    """Weights of a small network in which attention matters, and their denoiser."""
    config = {"in_channels": 1, "channels": (8, 16), "blocks": 1, "num_classes": 0, "timesteps": 1000, **config}
    model = attentive(with_random_weights(UNet(attention=(True, True), **config), seed))
    facts = {"name": "plain", "prediction": "v", "schedule": NoiseSchedule.linear(1000).config}
    save_model(model, path, facts | ({} if config["num_classes"] else {"shape": (1, SIZE, SIZE)}))
    return load_denoiser(path, device="cpu")


def test_a_guided_run_learns_from_a_teacher(pictures, tmp_path):
    path = tmp_path / "plain.safetensors"
    guided = PerturbedAttention(write_teacher(path), ATTENTION_GUIDANCE)
    options = {"size": SIZE, "batch_size": 4, "device": "cpu", "steps": 4, "checkpoint_every": 2, "teacher": path}
    states = list(train_faces(pictures, "guided", tmp_path / "whole", **options))

    config = replace(faces_recipe("guided").train, batch_size=4, steps=4)
    x0, _, t, eps = noised_batch(0, load_faces(pictures, size=SIZE), guided.schedule, 0, config)
    x = guided.schedule.add_noise(x0, eps, t)
    with torch.no_grad():
        missing = guided.scales[0][0] * (guided.model(x, t) - guided.worse[0].model(x, t))
    assert states[0].loss == pytest.approx(missing.square().mean().item(), rel=1e-3)

    for state in train_faces(pictures, "guided", tmp_path / "stopped", **options):
        if state.step == 3:
            break
    again = train_faces(pictures, "guided", tmp_path / "stopped", resume=True, **options)
    assert [state.step for state in again] == [3, 4]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    facts = load_denoiser(tmp_path / "whole" / "model.safetensors").facts
    expected = {"name": "faces-guided", "teacher": "plain", "attention_guidance": ATTENTION_GUIDANCE}
    assert facts | expected == facts

    write_teacher(path, seed=1)
    with pytest.raises(UserError, match="teacher_hash: [0-9a-f]+ then, [0-9a-f]+ now"):
        list(train_faces(pictures, "guided", tmp_path / "stopped", resume=True, **options))


def test_a_guided_run_learns_from_a_teacher_and_a_weaker_one(pictures, tmp_path):
    paths = {"teacher": tmp_path / "plain.safetensors", "weaker": tmp_path / "early.safetensors"}
    teacher, weaker = (write_teacher(path, seed) for seed, path in enumerate(paths.values()))
    options = {"size": SIZE, "batch_size": 4, "device": "cpu", "steps": 2, **paths}
    states = list(train_faces(pictures, "guided", tmp_path / "run", **options))
    config = replace(faces_recipe("guided").train, batch_size=4, steps=2)
    x0, _, t, eps = noised_batch(0, load_faces(pictures, size=SIZE), teacher.schedule, 0, config)
    x = teacher.schedule.add_noise(x0, eps, t)
    with torch.no_grad():  # of v, since the student begins as its teacher
        missing = AUTOGUIDANCE * (teacher.model(x, t) - weaker.model(x, t))
    assert states[0].loss == pytest.approx(missing.square().mean().item(), rel=1e-3)
    facts = load_denoiser(tmp_path / "run" / "model.safetensors").facts
    assert facts["autoguidance"] == AUTOGUIDANCE and "attention_guidance" not in facts
    for state in train_faces(pictures, "guided", tmp_path / "stopped", checkpoint_every=1, **options):
        if state.step == 1:
            break
    write_teacher(paths["weaker"], seed=3)
    with pytest.raises(UserError, match="teacher_hash: [0-9a-f]+ then, [0-9a-f]+ now"):
        list(train_faces(pictures, "guided", tmp_path / "stopped", resume=True, **options))


@pytest.mark.parametrize(
    "preset, teacher, options, said",
    [
        ("guided", None, {}, "needs a teacher .--teacher.: the model.safetensors of a run of 'small'"),
        ("tiny", "faces", {}, "the preset 'tiny' learns from the pictures alone; leave out --teacher and --weaker"),
        ("guided", None, {"weaker": "faces"}, "needs a teacher .--teacher."),
        ("guided", "digits", {}, "the teacher 'digits' draws 20 classes by label; give one that draws without labels"),
        ("guided", "faces", {}, "the teacher 'faces' has learned such guidance already"),
        ("guided", "faces", {"weaker": "faces"}, "the weaker weights 'faces' are the teacher's own"),
        ("guided", "missing.safetensors", {}, "missing.safetensors"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(pictures, tmp_path, preset, teacher, options, said):
    with pytest.raises(UserError, match=said):
        list(train_faces(pictures, preset, tmp_path / "run", size=SIZE, teacher=teacher, device="cpu", **options))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "options, said",
    [
        ({"size": 16}, "draws 1×8×8, and the pictures are 1×16×16; they must be alike"),
        ({"size": SIZE, "prediction": "eps"}, "the teacher predicts v, and so must its student"),
    ],
)
def test_a_teacher_that_draws_otherwise_is_refused(pictures, tmp_path, options, said):
    write_teacher(tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match=said):
        list(train_faces(pictures, "guided", tmp_path / "run", teacher=tmp_path / "plain.safetensors", **options))
    assert names(tmp_path) == ["plain.safetensors"]


def test_another_preset_and_another_run_are_refused(pictures, tmp_path):
    with pytest.raises(UserError, match="unknown preset 'report'; choose one of: small, guided, tiny"):
        train_faces(pictures, "report", tmp_path / "run")
    run(pictures, tmp_path / "run", until=2)
    with pytest.raises(UserError, match="holds a training run already; add --resume"):
        run(pictures, tmp_path / "run")
    with pytest.raises(UserError, match="prediction: v then, eps now"):
        run(pictures, tmp_path / "run", resume=True, prediction="eps")
