"""Which timesteps training draws: all alike, or the noise levels of a log-normal distribution."""

import math

import pytest
import torch

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.training import TrainConfig
from dlcv_diffusion.training.objective import random_timesteps

SCHEDULE = NoiseSchedule.linear(1000)


def drawn(levels, count=20_000):
    config = TrainConfig(steps=1, noise_levels=levels)
    return random_timesteps(count, SCHEDULE, config, torch.Generator().manual_seed(0))


def test_without_levels_every_timestep_is_as_likely():
    t = drawn(None, 100_000)
    assert t.dtype == torch.int64 and t.min() == 0 and t.max() == 999
    assert torch.histc(t.double(), 10).sub(10_000).abs().max() < 500


@pytest.mark.parametrize("mean, std", [(-0.3, 1.3), (-1.2, 0.5)])
def test_the_drawn_levels_have_the_quantiles_of_the_distribution(mean, std):
    levels = SCHEDULE.sigmas.log()[drawn((mean, std))]
    for z in (-1, 0, 1):
        share = 0.5 * (1 + math.erf(z / 2**0.5))
        assert levels.quantile(share).item() == pytest.approx(mean + z * std, abs=0.06)


def test_levels_off_the_schedule_fall_to_its_ends():
    assert drawn((9.0, 0.1), 50).unique().tolist() == [999] and drawn((-9.0, 0.1), 50).unique().tolist() == [0]


@pytest.mark.parametrize("levels", [(0.0, 0.0), (0.0, -1.0), (0.0, math.inf), (0.0, math.nan), (math.nan, 1.0), (0.0,)])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(UserError, match="noise_levels"):
        TrainConfig(steps=1, noise_levels=levels)
