"""The Fréchet distance of Heusel et al. (arXiv 1706.08500), in the features of any encoder."""

import torch
from torch import Tensor

from ..errors import check
from .encoder import finite


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance between two sets of features (n, D) and (m, D), each taken for a Gaussian.

        d² = |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)

    (Dowson and Landau 1982; in Inception's features it is the FID, arXiv 1706.08500, eq. 6, which is d² itself.)
    In float64. Of few features d² is too large, by about the same amount for any two sets of the same sizes: compare
    it only with one of the same sizes.

    Raises `UserError` for sets of fewer than two features, of different D, or with numbers that are not finite.

    >>> a = torch.tensor([[-1.0], [1.0]])
    >>> frechet_distance(a, a + 3)
    9.0
    """
    shapes = tuple(features_a.shape), tuple(features_b.shape)
    fit = all(len(shape) == 2 and shape[0] >= 2 and 1 <= shape[1] == shapes[0][1] for shape in shapes)
    check(fit, f"a Fréchet distance needs two sets of at least two features (n, D) and (m, D), not {shapes}")
    a, b = (finite(f.detach().cpu().double(), "the features") for f in (features_a, features_b))
    return gaussian_frechet_distance(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def gaussian_frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """d² of `frechet_distance` for two Gaussians, means (D,) and covariances (D, D) in float64.

    tr (Σ_a Σ_b)^½ = tr (Σ_a^½ Σ_b Σ_a^½)^½, whose matrices are symmetric: no complex square root is needed.

    >>> one = torch.eye(3, dtype=torch.float64)
    >>> gaussian_frechet_distance(torch.zeros(3), one, torch.zeros(3), 4 * one)
    3.0
    """
    cov_a, cov_b = cov_a.reshape(len(mean_a), -1), cov_b.reshape(len(mean_b), -1)  # `cov` of one row is a number
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    trace_root = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_root
    return max(0.0, distance.item())
