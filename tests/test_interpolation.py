"""slerp and lerp against closed forms and scipy, at the edges where angles vanish, and on noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp

from dlcv_diffusion import UserError, seeded_noise
from dlcv_diffusion.interpolation import angle, corner_grid, lerp, slerp

ALPHAS = torch.linspace(0, 1, 11)


@given(st.integers(0, 10_000), st.integers(2, 40))
def test_slerp_of_unit_vectors_is_scipys(seed, size):
    a, b = (
        x / x.norm() for x in torch.randn(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )
    ours = slerp(a[None], b[None], ALPHAS.double())
    assert np.allclose(ours.numpy(), geometric_slerp(a.numpy(), b.numpy(), ALPHAS.double().numpy()), atol=1e-7)


@given(st.integers(0, 10_000), st.floats(-1, 2))
def test_the_ends_and_the_symmetry(seed, alpha):
    a, b = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    for between in (slerp, lerp):
        assert torch.allclose(between(a, b, 0.0), a, atol=1e-6) and torch.allclose(between(a, b, 1.0), b, atol=1e-6)
        assert torch.allclose(between(a, b, alpha), between(b, a, 1 - alpha), atol=1e-5)


def test_the_norm_of_noise_stays_on_the_shell_or_sinks_through_it():
    x = seeded_noise((2, 3, 64, 64), seeds=[0, 1])
    root_D = math.sqrt(3 * 64 * 64)
    on_sphere = slerp(x[:1], x[1:], ALPHAS).flatten(1).norm(dim=1) / root_D
    straight = lerp(x[:1], x[1:], ALPHAS).flatten(1).norm(dim=1) / root_D
    assert ((on_sphere - 1).abs() < 0.02).all()
    assert torch.allclose(straight, (ALPHAS**2 + (1 - ALPHAS) ** 2).sqrt(), atol=0.02)  # E|x|² of two independent ones


def test_samples_of_a_batch_do_not_touch_each_other():
    a, b = seeded_noise((5, 1, 8, 8), range(5)), seeded_noise((5, 1, 8, 8), range(5, 10))
    alphas = torch.tensor([0.0, 0.3, 0.5, 1.0, 1.5])
    together = slerp(a, b, alphas)
    alone = torch.cat([slerp(a[i : i + 1], b[i : i + 1], alphas[i].item()) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert slerp(a[:1], b[:1], alphas).shape == a.shape  # one pair, five alphas


def test_beyond_the_ends_the_circle_goes_on():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert torch.allclose(slerp(a, b, 2.0), -a, atol=1e-6) and torch.allclose(slerp(a, b, -1.0), -b, atol=1e-6)
    assert torch.equal(lerp(a, b, 2.0), torch.tensor([[-1.0, 2.0]]))


@pytest.mark.parametrize("scale", [1.0, 3.0, 1 + 1e-7])
def test_parallel_vectors_are_blended_straight(scale):
    a = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(slerp(a, scale * a, 0.25), (0.75 + 0.25 * scale) * a)


def test_nearly_parallel_vectors_lose_no_digits():
    a = torch.randn(1, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = a + 1e-5 * torch.randn(1, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(slerp(a, turned, 0.5), lerp(a, turned, 0.5), rtol=1e-9, atol=1e-9)
    eps = torch.tensor([[1.0, 1e-9]], dtype=torch.float64)
    assert angle(torch.tensor([[1.0, 0.0]]).double(), eps).item() == pytest.approx(1e-9)


@pytest.mark.parametrize(
    "a, b, words",
    [
        (torch.ones(1, 4), -torch.ones(1, 4), "opposite directions"),
        (torch.ones(1, 4), torch.zeros(1, 4), "is zero"),
        (torch.ones(1, 4), torch.full((1, 4), math.nan), "not finite"),
        (torch.full((1, 4), math.inf), torch.ones(1, 4), "not finite"),
        (torch.ones(1, 4), torch.ones(1, 5), "of one shape"),
        (torch.ones(2, 4), torch.ones(3, 4), "of one shape"),
        (torch.ones(4), torch.zeros(4), r"batches \(B, …\) of .*, not torch.float32 \(4,\); x\[None\]"),
        (torch.tensor(1.0), torch.tensor(2.0), r"batches \(B, …\)"),
        (torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 4), "floating-point numbers, not torch.int64"),
        (torch.ones(1, 4), [[1.0, 2.0, 3.0, 4.0]], "floating-point numbers, not list"),
    ],
)
def test_what_has_no_way_between_is_refused(a, b, words):
    with pytest.raises(UserError, match=words):
        slerp(a, b, 0.5)


def test_lerp_and_angle_refuse_what_is_no_batch():
    for between in (lambda a: lerp(a, a, 0.5), lambda a: angle(a, a)):
        for wrong in (torch.ones(4), torch.ones(1, 4, dtype=torch.int32)):
            with pytest.raises(UserError, match="batches|floating-point"):
                between(wrong)


def test_huge_and_tiny_vectors_have_angles():
    for scale in (1e200, 1e-200):
        a, b = scale * torch.eye(2, dtype=torch.float64)[:, None]
        assert angle(a, b).item() == pytest.approx(math.pi / 2)
        assert torch.allclose(slerp(a, b, 0.5) / scale, torch.full((1, 2), 0.5**0.5, dtype=torch.float64))


@pytest.mark.parametrize("alpha", [math.nan, [0.1, 0.2], torch.zeros(2, 2), "half", None])
def test_alphas_that_do_not_fit_are_refused(alpha):
    with pytest.raises(UserError):
        lerp(torch.ones(3, 4), torch.zeros(3, 4), alpha)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("apart", [1.0, 1e-2])
def test_the_dtype_stays_and_the_sums_are_in_float64(dtype, apart):
    """Against numpy in float64, to the last bit: with sums in less, hundreds of places would be off."""
    a, noise = seeded_noise((2, 4096), [0, 1]).split(1)
    a, b = a.to(dtype), (a + apart * noise).to(dtype)
    x, y = (v.double().numpy() for v in (a, b))
    theta = np.arccos((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))
    round_, straight = (
        np.sin(0.7 * theta) / np.sin(theta) * x + np.sin(0.3 * theta) / np.sin(theta) * y,
        0.7 * x + 0.3 * y,
    )
    for between, exact in ((slerp, round_), (lerp, straight)):
        result = between(a, b, 0.3)
        assert result.dtype == dtype
        assert (result != torch.from_numpy(exact).to(dtype)).sum() <= 2  # a tie may fall on either side


def test_a_grid_has_its_corners_and_its_edges():
    corners = seeded_noise((4, 1, 8, 8), range(4))
    grid = corner_grid(corners, rows=3, columns=5)
    assert torch.allclose(grid[[0, 0, 2, 2], [0, 4, 0, 4]], corners, atol=1e-6)
    assert torch.allclose(grid[1, 0], slerp(corners[:1], corners[2:3], 0.5)[0], atol=1e-6)
    assert torch.allclose(grid[0, 1], slerp(corners[:1], corners[1:2], 0.25)[0], atol=1e-6)
    flat = corner_grid(corners, 3, 3, between=lerp)
    assert torch.allclose(flat[1, 1], corners.mean(0), atol=1e-6)
    for wrong in ({"corners": corners[:3]}, {"corners": corners, "rows": 1}):
        with pytest.raises(UserError, match="corners"):
            corner_grid(**wrong)
