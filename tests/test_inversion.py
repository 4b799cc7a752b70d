"""DDIM backwards: exact where the step can be solved exactly, and back to the picture on a real network."""

import pytest
import torch

from dlcv_diffusion import NoiseSchedule, UserError, ddim, last, seeded_noise
from dlcv_diffusion.inversion import ddim_inversion
from dlcv_diffusion.models import UNet

SCHEDULE = NoiseSchedule.linear(1000)


def gaussian(mean, std):
    """The best denoiser for pixels that are N(mean, std²), in closed form."""

    def denoise(x, t):
        abar = SCHEDULE.alphas_bar[t].reshape(-1, 1, 1, 1)
        return ((1 - abar).sqrt() / (1 - abar + abar * std**2) * (x - abar.sqrt() * mean)).to(x.dtype)

    return denoise


@pytest.mark.parametrize("steps", [10, 50])
def test_solved_for_its_own_noise_the_way_up_is_the_way_down_reversed(steps):
    denoise, x0 = gaussian(0.2, 0.5), seeded_noise((3, 1, 4, 4), range(3)).double().mul(0.5).add(0.2)
    up = list(ddim_inversion(denoise, x0, SCHEDULE, steps=steps, refine=200))
    down = list(ddim(denoise, up[-1].x, SCHEDULE, steps=steps))
    assert torch.allclose(down[-1].x, x0, atol=1e-6)
    for below, above in zip(reversed(up[:-1]), down, strict=False):
        assert torch.allclose(below.x, above.x, atol=1e-5)
    assert [step.t for step in up] == [step.t for step in down][::-1]


def test_a_gaussian_picture_goes_to_the_noise_of_the_closed_form():
    z = seeded_noise(
        (20, 1, 4, 4), range(20)
    ).double()  # the flow maps 0.2 + 0.5 z to z: it is linear, and keeps quantiles
    errors = []
    for steps in (50, 500):
        x_T = last(ddim_inversion(gaussian(0.2, 0.5), 0.2 + 0.5 * z, SCHEDULE, steps=steps, refine=50)).x
        errors.append((x_T - z).abs().max().item())
    assert errors[1] < 0.02 and errors[1] < 0.3 * errors[0]


def test_more_refinement_comes_nearer_on_a_network():
    torch.manual_seed(0)
    model = UNet(in_channels=1, channels=(16, 16), blocks=1, patch=4, timesteps=1000)
    torch.nn.init.normal_(model.head[-1].weight, std=0.05)
    x0 = seeded_noise((2, 1, 16, 16), [0, 1]) * 0.5
    errors = []
    for refine in (0, 2, 20):
        x_T = last(ddim_inversion(model, x0, SCHEDULE, steps=10, refine=refine)).x
        errors.append((last(ddim(model, x_T, SCHEDULE, steps=10)).x - x0).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02, errors
    assert model.training and not x_T.requires_grad


def test_bad_numbers_are_refused():
    with pytest.raises(UserError, match="refine"):
        ddim_inversion(gaussian(0, 1), torch.zeros(1, 1, 4, 4), SCHEDULE, refine=-1)
    with pytest.raises(UserError, match="cannot take 0 steps"):
        ddim_inversion(gaussian(0, 1), torch.zeros(1, 1, 4, 4), SCHEDULE, steps=0)
