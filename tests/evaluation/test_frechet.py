"""Fréchet distances against closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.frechet import frechet_distance, gaussian_frechet_distance
from dlcv_diffusion.evaluation.realism import Realism, realism


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_covariance(dim, seed):
    root = torch.randn(dim, dim, generator=generator(seed), dtype=torch.float64)
    return root @ root.T / dim


def test_frechet_of_gaussians_that_commute():
    """For Σ = diag(s²): |μ_a − μ_b|² + Σ (s_a − s_b)²."""
    mean_a, mean_b = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    s_a, s_b = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([3.0, 0.5, 1.0]).double()
    expected = (1 + 9) + (4 + 2.25 + 1)
    found = gaussian_frechet_distance(mean_a, s_a.square().diag(), mean_b, s_b.square().diag())
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 8, 48])
def test_frechet_is_scipys(dim):
    from scipy.linalg import sqrtm

    cov_a, cov_b = random_covariance(dim, 1), random_covariance(dim, 2)
    mean_a, mean_b = torch.randn(2, dim, generator=generator(3), dtype=torch.float64)
    root = sqrtm(cov_a.numpy() @ cov_b.numpy()).real
    expected = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * np.trace(root)
    found = gaussian_frechet_distance(mean_a, cov_a, mean_b, cov_b)
    assert found == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_in_one_dimension_from_points():
    a = torch.tensor([[0.0], [2.0], [4.0]])  # mean 2, variance 4
    b = torch.tensor([[10.0], [11.0], [12.0]])  # mean 11, variance 1
    assert frechet_distance(a, b) == pytest.approx(81 + 1)


@given(seed=st.integers(0, 2**31), n=st.integers(2, 60), dim=st.integers(1, 12))
def test_frechet_invariances(seed, n, dim):
    """Zero to itself, in any order; symmetric; blind to a rotation of both; a shift adds its squared length."""
    a = torch.randn(n, dim, generator=generator(seed))
    b = torch.randn(n + 3, dim, generator=generator(seed + 1)) * 2 + 1
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator(seed + 2)).double())[0]
    distance = frechet_distance(a, b)
    close = {"rel": 1e-4, "abs": 1e-4}
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(b, a) == pytest.approx(distance, **close)
    assert frechet_distance(a.double() @ rotation, b.double() @ rotation) == pytest.approx(distance, **close)
    assert frechet_distance(a, a + 3) == pytest.approx(9 * dim, **close)


def test_frechet_of_fewer_points_than_dimensions_is_a_number():
    a, b = torch.randn(2, 5, 48, generator=generator())
    assert 0 < frechet_distance(a, b) < math.inf


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_frechet_says_what_it_needs(shapes):
    with pytest.raises(UserError, match="two sets of at least two features"):
        frechet_distance(*(torch.zeros(shape) for shape in shapes))


def test_realism_takes_medians_and_knows_its_yardstick():
    def draw(shift, seed):
        samples, held_out, others = torch.randn(3, 60, 4, generator=generator(seed))
        return samples + shift, held_out, others

    draws = [draw(shift, seed) for seed, shift in enumerate((0.0, 0.0, 9.0))]
    found, odd = realism(draws), realism(draws[2:])
    assert found.frechet_ratio == found.frechet / found.frechet_real < 4
    assert found.recall > 0.7 and found.recall_real > 0.7  # the odd draw out does not count
    assert odd.frechet > 4 * 80 and odd.recall == 0 and odd.recall_real > 0.7


def test_a_ratio_to_nothing_is_infinite_and_no_numbers_stay_none():
    assert Realism(frechet=1.0, frechet_real=0.0).frechet_ratio == math.inf
    assert math.isnan(Realism().frechet_ratio)
    assert Realism(frechet=2.0, frechet_real=1.0).as_dict()["frechet_ratio"] == 2
