import json

import pytest
import torch

from dlcv_diffusion import NoiseSchedule, UserError, seeded_noise
from dlcv_diffusion.digits.signal_leak import SignalLeak

SCHEDULE = NoiseSchedule.linear(350)


def coloured_images(count=4000):
    """Flat images of two groups whose colours have known means and spreads."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 20
    middle = torch.where((labels < 10)[:, None], torch.tensor([90.0, 120.0, 150.0]), torch.tensor([60.0, 60.0, 60.0]))
    colours = middle + 20 * torch.randn(count, 1, generator=generator)  # the three channels rise and fall together
    return colours.round().clamp(0, 255).to(torch.uint8)[:, :, None, None].expand(-1, -1, 28, 28), labels


def test_colours_have_the_mean_and_covariance_of_the_images():
    images, labels = coloured_images()
    leak = SignalLeak.measure(images, labels)
    colours = leak.colours([3] * 4000, range(4000))
    assert torch.allclose(colours.mean(0), torch.tensor([90.0, 120, 150]) / 127.5 - 1, atol=0.015)
    assert torch.allclose(colours.std(0), torch.tensor(20 / 127.5), atol=0.01)
    assert torch.corrcoef(colours.T).min() > 0.99
    assert torch.allclose(leak.colours([13] * 4000, range(4000)).mean(0), torch.tensor(60 / 127.5 - 1), atol=0.015)


def test_a_colour_depends_on_its_seed_and_half_alone():
    leak = SignalLeak.measure(*coloured_images(400))
    many = leak.colours([3, 13, 4], [7, 8, 9])
    assert torch.equal(many[1:2], leak.colours([19], [8]))
    assert torch.equal(many[0], leak.colours([5], [7])[0])


def test_the_start_is_a_training_image_at_the_last_timestep():
    """Mean and variance of x_T are those of q(x_{T−1} | colour), not of N(0, I)."""
    leak = SignalLeak.measure(*coloured_images(400))
    eps = seeded_noise((200, 3, 28, 28), range(200))
    x_T = leak.start(eps, [3] * 200, range(200), SCHEDULE)
    signal = SCHEDULE.alphas_bar[-1].sqrt().item()
    expected = signal * leak.colours([3] * 200, range(200))
    assert torch.allclose(x_T.mean((2, 3)) - (1 - signal**2) ** 0.5 * eps.mean((2, 3)), expected, atol=1e-5)


def test_it_is_saved_as_json():
    leak = SignalLeak.measure(*coloured_images(400))
    again = SignalLeak(**json.loads(json.dumps(vars(leak))))
    assert torch.equal(again.colours([3], [1]), leak.colours([3], [1]))


def test_a_group_without_images_is_refused():
    images, labels = coloured_images(40)
    with pytest.raises(UserError, match="labels 0 and up"):
        SignalLeak.measure(images, labels + 10)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 0},
        {"classes": "ten"},
        {"mean": []},
        {"mean": [[]], "covariance": [[]]},
        {"mean": [[0.0, 0.0]]},
        {"mean": [[0.0]] * 2},
        {"mean": [[float("nan")]]},
        {"covariance": [[[0.1, 0.1]]]},
        {"covariance": [[0.1]]},
        {"covariance": [[[-1.0]]]},
        {"wings": 2},
    ],
)
def test_what_are_no_colours_is_one_sentence(changes):
    with pytest.raises(UserError):
        SignalLeak(**{"classes": 10, "mean": [[0.0]], "covariance": [[[0.1]]], **changes})


def test_colours_of_other_channels_are_one_sentence():
    leak = SignalLeak(classes=10, mean=[[0.0]], covariance=[[[0.1]]])
    with pytest.raises(UserError, match="mean colours of 1 channels do not fit images of 3"):
        leak.start(seeded_noise((1, 3, 8, 8), [0]), [3], [0], SCHEDULE)
