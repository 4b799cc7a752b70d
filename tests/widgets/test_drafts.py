"""Drafts: what DDIM will draw, guessed in few steps, and what the guess is exact for."""

import pytest
import torch

from dlcv_diffusion import Denoiser, NoiseSchedule, ddim, dpm_solver, last, seeded_noise
from dlcv_diffusion.noise import NoiseStream
from dlcv_diffusion.widgets.drafts import DRAFT_STEPS, Extrapolated, SummedNoise, draft

FEW = [DRAFT_STEPS["without noise"], DRAFT_STEPS["with noise"]]
SCHEDULE = NoiseSchedule.linear(1000)
FINE = SCHEDULE.timesteps(20, "trailing")


def curved(x, t):
    """A denoiser in name, whose x̂0 bends along the way."""
    return torch.tanh(x + t.reshape(-1, 1, 1, 1) / 500) * 0.9


def test_ddim_of_the_second_order_without_noise_is_dpm_solver():
    x, coarse = seeded_noise((2, 1, 8, 8), [0, 1]), FINE[::4]
    ours = last(ddim(Extrapolated(curved, SCHEDULE, coarse), x, SCHEDULE, steps=coarse)).x
    assert torch.allclose(ours, last(dpm_solver(curved, x, SCHEDULE, steps=coarse)).x, atol=1e-5)
    assert not torch.allclose(ours, last(ddim(curved, x, SCHEDULE, steps=coarse)).x, atol=1e-2)


@pytest.mark.parametrize("every", [2, 4, 7])
def test_summed_noise_takes_coarse_steps_where_the_fine_ones_go(every):
    """Where x̂0 is known and η = 1, so is every step's mean and variance: the coarse path meets the fine one."""
    x, x0, coarse = seeded_noise((1, 1, 8, 8), [3]), torch.rand(1, 1, 8, 8) * 2 - 1, FINE[::every]
    known = Denoiser(lambda x, t: x0.expand_as(x), SCHEDULE, "x0")
    fine = {step.t: step.x for step in ddim(known, x, steps=FINE, eta=1.0, seeds=[3])}
    noise = SummedNoise(NoiseStream([3]), SCHEDULE, FINE, coarse, 1.0)
    for step, after in zip(ddim(known, x, steps=coarse, eta=1.0, noise=noise), coarse[1:], strict=False):
        before = FINE[FINE.index(after) - 1]
        assert torch.allclose(step.x, fine[before], atol=1e-4)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_summed_noise_is_of_unit_variance(eta):
    noise = SummedNoise(NoiseStream([0]), SCHEDULE, FINE, FINE[::4], eta)
    assert all(abs(noise(torch.zeros(1, 1, 64, 64)).std() - 1) < 0.05 for _ in range(4))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_draft_is_nearer_to_its_picture_than_noise_of_another_seed_is(eta):
    x = seeded_noise((1, 1, 16, 16), [0])
    how = {"steps": 30, "eta": eta, "seeds": [0]}
    steps, count = draft(curved, x, SCHEDULE, **how)
    guess, picture = last(steps).x, last(ddim(curved, x, SCHEDULE, **how)).x
    other = last(ddim(curved, seeded_noise((1, 1, 16, 16), [1]), SCHEDULE, **{**how, "seeds": [1]})).x
    assert count == FEW[eta > 0] and (guess - picture).norm() < 0.5 * (other - picture).norm()


def test_there_is_no_draft_of_a_picture_in_few_steps():
    for eta in (0.0, 0.5):
        how = {"eta": eta, "seeds": [0], "steps": 2 * FEW[eta > 0] - 1}
        assert draft(curved, seeded_noise((1, 1, 8, 8), [0]), SCHEDULE, **how) is None
