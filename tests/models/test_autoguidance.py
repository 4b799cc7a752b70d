"""Autoguidance: the sum of its equation, and what does not fit together."""

import pytest
import torch
from small_runs import attentive, one_thread, small_network  # noqa: F401

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import Denoiser
from dlcv_diffusion.models.autoguidance import AutoGuidance
from dlcv_diffusion.models.perturbed import PerturbedAttention

SCHEDULE = NoiseSchedule.linear(20)
X, T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 17])


def denoiser(prediction="v", schedule=SCHEDULE, shape=(3, 8, 8), **facts):
    return Denoiser(attentive(small_network("UNet")), schedule, prediction, shape=shape, null=20, facts=facts)


def test_it_goes_on_from_the_weaker_network_to_the_better_one_and_beyond():
    """Whatever the two predict: here the one gives v and the other ε."""
    good, bad = denoiser("v"), denoiser("eps", step=7)
    labels = torch.tensor([4, 15])
    with torch.no_grad():
        for weight in bad.parameters():
            weight.mul_(0.9)
        a, b = good(X, T, labels), bad(X, T, labels)
        guided = AutoGuidance(good, bad, 1.5)
        torch.testing.assert_close(guided(X, T, labels), a + 1.5 * (a - b), rtol=1e-4, atol=1e-5)
        assert torch.equal(AutoGuidance(good, bad, 0)(X, T, labels), a)
        torch.testing.assert_close(AutoGuidance(good, good, 3.0)(X, T, labels), a)
    assert guided.facts == {"autoguidance": 1.5, "weaker_step": 7} and (a - b).abs().max() > 1e-3


def test_no_label_has_a_scale_of_its_own():
    plain, weaker = denoiser(), denoiser("eps")
    guided = AutoGuidance(plain, weaker, 1.0, s_null=0.5)
    for label, s in ((4, 1.0), (20, 0.5)):
        labels = torch.full((2,), label)
        with torch.no_grad():
            torch.testing.assert_close(guided(X, T, labels), AutoGuidance(plain, weaker, s)(X, T, labels))
    assert guided.facts["autoguidance_null"] == 0.5


@pytest.mark.parametrize(
    ("weaker", "s", "said"),
    [
        (denoiser(schedule=NoiseSchedule.linear(30)), 1.0, "has other images, labels, or another noise schedule"),
        (denoiser(shape=(3, 16, 16)), 1.0, "has other images, labels, or another noise schedule"),
        (AutoGuidance(denoiser(), denoiser()), 1.0, "the weaker denoiser is a plain one"),
        (denoiser(), -0.5, "the guidance scale is -0.5"),
        (denoiser(), float("nan"), "the guidance scale is nan"),
    ],
)
def test_what_does_not_fit_is_refused(weaker, s, said):
    with pytest.raises(UserError, match=said):
        AutoGuidance(denoiser(), weaker, s)


def test_two_kinds_of_guidance_add_up_and_one_is_not_given_twice():
    plain, weaker = denoiser(), denoiser("eps", step=7)
    both = AutoGuidance(PerturbedAttention(plain, 0.4), weaker, 1.5)
    labels = torch.tensor([4, 15])
    with torch.no_grad():
        eps = plain(X, T, labels)
        alone = [PerturbedAttention(plain, 0.4)(X, T, labels), AutoGuidance(plain, weaker, 1.5)(X, T, labels)]
        torch.testing.assert_close(both(X, T, labels), sum(alone) - eps, rtol=1e-4, atol=1e-5)
    assert both.guidance == both.facts == {"attention_guidance": 0.4, "autoguidance": 1.5, "weaker_step": 7}
    with pytest.raises(UserError, match="is guided in this way already"):
        AutoGuidance(both, weaker)
    with pytest.raises(UserError, match="is guided in this way already"):
        PerturbedAttention(both)
