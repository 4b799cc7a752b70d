"""Guidance distillation: the loss is the distance from the guided teacher, and a run comes nearer to it."""

from dataclasses import replace

import pytest
import torch
from small_runs import attentive, one_thread, small_digits, small_network  # noqa: F401

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import Denoiser, to_eps
from dlcv_diffusion.models.perturbed import PerturbedAttention
from dlcv_diffusion.training import TrainConfig, run
from dlcv_diffusion.training.distillation import Distillation, student_of

SCHEDULE = NoiseSchedule.linear(20)
CONFIG = TrainConfig(steps=40, batch_size=8, lr=2e-3, warmup=0, weight_decay=0.0, ema_decay=0.0, prediction="v")


def teacher(s=2.0, prediction="v"):
    return PerturbedAttention(Denoiser(attentive(small_network("UNet")), SCHEDULE, prediction, null=20), s)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_student_begins_as_far_from_the_guided_teacher_as_guidance_takes_it(prediction):
    """In the network's own output, guidance adds s (f − f̂): that is all a fresh copy misses."""
    guided = teacher(prediction=prediction)
    config = replace(CONFIG, prediction=prediction)
    objective = Distillation(student_of(guided), small_digits(), SCHEDULE, config, guided)
    batch = x0, labels, t, eps = objective.batch(0)
    x = SCHEDULE.add_noise(x0, eps, t)
    with torch.no_grad():
        missing = guided.scales[0][0] * (guided.model(x, t, labels) - guided.worse[0].model(x, t, labels))
        loss = objective.loss(objective.model, *batch)
    assert loss.item() == pytest.approx(missing.square().mean().item(), rel=1e-3)


@pytest.mark.parametrize("asked", ["eps", "v", "x0"])
def test_a_student_may_be_asked_for_something_else_than_the_teacher(asked):
    """The target of x_t is the guided teacher's answer, converted: together they give its ε again."""
    guided = teacher(prediction="eps")
    objective = Distillation(student_of(guided), small_digits(), SCHEDULE, replace(CONFIG, prediction=asked), guided)
    x0, labels, t, eps = objective.batch(0)
    x = SCHEDULE.add_noise(x0, eps, t)
    with torch.no_grad():
        wanted = guided(x, t, labels)
    found = to_eps(objective.target(x, x0, labels, t, eps), x, t, SCHEDULE, asked)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_other_guidance_and_other_schedules_are_told(tmp_path):
    config = replace(CONFIG, steps=4)

    def begun(s, resume):
        guided = teacher(s)
        objective = Distillation(student_of(guided), small_digits(), SCHEDULE, config, guided)
        return run(objective, config, tmp_path / "run", device="cpu", checkpoint_every=2, resume=resume)

    for state in begun(2.0, resume=False):
        if state.step == 3:
            break
    with pytest.raises(UserError, match="attention_guidance: 2.0 then, 7.0 now"):
        list(begun(7.0, resume=True))
    with pytest.raises(UserError, match="another noise schedule; give the run teacher.schedule"):
        Distillation(student_of(teacher()), small_digits(), NoiseSchedule.cosine(20), config, teacher())


def test_without_guidance_a_student_has_nothing_to_learn():
    guided = teacher(s=0.0)
    objective = Distillation(student_of(guided), small_digits(), SCHEDULE, CONFIG, guided)
    assert objective.loss(objective.model, *objective.batch(0)).item() < 1e-9


def test_a_run_comes_nearer_and_leaves_the_teacher_alone(tmp_path):
    guided = teacher()
    before = {name: weights.clone() for name, weights in guided.state_dict().items()}
    objective = Distillation(student_of(guided), small_digits(), SCHEDULE, CONFIG, guided)
    losses = [state.loss for state in run(objective, CONFIG, tmp_path / "run", device="cpu")]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert all(torch.equal(weights, before[name]) for name, weights in guided.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(objective.model.parameters(), guided.parameters(), strict=True))
