"""Schedules against the papers' formulas, written out again in plain Python floats."""

import json
import math
from itertools import accumulate
from operator import mul

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.schedule import SPACINGS

MAKERS = {
    "linear": NoiseSchedule.linear,
    "scaled_linear": NoiseSchedule.scaled_linear,
    "cosine": NoiseSchedule.cosine,
}


def linear(T):
    return [1e-4 + (2e-2 - 1e-4) * t / (T - 1) for t in range(T)]


def scaled_linear(T):
    lo, hi = math.sqrt(0.00085), math.sqrt(0.012)
    return [(lo + (hi - lo) * t / (T - 1)) ** 2 for t in range(T)]


def cosine(T):
    def f(t):
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)]


@pytest.mark.parametrize("T", [350, 1000])
@pytest.mark.parametrize("formula", [linear, scaled_linear, cosine])
def test_the_papers_formula_in_float64(formula, T):
    schedule = MAKERS[formula.__name__](T)
    betas = np.array(formula(T))
    alphas_bar = np.array(list(accumulate(1 - betas, mul)))
    before = np.concatenate([[1.0], alphas_bar[:-1]])
    expected = {
        "betas": betas,
        "alphas": 1 - betas,
        "alphas_bar": alphas_bar,
        "snr": alphas_bar / (1 - alphas_bar),
        "sigmas": np.sqrt((1 - alphas_bar) / alphas_bar),
        "posterior_variances": betas * (1 - before) / (1 - alphas_bar),
    }
    for name, values in expected.items():
        ours = getattr(schedule, name)
        assert ours.dtype == torch.float64
        np.testing.assert_allclose(ours.numpy(), values, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_linear_schedule_ends_exactly():
    assert NoiseSchedule.linear(1000).betas[[0, -1]].tolist() == [1e-4, 2e-2]


def test_numbers_that_the_documentation_quotes():
    short, paper = NoiseSchedule.linear(350), NoiseSchedule.linear(1000)
    assert short.alphas_bar[-1].item() == pytest.approx(0.029, abs=5e-4)
    assert short.alphas_bar[-1].sqrt().item() == pytest.approx(0.17, abs=5e-3)
    assert short.betas.sum().item() == pytest.approx(3.5, abs=0.02)
    assert paper.alphas_bar[-1].item() == pytest.approx(4e-5, rel=0.02)
    assert NoiseSchedule.cosine(1000).alphas_bar[-1] < 1e-7


@pytest.mark.parametrize("name, oracle", [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_the_same_betas_as_diffusers(name, oracle):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=350, beta_schedule=oracle).betas
    torch.testing.assert_close(MAKERS[name](350).betas.float(), theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_config_is_json_and_makes_the_schedule_again(make):
    schedule = make(37)
    again = NoiseSchedule.from_config(json.loads(json.dumps(schedule.config)))
    assert again == schedule and repr(again) == repr(schedule)
    own = NoiseSchedule(schedule.betas.tolist())
    assert NoiseSchedule.from_config(json.loads(json.dumps(own.config))) == schedule
    assert schedule != make(38)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(), (3,), (1, 4), (3, 5, 2)]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.lists(st.integers(0, 349), min_size=1, max_size=5),
)
def test_closed_form_for_any_shape_and_dtype(shape, dtype, ts):
    schedule, generator = NoiseSchedule.linear(350), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, len(ts), *shape, generator=generator, dtype=torch.float64)
    x0, eps = x0.to(dtype), eps.to(dtype)
    t = torch.tensor(ts)
    x = schedule.add_noise(x0, eps, t)
    assert x.shape == x0.shape and x.dtype == dtype
    for i, step in enumerate(ts):
        abar = schedule.alphas_bar[step].item()
        exact = math.sqrt(abar) * x0[i].double() + math.sqrt(1 - abar) * eps[i].double()
        torch.testing.assert_close(x[i], exact.to(dtype))
        torch.testing.assert_close(x[i], schedule.add_noise(x0[i : i + 1], eps[i : i + 1], step)[0])
    if dtype in (torch.float32, torch.float64):
        tolerance = 1e-4 if dtype == torch.float32 else 1e-12  # σ_0 = 0.01 divides the rounding of x_t
        torch.testing.assert_close(schedule.predict_x0(x, eps, t), x0, atol=tolerance, rtol=0)
        torch.testing.assert_close(schedule.predict_eps(x, x0, t), eps, atol=tolerance, rtol=0)


def test_coefficients_are_float32_rounded_from_float64():
    schedule = NoiseSchedule.linear(350)
    signal, noise = schedule.signal_and_noise(torch.arange(350), torch.zeros(350, 3, 2, 2))
    assert signal.dtype == torch.float32 and signal.shape == (350, 1, 1, 1)
    assert torch.equal(signal.flatten(), schedule.alphas_bar.sqrt().float())
    assert torch.equal(noise.flatten(), (1 - schedule.alphas_bar).sqrt().float())


def test_closed_form_is_the_distribution_of_step_by_step_noising():
    """x_t = √α_t x_{t−1} + √β_t z, T times, has mean √ᾱ_t x0 and variance 1 − ᾱ_t."""
    schedule = NoiseSchedule.linear(350)
    mean, variance = 1.0, 0.0
    for t in range(schedule.T):
        mean *= schedule.alphas[t].sqrt().item()
        variance = schedule.alphas[t].item() * variance + schedule.betas[t].item()
        signal, noise = schedule.signal_and_noise(t, torch.zeros(1, dtype=torch.float64))
        assert signal.item() == pytest.approx(mean, rel=1e-9)
        assert noise.item() ** 2 == pytest.approx(variance, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000), st.data())
def test_timesteps_descend_within_the_schedule(T, data):
    schedule = NoiseSchedule.linear(T)
    n = data.draw(st.integers(1, T))
    for spacing in SPACINGS:
        t = schedule.timesteps(n, spacing)
        assert len(t) == n and all(type(step) is int for step in t)
        assert t == sorted(set(t), reverse=True) and t[-1] >= 0 and t[0] < T
    assert schedule.timesteps(n, "uniform") == [math.floor(i * T / n + 1e-9) for i in range(n)][::-1]
    assert schedule.timesteps(n, "trailing")[0] == T - 1
    for spacing in SPACINGS:
        assert schedule.timesteps(T, spacing) == list(range(T))[::-1]


@pytest.mark.parametrize("n", [1, 5, 10, 20, 50, 1000])
@pytest.mark.parametrize("ours, theirs", [("uniform", "leading"), ("trailing", "trailing")])
def test_the_same_timesteps_as_diffusers(n, ours, theirs):
    from diffusers import DDIMScheduler

    offset = 1 if ours == "uniform" and n < 1000 else 0
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing=theirs, steps_offset=offset)
    scheduler.set_timesteps(n)
    assert NoiseSchedule.linear(1000).timesteps(n, ours, offset) == scheduler.timesteps.tolist()


def test_interval_is_the_noise_levels_asked_for():
    schedule = NoiseSchedule.linear(350)
    lo, hi = schedule.interval(0.2, 3.0)
    assert schedule.sigmas[lo - 1] < 0.2 <= schedule.sigmas[lo]
    assert schedule.sigmas[hi] <= 3.0 < schedule.sigmas[hi + 1]
    assert schedule.interval(0, math.inf) == (0, 349)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: NoiseSchedule([]), "betas"),
        (lambda: NoiseSchedule([0.1, 1.5]), "betas"),
        (lambda: NoiseSchedule.linear(0), "1 to 1,000,000 timesteps, not 0"),
        (
            lambda: NoiseSchedule.from_config({"schedule": "sigmoid", "T": 10}),
            "sigmoid.*linear, scaled_linear",
        ),
        (lambda: NoiseSchedule.from_config({"schedule": "linear", "steps": 10}), "not a noise schedule"),
        (lambda: NoiseSchedule.from_config({}), "not a noise schedule"),
        (lambda: NoiseSchedule.from_config({"schedule": "betas", "betas": ["a"]}), "list of betas.*a number"),
        (lambda: NoiseSchedule.from_config({"schedule": "betas", "betas": None}), "list of betas.*a number"),
        (lambda: NoiseSchedule.from_config({"schedule": "betas", "betas": [[0.1], [0.1, 0.2]]}), "list of betas"),
        (lambda: NoiseSchedule.linear(350).timesteps(351), "351 steps"),
        (lambda: NoiseSchedule.linear(350).timesteps(0), "0 steps"),
        (lambda: NoiseSchedule.linear(350).timesteps(10, "karras"), "karras"),
        (lambda: NoiseSchedule.linear(350).timesteps(350, offset=1), r"\(--offset\) 0"),
        (lambda: NoiseSchedule.linear(1000).timesteps(999, offset=2), r"\(--offset\) from 0 to 1"),
        (lambda: NoiseSchedule([1e-17]), "exactly 1 or 0"),
        (lambda: NoiseSchedule([0.999999] * 100), "exactly 1 or 0"),
        (lambda: NoiseSchedule.linear(350).check_timesteps([3, 3, 1]), "descend"),
        (lambda: NoiseSchedule.linear(350).check_timesteps([]), "descend"),
        (lambda: NoiseSchedule.linear(350).interval(50, 60), "noise level"),
        (lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(1), torch.zeros(1), -1), "timestep -1"),
        (lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(1), torch.zeros(1), np.int64(-1)), "timestep -1"),
        (lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(1), torch.zeros(1), np.int64(350)), "timestep 350"),
        (lambda: NoiseSchedule.linear(350).predict_x0(torch.zeros(1), torch.zeros(1), 350), "timestep 350"),
        (lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(1), torch.zeros(1), torch.tensor([-1])), r"-1"),
        (lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(1), torch.zeros(1), torch.tensor([350])), "350"),
        (
            lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(2), torch.zeros(2), torch.zeros(3).long()),
            "timestep",
        ),
        (lambda: NoiseSchedule.linear(350).add_noise(torch.zeros(2, 3), torch.zeros(2, 1), 5), "one shape"),
        (lambda: NoiseSchedule.linear(350).predict_eps(torch.zeros(2, 3), torch.zeros(3), 5), "one shape"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(wrong, words):
    with pytest.raises(UserError, match=words):
        wrong()
