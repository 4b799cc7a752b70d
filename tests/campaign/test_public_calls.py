"""The public calls with random and hostile numbers: a result is finite and right, or there is a `UserError`.

Nothing else may come out: no other exception, no NaN, no shape that was broadcast behind the caller's back.
"""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlcv_diffusion import (
    Denoiser,
    NoiseSchedule,
    NoiseStream,
    UserError,
    ddim,
    ddpm,
    dpm_solver,
    drop_labels,
    guided,
    last,
    seeded_noise,
)
from dlcv_diffusion.denoiser import PREDICTIONS, to_eps, training_target
from dlcv_diffusion.digits.sampling import SamplingConfig, sample_digits
from dlcv_diffusion.evaluation.accuracy import accuracy_of
from dlcv_diffusion.evaluation.frechet import frechet_distance
from dlcv_diffusion.evaluation.neighbours import nearest_neighbours
from dlcv_diffusion.faces.sampling import FaceSampling, sample_faces
from dlcv_diffusion.images.pixels import stretched, to_uint8, to_x0
from dlcv_diffusion.interpolation import angle, corner_grid, lerp, slerp
from dlcv_diffusion.inversion import ddim_inversion
from dlcv_diffusion.models import UNet
from dlcv_diffusion.training.loop import TrainConfig, learning_rate

campaign = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

whole = st.one_of(st.integers(-3, 30), st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, -(2**63), 10**30]))
number = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-2, 2),
    st.sampled_from([0.0, -0.0, 1e-300, 1e39, 1e300, math.nan, math.inf]),
)
counts = st.integers(1, 4)
SMALL = NoiseSchedule.linear(20)


@st.composite
def tensors(draw, shape=None, finite=False):
    """Floating-point tensors, mostly noise, now and then with what nobody expects in them."""
    shape = draw(st.lists(st.integers(0, 3), min_size=0, max_size=4)) if shape is None else shape
    x = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    spoilt = draw(st.sampled_from(["", "", "", "zero", "nan", "inf", "huge", "tiny", "float64", "half", "int"]))
    if spoilt in ("nan", "inf") and x.numel() and not finite:
        x.view(-1)[0] = float(spoilt)
    scale = {"zero": 0.0, "huge": 1e30, "tiny": 1e-30}.get(spoilt, 1.0)
    kind = {"float64": torch.float64, "half": torch.float16, "int": torch.int64}.get(spoilt, torch.float32)
    return (scale * x).to(kind)


def or_refused(call, *args, **kwargs):
    """What the call gives, or None where it raises a `UserError` of one line; any other exception fails the test."""
    try:
        return call(*args, **kwargs)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return None


def finite(x: torch.Tensor) -> bool:
    return bool(x.isfinite().all())


class Shrink(torch.nn.Module):
    """The best ε for data N(0, 1); a label or embedding c makes it c times as large."""

    def forward(self, x, t, condition=None):
        c = 1 if condition is None else condition.flatten(1).mean(1) if condition.ndim > 1 else condition
        return SMALL.signal_and_noise(t, x)[1] * x * torch.as_tensor(c, dtype=x.dtype).reshape(-1, 1, 1, 1)


def shrink(**options) -> Denoiser:
    return Denoiser(Shrink(), SMALL, shape=(1, 2, 2), **options)


# --- noise and schedules ----------------------------------------------------------------------------------------


@campaign
@given(st.lists(st.one_of(whole, number), max_size=3), st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_noise(seeds, rest):
    x = or_refused(seeded_noise, (len(seeds), *rest), seeds)
    assert x is None or (
        x.shape == (len(seeds), *rest)
        and finite(x)
        and all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    )
    stream = or_refused(NoiseStream, seeds)
    z = stream and or_refused(stream, torch.zeros(2, 3))
    assert z is None or (len(seeds) == 2 and z.shape == (2, 3))


@campaign
@given(st.sampled_from(["linear", "scaled_linear", "cosine"]), whole.filter(lambda T: T < 10**6), number, number)
def test_schedules(kind, T, first, second):
    make = getattr(NoiseSchedule, kind)
    schedule = or_refused(make, T, first) if kind == "cosine" else or_refused(make, T, first, second)
    if schedule is not None:
        assert schedule.T == T and finite(schedule.snr.log()) and finite(schedule.sigmas)
        assert schedule.alphas_bar[-1] > 0 and schedule.alphas_bar[0] < 1
        assert NoiseSchedule.from_config(schedule.config) == schedule


@campaign
@given(st.lists(number, max_size=5))
def test_betas(betas):
    schedule = or_refused(NoiseSchedule, betas)
    assert schedule is None or (finite(schedule.snr) and all(0 < beta < 1 for beta in betas))


json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**6), st.floats(), st.text(max_size=5)),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=5), inside, max_size=3)),
    max_leaves=6,
)


@campaign
@given(st.sampled_from(["linear", "scaled_linear", "cosine", "betas", "", "__init__"]), json, json, st.booleans())
def test_configs_of_schedules(kind, T, other, known):
    config = {"schedule": kind, "T": T, ("beta_1" if known else "beta"): other}
    schedule = or_refused(NoiseSchedule.from_config, config)
    assert schedule is None or finite(schedule.snr.log())


@campaign
@given(whole, st.sampled_from(["uniform", "trailing", "leading", ""]), whole, number, number)
def test_timesteps(n, spacing, offset, low, high):
    times = or_refused(SMALL.timesteps, n, spacing, offset)
    if times is not None:
        assert len(times) == n and times == sorted(set(times), reverse=True)
        assert times[-1] >= 0 and times[0] < SMALL.T
        assert offset or (times[0] == SMALL.T - 1 if spacing == "trailing" else times[-1] == 0)
    interval = or_refused(SMALL.interval, low, high)
    assert interval is None or low <= SMALL.sigmas[interval[0]] <= SMALL.sigmas[interval[1]] <= high


@campaign
@given(
    tensors(), tensors(), st.one_of(whole.filter(lambda t: abs(t) < 2**63), st.lists(st.integers(-2, 22), max_size=3))
)
def test_between_x0_eps_and_x(x, other, t):
    t = torch.tensor(t) if isinstance(t, list) else t
    for call in (SMALL.add_noise, SMALL.predict_x0, SMALL.predict_eps):
        made = or_refused(call, x, other, t)
        assert made is None or (made.shape == x.shape == other.shape and made.dtype == x.dtype)
        assert made is None or x.is_floating_point()
        if made is not None and finite(x) and finite(other) and x.dtype != torch.float16:
            assert finite(made) or x.abs().max() > 1e29
            assert torch.as_tensor(t).min() >= 0 and torch.as_tensor(t).max() < SMALL.T


@campaign
@given(tensors((2, 1, 2, 2), finite=True), st.sampled_from(PREDICTIONS), st.integers(0, 19))
def test_every_prediction_leads_back_to_eps(x0, prediction, t):
    if x0.dtype in (torch.float32, torch.float64):
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(t)).to(x0.dtype)
        x = SMALL.add_noise(x0, eps, t)
        found = to_eps(training_target(x0, eps, t, SMALL, prediction), x, t, SMALL, prediction)
        torch.testing.assert_close(found, eps, rtol=1e-4, atol=1e-3 * max(1, x0.abs().max().item()))


# --- samplers ---------------------------------------------------------------------------------------------------


@campaign
@given(
    st.sampled_from([ddim, ddpm, dpm_solver]),
    st.one_of(whole, st.lists(st.integers(-2, 22), max_size=4)),
    st.sampled_from(["uniform", "trailing", "log_snr"]),
    number,
    st.lists(st.integers(-1, 9), max_size=4),
    tensors((2, 1, 2, 2)),
)
def test_samplers(sampler, steps, spacing, eta, seeds, x):
    options = {ddim: {"eta": eta, "seeds": seeds}, ddpm: {"seeds": seeds}, dpm_solver: {}}[sampler]
    walk = or_refused(sampler, shrink(), x, steps=steps, spacing=spacing, **options)
    step = walk and or_refused(last, walk)
    if step is not None and finite(x) and x.dtype != torch.float16:
        assert step.x.shape == x.shape and (finite(step.x) or x.abs().max() > 1e29)
        assert 0 <= step.t < SMALL.T
        if sampler is ddim and eta == 0 and x.dtype == torch.float64:  # a product of cosines, in closed form
            times = SMALL.timesteps(steps, spacing) if isinstance(steps, int) else steps
            angles = [torch.arccos(SMALL.alphas_bar[t].sqrt()).item() for t in times] + [0.0]
            factor = math.prod(math.cos(a - b) for a, b in zip(angles, angles[1:], strict=False))
            torch.testing.assert_close(step.x, factor * x, rtol=1e-5, atol=1e-6)


@campaign
@given(whole, st.integers(-2, 3), tensors((2, 1, 2, 2)))
def test_inversion(steps, refine, x0):
    walk = or_refused(ddim_inversion, shrink(), x0, steps=steps, refine=refine)
    step = walk and or_refused(last, walk)
    assert step is None or not finite(x0) or x0.dtype == torch.float16 or finite(step.x) or x0.abs().max() > 1e29


@campaign
@given(st.lists(st.one_of(whole, number, st.text(max_size=2)), max_size=3), number, st.tuples(whole, whole))
def test_guidance(labels, w, interval):
    denoise = or_refused(guided, shrink(null=20), labels, w, interval=interval)
    if denoise is not None:
        assert all(isinstance(label, int) and 0 <= label <= 20 for label in labels)
        assert all(isinstance(end, int) for end in interval) and interval[0] <= interval[1]
        eps = or_refused(denoise, torch.ones(2, 1, 2, 2), torch.tensor([3, 3]))
        assert eps is None or (len(labels) == 2 and eps.shape == (2, 1, 2, 2))
        if eps is not None and math.isfinite(w) and abs(w) < 1e6:
            inside = w if interval[0] <= 3 <= interval[1] else 0
            right = [
                ((1 + inside) * label - inside * 20) * SMALL.signal_and_noise(3, eps)[1].item() for label in labels
            ]
            torch.testing.assert_close(eps.flatten(1).mean(1), torch.tensor(right), rtol=1e-3, atol=1e-2)


@campaign
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([None, 1, 2]), st.floats(-5, 5), st.booleans())
def test_guidance_by_embeddings(count, size, nulls, w, half):
    """∅ is one embedding, one for all images as a batch of one, or one for each."""
    condition = torch.arange(count * size, dtype=torch.float32).reshape(count, size)
    null = torch.ones(size) if nulls is None else torch.ones(nulls, size)
    denoise = or_refused(guided, Denoiser(Shrink(), SMALL, shape=(1, 2, 2)), condition, w, null=null)
    if denoise is not None:
        dtype = torch.float64 if half else torch.float32
        eps = denoise(torch.ones(count, 1, 2, 2, dtype=dtype), torch.tensor(count * [5]))
        right = ((1 + w) * condition.mean(1) - w) * SMALL.signal_and_noise(5, eps)[1].item()
        torch.testing.assert_close(eps.flatten(1).mean(1), right.to(dtype), rtol=1e-3, atol=1e-3)
    else:
        assert nulls not in (None, 1, count)


@campaign
@given(st.lists(st.integers(0, 19), max_size=5), number)
def test_dropped_labels(labels, p):
    given_labels = torch.tensor(labels, dtype=torch.int64)
    dropped = or_refused(drop_labels, given_labels, p, 20, torch.Generator().manual_seed(0))
    assert dropped is None or (0 <= p <= 1 and ((dropped == given_labels) | (dropped == 20)).all())


# --- between noises ----------------------------------------------------------------------------------------------


@campaign
@given(tensors(), tensors(), st.one_of(number, st.lists(number, max_size=3)))
def test_interpolation(a, b, alpha):
    for between in (lerp, slerp):
        made = or_refused(between, a, b, alpha)
        if made is not None and made.numel() and made.dtype != torch.float16:
            alphas = torch.tensor(alpha, dtype=torch.float64).flatten()
            assert finite(made) or max(a.abs().max(), b.abs().max()) * alphas.abs().max() > 1e37
            assert len(made) == max(len(a), len(b), alphas.numel()) and made.shape[1:] == a.shape[1:] == b.shape[1:]
    theta = or_refused(angle, a, b)
    assert theta is None or not finite(a) or not finite(b) or ((theta >= 0) & (theta <= math.pi + 1e-9)).all()


@campaign
@given(st.integers(0, 5), st.integers(-1, 4), st.integers(-1, 4))
def test_corner_grids(corners, rows, columns):
    x = seeded_noise((corners, 1, 2, 2), range(corners))
    grid = or_refused(corner_grid, x, rows, columns)
    assert grid is None or (grid.shape == (rows, columns, 1, 2, 2) and torch.equal(grid[0, 0], x[0]))


# --- pixels, settings, measures ----------------------------------------------------------------------------------


@campaign
@given(tensors((2, 1, 2, 2)))
def test_pixels(x):
    pixels = or_refused(to_uint8, x)
    assert (pixels is not None) == finite(x)
    if pixels is not None:
        inside = x.float().abs().amax() <= 1
        assert pixels.dtype == torch.uint8 and (not inside or (to_x0(pixels) - x.float()).abs().max() <= 1 / 127)
        flat = or_refused(to_uint8, stretched(x))
        assert flat is not None and flat.flatten(1).amin(1).eq(0).all()


@campaign
@given(
    st.sampled_from(["dpm_solver", "ddim", "ddpm", "euler"]), whole, number, st.tuples(number, number), st.booleans()
)
def test_digits(sampler, steps, w, interval, limited):
    config = or_refused(SamplingConfig, sampler, steps, w, interval if limited else None)
    if config is not None:
        assert config.steps >= 1 and math.isfinite(config.w)
        torch.manual_seed(0)
        network = UNet(num_classes=20, channels=(8, 16), blocks=1, emb_channels=8)
        denoiser = Denoiser(network, SMALL, shape=(3, 28, 28), null=20)
        images = or_refused(sample_digits, denoiser, [3, 13], [0, 1], config)
        assert images is None or (images.shape == (2, 3, 28, 28) and images.dtype == torch.uint8)


@campaign
@given(whole, number, st.integers(-30, 30), st.sampled_from(["one", "first", "two"]), st.one_of(st.none(), number))
def test_faces(steps, eta, offset, final_alpha, clip_x0):
    config = or_refused(FaceSampling, steps, eta, offset=offset, final_alpha=final_alpha, clip_x0=clip_x0)
    if config is not None:
        assert config.steps >= 1 and 0 <= config.eta <= 1
        faces = or_refused(sample_faces, shrink(), seeded_noise((2, 1, 2, 2), [0, 1]), config)
        assert faces is None or (faces.shape == (2, 1, 2, 2) and faces.dtype == torch.uint8)


@campaign
@given(whole, whole, number, number, number, whole)
def test_settings_of_a_run(steps, batch_size, lr, label_drop, decay, warmup):
    config = or_refused(
        TrainConfig, steps=steps, batch_size=batch_size, lr=lr, label_drop=label_drop, decay=decay, warmup=warmup
    )
    if config is not None:
        rates = [learning_rate(step, config) for step in (0, steps // 2, steps - 1)]
        assert all(0 <= rate <= config.lr for rate in rates)


@campaign
@given(tensors(), tensors(), st.integers(-1, 4))
def test_distances(a, b, k):
    distance = or_refused(frechet_distance, a, b)
    assert distance is None or (math.isfinite(distance) and distance >= -1e-6 * max(1.0, a.abs().max().item() ** 2))
    if a.ndim == b.ndim == 4:
        rows = or_refused(nearest_neighbours, a.nan_to_num().to(torch.uint8), b.nan_to_num().to(torch.uint8), k=k)
        assert rows is None or (rows[0].shape == (len(a), k) and (rows[0] < len(b)).all() and finite(rows[1]))


@campaign
@given(st.lists(st.integers(-1, 11), max_size=6), st.lists(st.integers(-1, 11), max_size=6))
def test_accuracy(read, wanted):
    found = or_refused(accuracy_of, torch.tensor(read, dtype=torch.int64), torch.tensor(wanted, dtype=torch.int64), 10)
    if found is not None and len(read):
        right = sum(a == b for a, b in zip(read, wanted, strict=True)) / len(read)
        assert found.accuracy == pytest.approx(right)
