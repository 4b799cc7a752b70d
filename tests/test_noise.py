"""Image i depends on seed i alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcv_diffusion import NoiseStream, UserError, seeded_noise
from dlcv_diffusion.noise import seeded_weights

SHAPE = (3, 5, 7)  # no multiple of anything that a vectorised generator might like


def test_each_image_is_its_own_generators():
    noise = seeded_noise((2, *SHAPE), seeds=[11, 2**32 - 1])
    for image, seed in zip(noise, [11, 2**32 - 1], strict=True):
        assert torch.equal(image, torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 9))
def test_batch_and_order_change_nothing(seeds, channels, size):
    shape = (channels, size, size)
    together = seeded_noise((len(seeds), *shape), seeds)
    assert together.shape == (len(seeds), *shape) and together.dtype == torch.float32
    backwards = seeded_noise((len(seeds), *shape), seeds[::-1]).flip(0)
    alone = torch.cat([seeded_noise((1, *shape), [seed]) for seed in seeds])
    assert torch.equal(together, backwards) and torch.equal(together, alone)


def test_a_stream_gives_each_image_its_own_fresh_noise():
    x = torch.zeros(3, *SHAPE)
    stream, alone = NoiseStream([4, 5, 6]), NoiseStream([5])
    for _ in range(3):
        z = stream(x)
        assert torch.equal(z[1:2], alone(x[1:2]))
    assert not torch.equal(z, stream(x))


def test_a_stream_has_the_dtype_of_the_image():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        z = NoiseStream([1])(torch.zeros(1, *SHAPE, dtype=dtype))
        assert z.dtype == dtype
        assert torch.equal(z, NoiseStream([1])(torch.zeros(1, *SHAPE)).to(dtype))


def test_streams_are_standard_normal_and_independent_of_x_T():
    n = 3 * 64 * 64
    draws = torch.stack([seeded_noise((64, 3, 64, 64), range(64)).flatten(1), *_steps(3, n)])  # (4, 64, n)
    assert draws.mean().abs() < 5 / draws.numel() ** 0.5
    assert (draws.var() - 1).abs() < 5 * (2 / draws.numel()) ** 0.5
    # Correlations between x_T and the steps, and between neighbouring seeds, are N(0, 1/n): 5.5 σ for some
    # 8,000 pairs.
    rows = draws.flatten(0, 1)
    correlations = rows @ rows.T / n - torch.eye(len(rows)) * (rows**2).mean(1)
    assert correlations.abs().max() < 5.5 / n**0.5


def _steps(count, n):
    stream = NoiseStream(range(64))
    return [stream(torch.zeros(64, n)) for _ in range(count)]


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    NoiseStream([1])(seeded_noise((1, *SHAPE), [1]))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], [1, -1], [1, 2**32]])
def test_wrong_seeds_are_told(seeds):
    with pytest.raises(UserError, match="seed"):
        seeded_noise((2, *SHAPE), seeds)
    with pytest.raises(UserError, match="seed"):
        NoiseStream(seeds)(torch.zeros(2, *SHAPE))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_noise():
    cpu = seeded_noise((2, *SHAPE), [1, 2])
    assert torch.equal(seeded_noise((2, *SHAPE), [1, 2], device="cuda").cpu(), cpu)
    assert torch.equal(NoiseStream([1, 2])(cpu.cuda()).cpu(), NoiseStream([1, 2])(cpu))


def test_seeded_weights_leave_every_generator_as_it_was(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(3)
    wanted = torch.nn.Linear(4, 4).weight
    seeded.clear()
    state = torch.get_rng_state()
    with seeded_weights(3):
        found = torch.nn.Linear(4, 4).weight
    assert torch.equal(found, wanted) and torch.equal(torch.get_rng_state(), state) and not seeded
    with pytest.raises(ValueError, match="inside"), seeded_weights(3):
        raise ValueError("inside")
    assert torch.equal(torch.get_rng_state(), state)
