"""ε, v and x0 say the same: there and back, and as diffusers has them."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from dlcv_diffusion import NoiseSchedule, UserError, ddim, ddpm, dpm_solver, guided, last, seeded_noise
from dlcv_diffusion.denoiser import PREDICTIONS, Denoiser, load_denoiser, to_eps, training_target
from dlcv_diffusion.models import registry

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

    def __init__(self, T, prediction):
        super().__init__()
        self.config = {"T": T, "prediction": prediction}
        self.in_channels, self.num_classes, self.timesteps, self.shape = 1, 2, T, None
        self.register_buffer("alphas_bar", torch.zeros(T))

    def forward(self, x, t, labels):
        abar = self.alphas_bar[t].reshape(-1, 1, 1, 1)
        mu = torch.where(labels == 1, -MU, MU).reshape(-1, 1, 1, 1)
        eps = (1 - abar).sqrt() * (x - abar.sqrt() * mu) / (abar * S**2 + 1 - abar)
        x0 = (x - (1 - abar).sqrt() * eps) / abar.sqrt()
        given = {"eps": eps, "x0": x0, "v": abar.sqrt() * eps - (1 - abar).sqrt() * x0}
        return given[self.config["prediction"]]


SAMPLERS = {
    "ddpm": lambda denoise, x_T: ddpm(denoise, x_T, seeds=range(len(x_T))),
    "ddim": lambda denoise, x_T: ddim(denoise, x_T, steps=100),
    "ddim, η = 1": lambda denoise, x_T: ddim(denoise, x_T, steps=400, eta=1.0, seeds=range(len(x_T))),
    "dpm_solver": lambda denoise, x_T: dpm_solver(denoise, x_T, steps=50),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_saved_weights_of_any_prediction_draw_the_right_mean_and_variance(tmp_path, monkeypatch, prediction, sampler):
    """Through the very lines that the README shows: load_denoiser, guided, seeded noise, a sampler."""
    monkeypatch.setitem(registry.MODELS, "GaussianNetwork", GaussianNetwork)
    schedule = NoiseSchedule.linear(1000)
    network = GaussianNetwork(1000, prediction)
    network.alphas_bar.copy_(schedule.alphas_bar)
    facts = {"schedule": schedule.config, "prediction": prediction, "shape": (1, 40, 40)}
    registry.save_model(network, tmp_path / "m.safetensors", facts)

    denoiser = load_denoiser(tmp_path / "m.safetensors", device="cpu")
    assert (denoiser.prediction, denoiser.null, denoiser.schedule) == (prediction, 2, schedule)
    denoise = guided(denoiser, [0, 1] * 8, w=0.0)
    x_T = seeded_noise((16, *denoiser.shape), seeds=range(16))
    image = last(SAMPLERS[sampler](denoise, x_T)).x
    for sign, part in ((1, image[::2]), (-1, image[1::2])):
        assert part.mean().item() == pytest.approx(sign * MU, abs=0.02)
        assert part.std().item() == pytest.approx(S, abs=0.02)


@pytest.mark.parametrize("shape", [(28, 28), (3, 0, 28), (1, 3, 28, 28), 28])
def test_a_shape_is_channels_height_and_width(shape):
    with pytest.raises(UserError, match=r"shape of one image is \(C, H, W\)"):
        Denoiser(lambda x, t: x, NoiseSchedule.linear(10), shape=shape)
