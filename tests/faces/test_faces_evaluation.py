"""Principal components against scikit-free linear algebra, and distances that grow when faces get worse or alike."""

import numpy as np
import pytest
import torch

from dlcv_diffusion import UserError
from dlcv_diffusion.faces.evaluation import FacesReport, PixelComponents, evaluate_faces, sharpness, softened


def pictures(count, seed, *, spread=40.0, middle=128.0):
    """Smooth random pictures, uint8 (count, 1, 8, 8), with a few directions that are wider than the others."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(6, 64, generator=torch.Generator().manual_seed(99))
    weights = torch.randn(count, 6, generator=generator) * torch.tensor([3, 2, 1.5, 1, 0.7, 0.5])
    pixels = middle + spread / 4 * weights @ directions / 2 + 2 * torch.randn(count, 64, generator=generator)
    return pixels.clamp(0, 255).to(torch.uint8).view(count, 1, 8, 8)


def test_components_are_those_of_the_singular_value_decomposition():
    images = pictures(200, 0)
    components = PixelComponents.of(images, count=6)
    pixels = images.flatten(1).double().numpy() / 255
    _, _, rows = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    assert np.allclose(np.abs(rows[:6] @ components.basis.T.numpy()), np.eye(6), atol=1e-6)
    coordinates = components(images)
    assert coordinates.mean(0).abs().max() < 1e-9 and (coordinates.std(0).diff() < 0).all()


def test_of_few_large_images_they_are_the_same():
    """Where there are fewer images than pixels another matrix is solved."""
    few = pictures(40, 0)
    pixels = few.flatten(1).double().numpy() / 255
    _, _, rows = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    basis = PixelComponents.of(few, count=6).basis.numpy()
    assert np.allclose(np.abs(rows[:6] @ basis.T), np.eye(6), atol=1e-6)
    large = torch.randint(0, 256, (6, 3, 128, 128), dtype=torch.uint8)  # XᵀX would take 19 GB
    assert PixelComponents.of(large, count=5)(large).shape == (6, 5)


def test_soft_pictures_are_compared_with_pictures_made_as_soft():
    generator = torch.Generator().manual_seed(0)
    training, held_out, others = (
        torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8) for n in (300, 100, 100)
    )
    soft = softened(others, sharpness(others) / 9)
    assert sharpness(soft) == pytest.approx(sharpness(others) / 9, rel=0.05)
    report = evaluate_faces(soft, training, held_out, components=PixelComponents.of(training, count=10))
    assert report.sharpness == pytest.approx(1 / 9, rel=0.1)
    assert report.nearest.median < 0.9 * report.nearest.real_median  # nearer, and yet no copies:
    assert report.soft_median == pytest.approx(report.nearest.median, rel=0.02)
    assert torch.equal(softened(held_out, 1e9), held_out)


def test_real_ones_are_at_one_and_worse_ones_further_away():
    training, held_out = pictures(800, 1), pictures(200, 2)
    components = PixelComponents.of(training, count=10)

    def ratio(samples):
        return evaluate_faces(samples, training, held_out, components=components).frechet_ratio

    as_real, alike, darker = pictures(200, 3), pictures(200, 3, spread=20.0), pictures(200, 3, middle=90.0)
    assert 0.5 < ratio(as_real) < 2
    assert ratio(alike) > 5 * ratio(as_real)  # less varied
    assert ratio(darker) > 5 * ratio(as_real)  # out of place


def test_copies_are_seen():
    training, held_out = pictures(300, 1), pictures(100, 2)
    components = PixelComponents.of(training, count=10)
    copied = evaluate_faces(training[:100].clone(), training, held_out, components=components)
    fresh = evaluate_faces(pictures(100, 5), training, held_out, components=components)
    assert copied.nearest.median == 0 and fresh.nearest.median > 0.5 * fresh.nearest.real_median
    assert "0.0 grey levels" in str(copied) and copied.as_dict()["frechet_ratio"] == copied.frechet_ratio
    assert isinstance(fresh, FacesReport) and fresh.count == 100


@pytest.mark.parametrize("count", [0, 64, 200])
def test_there_are_only_so_many_components(count):
    with pytest.raises(UserError, match="principal components"):
        PixelComponents.of(pictures(60, 0), count=count)


def test_other_images_are_refused():
    components = PixelComponents.of(pictures(60, 0), count=5)
    for wrong in (
        torch.zeros(2, 1, 8, 8),
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.uint8),
    ):
        with pytest.raises(UserError, match="images|uint8"):
            components(wrong)
