"""Samplers against diffusers' schedulers, against a closed form, and in what they leave untouched."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlcv_diffusion import (
    Denoiser,
    NoiseSchedule,
    Step,
    UserError,
    ddim,
    ddpm,
    dpm_solver,
    guided,
    last,
    seeded_noise,
)

SHAPE = (2, 3, 4, 4)
ATOL = 1e-4


def curved(x, t):
    """A denoiser that depends on x and t, smooth and not linear, that pushes x̂0 out of [−1, 1]."""
    return torch.tanh(0.8 * x + 0.3 * torch.sin(3 * x.flip(1))) + 0.2 * torch.cos(t / 300).reshape(-1, 1, 1, 1)


def x_T(dtype=torch.float32):
    return seeded_noise(SHAPE, seeds=[1, 2]).to(dtype)


def fixed_noise(count):
    return list(torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(7)))


def replay(draws):
    draws = iter(draws)
    return lambda x: next(draws)


# --- diffusers as the oracle --------------------------------------------------------------------------------


def trained_on(schedule):
    return {"num_train_timesteps": schedule.T, "trained_betas": schedule.betas.numpy()}


def assert_same(steps, scheduler, timesteps, **arguments):
    """Walk both side by side: x after every step within 1e-4."""
    x, count = x_T(), 0
    for i, (ours, t) in enumerate(zip(steps, timesteps, strict=True)):
        eps = curved(x, torch.full((len(x),), t))
        assert ours.t == t
        extra = {name: value[i] if name == "variance_noise" else value for name, value in arguments.items()}
        x = scheduler.step(eps, t, x, **extra).prev_sample
        torch.testing.assert_close(ours.x, x, atol=ATOL, rtol=ATOL)
        count += 1
    assert count == len(timesteps)


@pytest.mark.parametrize("variance, theirs", [("beta", "fixed_large"), ("posterior", "fixed_small")])
@pytest.mark.parametrize("clip_x0", [None, 1.0])
@pytest.mark.parametrize("steps", [7, 50, 350])
def test_ddpm_is_diffusers(monkeypatch, steps, clip_x0, variance, theirs):
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    schedule = NoiseSchedule.linear(350)
    scheduler = DDPMScheduler(**trained_on(schedule), variance_type=theirs, clip_sample=clip_x0 is not None)
    timesteps = schedule.timesteps(steps)  # down to t = 0: diffusers adds noise at a last step above it
    scheduler.set_timesteps(timesteps=timesteps)
    draw = replay(fixed_noise(steps))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: draw(None))
    ours = ddpm(
        curved,
        x_T(),
        schedule,
        steps=timesteps,
        variance=variance,
        clip_x0=clip_x0,
        noise=replay(fixed_noise(steps)),
    )
    assert_same(ours, scheduler, timesteps)


@pytest.mark.parametrize("final_alpha", ["one", "first"])
@pytest.mark.parametrize("clip_x0, rederive_eps", [(None, False), (1.0, False), (1.0, True)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("T, steps, spacing", [(350, 5, "uniform"), (1000, 50, "uniform"), (350, 35, "trailing")])
def test_ddim_is_diffusers(T, steps, spacing, eta, clip_x0, rederive_eps, final_alpha):
    from diffusers import DDIMScheduler

    schedule, draws = NoiseSchedule.linear(T), fixed_noise(steps)
    scheduler = DDIMScheduler(
        **trained_on(schedule),
        clip_sample=clip_x0 is not None,
        set_alpha_to_one=final_alpha == "one",
        timestep_spacing={"uniform": "leading"}.get(spacing, spacing),
    )
    scheduler.set_timesteps(steps)
    options = {"eta": eta, "clip_x0": clip_x0, "rederive_eps": rederive_eps, "final_alpha": final_alpha}
    ours = ddim(curved, x_T(), schedule, steps=steps, spacing=spacing, noise=replay(draws), **options)
    # Noise is drawn where σ > 0. With ᾱ = 1 at the end that is every step but the last, in both.
    arguments = {"eta": eta, "use_clipped_model_output": rederive_eps, "variance_noise": draws}
    assert_same(ours, scheduler, schedule.timesteps(steps, spacing), **arguments)


def test_ddim_with_the_courses_first_timestep_is_diffusers():
    from diffusers import DDIMScheduler

    schedule = NoiseSchedule.linear(1000)
    scheduler = DDIMScheduler(**trained_on(schedule), clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(50)
    timesteps = schedule.timesteps(50, offset=1)
    assert timesteps[-1] == 1
    assert_same(ddim(curved, x_T(), schedule, steps=timesteps, final_alpha="first"), scheduler, timesteps)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
@pytest.mark.parametrize("final_alpha, sigmas_type", [("one", "zero"), ("first", "sigma_min")])
@pytest.mark.parametrize("clip_x0", [None, 1.0])
@pytest.mark.parametrize(
    "make, steps",
    [(make, n) for make in (NoiseSchedule.linear, NoiseSchedule.cosine) for n in (1, 2, 5, 10, 20, 50)],
)
def test_dpm_solver_is_diffusers(make, steps, clip_x0, final_alpha, sigmas_type):
    from diffusers import DPMSolverMultistepScheduler

    schedule = make(350)
    scheduler = DPMSolverMultistepScheduler(
        **trained_on(schedule),
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type=sigmas_type,
        lower_order_final=True,  # diffusers: only below 15 steps
        euler_at_final=True,  # so that it holds above, too
        thresholding=clip_x0 is not None,  # dynamic, which a greatest value of 1 makes a plain clamp
        sample_max_value=1.0,
    )
    timesteps = schedule.timesteps(steps, "trailing")
    scheduler.set_timesteps(timesteps=timesteps)
    options = {"clip_x0": clip_x0, "final_alpha": final_alpha}
    assert_same(dpm_solver(curved, x_T(), schedule, steps=timesteps, **options), scheduler, timesteps)


# --- the papers' own identities -----------------------------------------------------------------------------


def test_ddpm_is_algorithm_2():
    """x_{t−1} = (x_t − β_t / √(1 − ᾱ_t) ε) / √α_t + √β_t z, in float64."""
    schedule, draws = NoiseSchedule.linear(350), [z.double() for z in fixed_noise(350)]
    x = x_T(torch.float64)
    for t, ours, z in zip(range(349, -1, -1), ddpm(curved, x, schedule, noise=replay(draws)), draws, strict=True):
        beta, abar = schedule.betas[t], schedule.alphas_bar[t]
        eps = curved(x, torch.full((len(x),), t))
        x = (x - beta / (1 - abar).sqrt() * eps) / (1 - beta).sqrt() + (beta.sqrt() * z if t > 0 else 0)
        torch.testing.assert_close(ours.x, x, atol=1e-9, rtol=0)


def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance():
    schedule, draws = NoiseSchedule.linear(350), fixed_noise(50)
    one = last(ddim(curved, x_T(), schedule, steps=50, eta=1.0, noise=replay(draws))).x
    two = last(ddpm(curved, x_T(), schedule, steps=50, variance="posterior", noise=replay(draws))).x
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_the_first_step_of_dpm_solver_is_a_ddim_step():
    schedule = NoiseSchedule.linear(350)
    one = next(iter(dpm_solver(curved, x_T(), schedule, steps=10)))
    two = next(iter(ddim(curved, x_T(), schedule, steps=10, spacing="trailing")))
    torch.testing.assert_close(one.x, two.x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver])
def test_a_step_says_what_was_asked_where(sampler):
    """x0 and eps belong to x_t; x is x_t of the next step; the finished image is the last x0."""
    schedule, x = NoiseSchedule.linear(350), x_T()
    options = {"seeds": [1, 2]} if sampler is ddpm else {}
    for step in sampler(curved, x, schedule, steps=20, **options):
        torch.testing.assert_close(step.eps, curved(x, torch.full((2,), step.t)))
        torch.testing.assert_close(step.x0, schedule.predict_x0(x, step.eps, step.t), atol=1e-5, rtol=1e-5)
        x = step.x
    torch.testing.assert_close(step.x, step.x0)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(1, 1, 1, 1), (3, 1, 5, 2), (2, 4, 3, 3)]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.sampled_from(["uniform", "trailing"]),
    st.integers(1, 60),
    st.floats(0, 1),
)
def test_any_shape_dtype_spacing_and_number_of_steps(shape, dtype, spacing, n, eta):
    schedule, seeds = NoiseSchedule.linear(60), range(shape[0])
    x = seeded_noise(shape, seeds).to(dtype)
    runs = [
        ddpm(lambda x, t: 0.5 * x, x, schedule, steps=n, spacing=spacing, seeds=seeds),
        ddim(lambda x, t: 0.5 * x, x, schedule, steps=n, spacing=spacing, eta=eta, seeds=seeds),
        dpm_solver(lambda x, t: 0.5 * x, x, schedule, steps=n, spacing=spacing),
        dpm_solver(lambda x, t: 0.5 * x, x, schedule, steps=n, spacing=spacing, final_alpha="first"),
    ]
    for run in runs:
        steps = list(run)
        assert [step.t for step in steps] == schedule.timesteps(n, spacing)
        for step in steps:
            for image in step[1:]:
                assert image.shape == shape and image.dtype == dtype and image.isfinite().all()


# --- Gaussian data: the best denoiser is known --------------------------------------------------------------

MU, S = 0.4, 0.5


def equal_lambdas(schedule, n):
    """n timesteps from T − 1 to 0 with equal steps of λ = ½ log snr between them, as DPM-Solver's paper takes them."""
    lambdas = schedule.snr.log() / 2
    wanted = torch.linspace(lambdas[-1], lambdas[0], n, dtype=torch.float64)
    nearest = [(lambdas - value).abs().argmin().item() for value in wanted]
    return sorted(set(nearest), reverse=True)


def gaussian(schedule, mu=MU, s=S):
    """E[ε | x_t] for x0 ~ N(μ, s²), where x_t ~ N(√ᾱ μ, ᾱ s² + 1 − ᾱ): √(1 − ᾱ) times its score, negative."""

    def denoise(x, t):
        abar = schedule.alphas_bar.to(x.dtype)[t].reshape(-1, *[1] * (x.ndim - 1))
        return (1 - abar).sqrt() * (x - abar.sqrt() * mu) / (abar * s**2 + 1 - abar)

    return denoise


def marginal(schedule, n, seed):
    """x_T as the forward process leaves it, √ᾱ_T μ from zero, not N(0, 1): n images of one pixel, float64."""
    abar = schedule.alphas_bar[-1].item()
    z = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return math.sqrt(abar) * MU + math.sqrt(abar * S**2 + 1 - abar) * z


@pytest.mark.parametrize(
    "sample, tolerance",
    [
        # The deterministic samplers are affine maps here. The exact flow carries each quantile of x_T to the
        # same quantile of N(μ, s²); what is left is the error of the steps, 1/n for DDIM and 1/n² for
        # DPM-Solver++(2M).
        (lambda f, x, s: ddim(f, x, s, steps=350, spacing="trailing"), 0.02),
        (lambda f, x, s: ddim(f, x, s, steps=35, spacing="trailing"), 0.1),
        (lambda f, x, s: dpm_solver(f, x, s, steps=equal_lambdas(s, 20)), 0.02),
        (lambda f, x, s: dpm_solver(f, x, s, steps=equal_lambdas(s, 100)), 0.005),
    ],
    ids=["ddim-350", "ddim-35", "dpm_solver-20", "dpm_solver-100"],
)
def test_the_flow_takes_quantiles_to_quantiles(sample, tolerance):
    schedule = NoiseSchedule.linear(350)
    abar = schedule.alphas_bar[-1].item()
    quantiles = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    x = math.sqrt(abar) * MU + math.sqrt(abar * S**2 + 1 - abar) * quantiles
    image = last(sample(gaussian(schedule), x, schedule)).x
    torch.testing.assert_close(image, MU + S * quantiles, atol=3 * S * tolerance, rtol=0)


def test_second_order_is_worth_it():
    """At equal steps DPM-Solver++(2M) is several times nearer to the exact flow than DDIM."""
    schedule = NoiseSchedule.linear(1000)
    abar = schedule.alphas_bar[-1].item()
    x = torch.full((1, 1), math.sqrt(abar) * MU + 2 * math.sqrt(abar * S**2 + 1 - abar), dtype=torch.float64)
    options = {"steps": equal_lambdas(schedule, 20)}
    one = last(ddim(gaussian(schedule), x, schedule, **options)).x.item() - (MU + 2 * S)
    two = last(dpm_solver(gaussian(schedule), x, schedule, **options)).x.item() - (MU + 2 * S)
    assert abs(two) < abs(one) / 4


@pytest.mark.parametrize("sampler", ["ddpm-beta", "ddpm-posterior", "ddim-0.5", "ddim-1"])
def test_stochastic_samples_have_the_right_mean_and_variance(sampler):
    """40,000 samples: the mean within 5 s/√n, the variance within 5 √(2/n) s², and 2 % for finite steps."""
    schedule, n = NoiseSchedule.linear(350), 40_000
    x, generator = marginal(schedule, n, seed=3), torch.Generator().manual_seed(4)
    noise = lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)  # noqa: E731
    name, option = sampler.split("-")
    if name == "ddpm":
        image = last(ddpm(gaussian(schedule), x, schedule, variance=option, noise=noise)).x
    else:
        image = last(ddim(gaussian(schedule), x, schedule, steps=350, eta=float(option), noise=noise)).x
    assert abs(image.mean().item() - MU) < 5 * S / math.sqrt(n)
    assert abs(image.var().item() / S**2 - 1) < 5 * math.sqrt(2 / n) + 0.02


def test_the_signal_leak_that_the_schedule_describes():
    """From N(0, 1) and not the true x_T, 350 linear steps draw dark data towards grey; 1,000 do not."""
    mu, s = -0.9, 0.05

    def mean(schedule):
        x = torch.zeros(1, 1, dtype=torch.float64)
        return last(ddim(gaussian(schedule, mu, s), x, schedule, steps=schedule.T)).x.item()

    short, paper = NoiseSchedule.linear(350), NoiseSchedule.linear(1000)
    shift = -s * math.sqrt(short.alphas_bar[-1].item()) * mu  # in units of the image, for x_T too bright by √ᾱ_T μ
    assert mean(short) - mu == pytest.approx(shift, rel=0.1)
    assert abs(mean(paper) - mu) < abs(shift) / 10


# --- seeds --------------------------------------------------------------------------------------------------

STOCHASTIC = {
    "ddpm": lambda denoise, x, seeds: ddpm(denoise, x, NoiseSchedule.linear(50), seeds=seeds),
    "ddim": lambda denoise, x, seeds: ddim(denoise, x, NoiseSchedule.linear(50), steps=20, eta=1.0, seeds=seeds),
}


@pytest.mark.parametrize("sample", STOCHASTIC.values(), ids=STOCHASTIC)
def test_image_i_depends_on_seed_i_alone(sample):
    def run(seeds):
        seeds = list(seeds)
        x = seeded_noise((len(seeds), 3, 5, 5), seeds)
        return last(sample(lambda x, t: x / (1 + x * x) + 0.001 * t.reshape(-1, 1, 1, 1), x, seeds)).x

    whole = run(range(64))
    torch.testing.assert_close(run(range(7)), whole[:7], atol=1e-6, rtol=0)
    torch.testing.assert_close(run([5]), whole[5:6], atol=1e-6, rtol=0)
    torch.testing.assert_close(run([63, 5, 17]), whole[[63, 5, 17]], atol=1e-6, rtol=0)
    assert (run([64]) - whole).abs().amax((1, 2, 3)).min() > 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("sample", STOCHASTIC.values(), ids=STOCHASTIC)
def test_a_gpu_draws_the_same_picture(sample):
    def denoise(x, t):
        return x / (1 + x * x) + 0.001 * t.reshape(-1, 1, 1, 1)

    cpu, gpu = (last(sample(denoise, x_T().to(device), [1, 2])).x for device in ("cpu", "cuda"))
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-5, rtol=0)


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    last(ddpm(curved, x_T(), NoiseSchedule.linear(20), seeds=[1, 2]))
    assert torch.equal(before, torch.get_rng_state())


# --- mode and gradients -------------------------------------------------------------------------------------


class BatchNormNet(nn.Module):
    null = 20

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 3, 1))
        self.seen = []

    def forward(self, x, t, labels=None):
        self.seen.append((self.training, self.body[1].training, torch.is_grad_enabled()))
        return self.body(x)


DENOISERS = {
    "guided": lambda model: guided(model, [3, 13]),
    "module": lambda model: model,
    "wrapped twice": lambda model: _Wrapped(guided(model, [3, 13])),
}


class _Wrapped:
    def __init__(self, model):
        self.model = model

    def __call__(self, x, t):
        return self.model(x, t)


@pytest.mark.parametrize("wrap", DENOISERS.values(), ids=DENOISERS)
def test_batchnorm_samples_in_eval_mode_and_trains_on_afterwards(wrap):
    model, schedule = BatchNormNet(), NoiseSchedule.linear(20)
    statistics = model.body[1].running_mean.clone()
    in_train_mode = last(ddim(wrap(model.train()), x_T(), schedule, steps=5)).x
    assert set(model.seen) == {(False, False, False)}
    assert model.training and model.body[1].training and torch.equal(model.body[1].running_mean, statistics)
    in_eval_mode = last(ddim(wrap(model.eval()), x_T(), schedule, steps=5)).x
    assert not model.training and torch.equal(in_train_mode, in_eval_mode)


def test_each_module_gets_its_own_mode_back():
    model = BatchNormNet().train()
    model.body[1].eval()  # a frozen BatchNorm in a model that trains
    last(ddim(guided(model, [3, 13]), x_T(), NoiseSchedule.linear(20), steps=3))
    assert model.training and not model.body[1].training and model.body[0].training


def test_between_steps_and_after_stopping_early_everything_is_as_before():
    model = BatchNormNet().train()
    for step in (steps := ddpm(guided(model, [3, 13]), x_T(), NoiseSchedule.linear(20), seeds=[1, 2])):
        assert torch.is_grad_enabled() and model.training
        assert not step.x.requires_grad and not step.x.is_inference()
        break
    assert model.training and torch.is_grad_enabled()
    model.eval()  # the caller's choice between two steps is kept
    next(steps)
    assert not model.training
    steps.close()
    with torch.no_grad():
        for _ in ddim(curved, x_T(), NoiseSchedule.linear(20), steps=2):
            assert not torch.is_grad_enabled()


def test_an_exception_leaves_mode_and_gradients_as_before():
    class Failing(BatchNormNet):
        def forward(self, x, t, labels=None):
            raise RuntimeError("out of memory")

    model = Failing().train()
    with pytest.raises(RuntimeError, match="out of memory"):
        last(ddim(guided(model, [3, 13]), x_T(), NoiseSchedule.linear(20), steps=2))
    assert model.training and model.body[1].training and torch.is_grad_enabled()


# --- last, the denoiser's own schedule, and what goes wrong -------------------------------------------------


def test_last_takes_the_last_step_of_a_sampler_that_was_not_run():
    schedule = NoiseSchedule.linear(350)
    steps = list(ddpm(curved, x_T(), schedule, seeds=[1, 2]))
    assert isinstance(steps[0], Step) and steps[0]._fields == ("t", "x", "x0", "eps")
    assert torch.equal(last(iter(steps)).x, steps[-1].x)
    spent = ddim(curved, x_T(), schedule, steps=5)
    last(spent)
    with pytest.raises(UserError, match="no steps .* only once"):
        last(spent)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver])
def test_the_denoisers_own_schedule_is_taken_unless_another_is_given(sampler):
    own, other = NoiseSchedule.linear(40), NoiseSchedule.cosine(40)
    denoise = Denoiser(curved, own)
    options = {"steps": 7, **({"seeds": [1, 2]} if sampler is ddpm else {})}
    assert torch.equal(last(sampler(denoise, x_T(), **options)).x, last(sampler(curved, x_T(), own, **options)).x)
    there = last(sampler(denoise, x_T(), other, **options)).x
    assert torch.equal(there, last(sampler(curved, x_T(), other, **options)).x)
    with pytest.raises(UserError, match="schedule"):
        sampler(curved, x_T(), **options)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver])
def test_few_steps_begin_at_the_timestep_of_their_noise(sampler):
    options = {"seeds": [1, 2]} if sampler is ddpm else {}
    assert next(sampler(curved, x_T(), NoiseSchedule.linear(350), steps=2, **options)).t == 349


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (1, 3, 4, 4), (2, 1, 4, 4)])
def test_an_epsilon_of_another_shape_is_not_broadcast(shape):
    with pytest.raises(UserError, match="shape"):
        next(ddim(lambda x, t: torch.zeros(shape), x_T(), NoiseSchedule.linear(350), steps=2))


def test_rounding_below_the_root_of_ddim_is_no_error():
    schedule = NoiseSchedule([1e-15, 1e-3, 0.5])
    assert last(ddim(curved, x_T(), schedule, steps=3, eta=1.0, seeds=[1, 2])).x.isfinite().all()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda x, s: ddpm(curved, x, s), "seeds"),
        (lambda x, s: ddim(curved, x, s, eta=0.5), "seeds"),
        (lambda x, s: ddim(curved, x, s, eta=1.5), "eta is 1.5"),
        (lambda x, s: ddim(curved, x, s, final_alpha="zero"), "final_alpha 'zero'"),
        (lambda x, s: ddpm(curved, x, s, variance="learned", seeds=[1, 2]), "variance 'learned'"),
        (lambda x, s: ddim(curved, x, s, steps=351), "351 steps"),
        (lambda x, s: dpm_solver(curved, x, s, steps=[0, 100]), "descend"),
        (lambda x, s: dpm_solver(curved, x, s, steps=[350, 100]), "leave the schedule"),
        (lambda x, s: ddim(curved, x, s, spacing="karras"), "karras"),
        (lambda x, s: last(ddpm(curved, x, s, seeds=[1, 2, 3])), "3 seeds for 2 images"),
    ],
)
def test_wrong_input_is_told_before_the_first_step(wrong, words):
    with pytest.raises(UserError, match=words):
        wrong(x_T(), NoiseSchedule.linear(350))
