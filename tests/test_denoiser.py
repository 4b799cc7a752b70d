"""ε, v and x0 say the same: there and back, and as diffusers has them."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from dlcv_diffusion import NoiseSchedule, UserError, ddim, dpm_solver, guided, last, seeded_noise
from dlcv_diffusion.denoiser import PREDICTIONS, Denoiser, to_eps, training_target

THEIRS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SHAPE = (4, 3, 4, 4)


@given(
    st.sampled_from(PREDICTIONS),
    st.sampled_from([NoiseSchedule.linear(350), NoiseSchedule.cosine(1000), NoiseSchedule.linear(1000)]),
    st.integers(0, 2**16),
    st.data(),
)
def test_the_target_leads_back_to_the_noise(prediction, schedule, seed, data):
    x0, eps = seeded_noise((2, *SHAPE), [seed, seed + 1]).double()
    t = torch.tensor(data.draw(st.lists(st.integers(0, schedule.T - 1), min_size=4, max_size=4)))
    x = schedule.add_noise(x0, eps, t)
    target = training_target(x0, eps, t, schedule, prediction)
    torch.testing.assert_close(to_eps(target, x, t, schedule, prediction), eps, rtol=1e-6, atol=1e-6)


@given(st.integers(0, 999))
def test_v_is_diffusers_velocity(t):
    x0, eps = seeded_noise((2, *SHAPE), [1, 2])
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    theirs = scheduler.get_velocity(x0, eps, torch.full((4,), t))
    ours = training_target(x0, eps, torch.full((4,), t), NoiseSchedule.linear(1000), "v")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [5, 20])
def test_ddim_walks_as_diffusers_does(prediction, steps):
    def network(x, t):
        return torch.tanh(0.8 * x + 0.3 * torch.sin(3 * x.flip(1))) + 0.2 * torch.cos(t / 300).reshape(-1, 1, 1, 1)

    scheduler = DDIMScheduler(clip_sample=False, prediction_type=THEIRS[prediction])
    scheduler.set_timesteps(steps)
    x = x_T = seeded_noise(SHAPE, range(4))
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(4)), t, x).prev_sample
    denoise = Denoiser(network, NoiseSchedule.linear(1000), prediction)
    torch.testing.assert_close(last(ddim(denoise, x_T, steps=steps, spacing="uniform")).x, x, rtol=1e-4, atol=1e-4)


def test_half_precision_comes_back_as_it_went():
    denoise = Denoiser(lambda x, t: x.bfloat16(), NoiseSchedule.linear(1000), "v")
    assert denoise(torch.ones(SHAPE), torch.zeros(4, dtype=torch.int64)).dtype == torch.float32


def test_another_word_is_refused():
    with pytest.raises(UserError, match="unknown prediction 'score'; choose one of eps, v, x0"):
        Denoiser(lambda x, t: x, NoiseSchedule.linear(10), "score")


@pytest.mark.parametrize("output", [lambda x: x[:, :1], lambda x: x[:1], lambda x: (x, x), lambda x: None])
def test_an_output_of_another_shape_is_refused(output):
    denoise = Denoiser(lambda x, t: output(x), NoiseSchedule.linear(10))
    with pytest.raises(UserError, match="they must be alike"):
        denoise(torch.ones(SHAPE), torch.zeros(4, dtype=torch.int64))


MU, S = 0.3, 0.2


class GaussianNetwork(torch.nn.Module):
    """The best network of pixels ~ N(±μ, s²), the sign by the label, + for ∅: it gives ε, v or x0."""

    def __init__(self, schedule, prediction):
        super().__init__()
        self.schedule, self.prediction = schedule, prediction

    def forward(self, x, t, labels):
        abar = self.schedule.alphas_bar[t].reshape(-1, 1, 1, 1)
        mu = torch.where(labels == 1, -MU, MU).reshape(-1, 1, 1, 1)
        eps = (1 - abar).sqrt() * (x - abar.sqrt() * mu) / (abar * S**2 + 1 - abar)
        x0 = (x - (1 - abar).sqrt() * eps) / abar.sqrt()
        return {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}[self.prediction].float()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_of_any_prediction_draws_the_right_mean_and_variance(prediction):
    """Through the very lines that the README shows: guided(denoiser, labels, w), seeded noise, a sampler."""
    schedule = NoiseSchedule.linear(1000)
    denoiser = Denoiser(GaussianNetwork(schedule, prediction), schedule, prediction, shape=(1, 40, 40), null=2)
    denoise = guided(denoiser, [0, 1] * 8, w=0.0)
    x_T = seeded_noise((16, *denoiser.shape), seeds=range(16))
    image = last(dpm_solver(denoise, x_T, steps=50)).x
    for sign, part in ((1, image[::2]), (-1, image[1::2])):
        assert part.mean().item() == pytest.approx(sign * MU, abs=0.02)
        assert part.std().item() == pytest.approx(S, abs=0.02)
