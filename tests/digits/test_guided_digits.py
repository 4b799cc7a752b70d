"""The preset "guided" of the digits: a copy of a network learns what guidance by worse versions makes of it."""

from dataclasses import replace

import pytest
import torch
from small_runs import attentive, one_thread, with_random_weights  # noqa: F401

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.digits.data import load_digits
from dlcv_diffusion.digits.recipes import ATTENTION_GUIDANCE, AUTOGUIDANCE, BESIDE_AUTOGUIDANCE, digits_recipe
from dlcv_diffusion.digits.training import train_digits
from dlcv_diffusion.models.perturbed import PerturbedAttention, attending_alone
from dlcv_diffusion.models.registry import save_model
from dlcv_diffusion.models.unet import UNet
from dlcv_diffusion.training.objective import noised_batch


def write_small(path, seed):
    """Weights of a small network in which attention matters."""
    config = {"in_channels": 3, "channels": (8, 16), "blocks": 1, "num_classes": 20, "timesteps": 350}
    model = attentive(with_random_weights(UNet(attention=(True, True), **config), seed))
    facts = {"name": path.stem, "prediction": "v", "schedule": NoiseSchedule.linear(350).config, "shape": (3, 28, 28)}
    facts["train"] = {"steps": 70}
    save_model(model, path, facts)
    return path


def by_label(labels, scales):
    return torch.where(labels == 20, scales[1], scales[0])[:, None, None, None]


@pytest.mark.parametrize("with_weaker", [False, True])
def test_labels_and_no_label_are_guided_each_by_its_own_scale(tmp_path, with_weaker):
    teacher = write_small(tmp_path / "plain.safetensors", 0)
    weaker = write_small(tmp_path / "early.safetensors", 1) if with_weaker else None
    attention = BESIDE_AUTOGUIDANCE if with_weaker else ATTENTION_GUIDANCE
    options = {"batch_size": 16, "steps": 1, "device": "cpu", "teacher": teacher, "weaker": weaker}
    (state,) = train_digits("guided", out=tmp_path / "run", **options)
    config = replace(digits_recipe("guided").train, batch_size=16, steps=1)
    plain = load_denoiser(teacher, device="cpu")
    x0, labels, t, eps = noised_batch(0, load_digits("sample"), plain.schedule, 20, config)
    assert 0 < (labels == 20).sum() < 16, "some labels are left out"
    x, worse = plain.schedule.add_noise(x0, eps, t), attending_alone(plain)
    with torch.no_grad():  # of v, since the student begins as its teacher
        missing = by_label(labels, attention) * (plain.model(x, t, labels) - worse.model(x, t, labels))
        if weaker:
            early = load_denoiser(weaker, device="cpu").model(x, t, labels)
            missing += by_label(labels, AUTOGUIDANCE) * (plain.model(x, t, labels) - early)
        guided = PerturbedAttention(plain, 0.3, s_null=0.9)
        unlabelled = PerturbedAttention(plain, 0.9)(x, t, torch.full_like(labels, 20))
        torch.testing.assert_close(guided(x, t), unlabelled)
    assert state.loss == pytest.approx(missing.square().mean().item(), rel=1e-3)
    facts = load_denoiser(tmp_path / "run" / "model.safetensors").facts
    scales = {"attention_guidance": attention[0], "attention_guidance_null": attention[1], "teacher": "plain"}
    if weaker:
        scales |= {"autoguidance": AUTOGUIDANCE[0], "autoguidance_null": AUTOGUIDANCE[1], "weaker_step": 70}
    assert facts | scales == facts
    with pytest.raises(UserError, match="has learned such guidance already; give the one that it learned from"):
        list(train_digits("guided", out=tmp_path / "again", teacher=tmp_path / "run" / "model.safetensors"))


@pytest.mark.parametrize(
    "preset, teacher, weaker, said",
    [
        ("guided", None, None, "needs a teacher .--teacher.: the model.safetensors of a run of 'small'"),
        ("guided", None, "digits", "needs a teacher .--teacher."),
        ("tiny", "digits", None, "the preset 'tiny' learns from the pictures alone; leave out --teacher and --weaker"),
        ("small", None, "digits", "the preset 'small' learns from the pictures alone; leave out --teacher and"),
        ("guided", "digits", "digits", "the weaker weights 'digits' are the teacher's own; give those of less"),
        ("guided", "digits", "faces", "the worse denoiser 'faces' has other images, labels, or another noise schedule"),
        ("guided", "faces", None, "the teacher 'faces' draws without labels; give one that draws 20 classes by label"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(tmp_path, preset, teacher, weaker, said):
    with pytest.raises(UserError, match=said):
        list(train_digits(preset, out=tmp_path / "run", teacher=teacher, weaker=weaker, device="cpu"))
    assert not (tmp_path / "run").exists()
