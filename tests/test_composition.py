"""Composed prompts equal the formula, and guidance where there is one; each mask tells its own part."""

import pytest
import torch

from dlcv_diffusion import UserError, guided
from dlcv_diffusion.composition import composed, halves


class Told:
    """A denoiser of embeddings (B, 2), that counts what it is asked."""

    null = torch.tensor([0.3, -0.2])

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, c):
        self.batches.append(len(x))
        return torch.sin(x * (1 + c[:, :1, None, None])) + c[:, 1:, None, None] * (t / 100).reshape(-1, 1, 1, 1)


def batch(n=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, 6, 8, generator=generator)
    return x, torch.full((n,), 70), *torch.randn(3, n, 2, generator=generator)


def test_one_condition_is_guidance():
    x, t, c, *_ = batch()
    expected = guided(Told(), c, w=4.0)(x, t)
    torch.testing.assert_close(composed(Told(), [c], 5.0)(x, t), expected, atol=1e-5, rtol=1e-5)


def test_the_formula_in_one_forward_pass():
    told, (x, t, *conditions) = Told(), batch()
    scales, nothing = [2.0, 0.5, -1.0], told(x, t, told.null.expand(3, -1))
    expected = nothing + sum(s * (told(x, t, c) - nothing) for s, c in zip(scales, conditions, strict=True))
    told.batches.clear()
    torch.testing.assert_close(composed(told, conditions, scales)(x, t), expected, atol=1e-5, rtol=1e-5)
    assert told.batches == [12]


def test_each_half_is_told_by_its_own_sentence():
    x, t, a, b, _ = batch()
    masks = halves(6, 8)
    assert torch.equal(masks[0] + masks[1], torch.ones(6, 8)) and torch.equal(masks[0], masks[1].flip(-1))
    eps = composed(Told(), [a, b], 3.0, masks=masks)(x, t)
    for columns, c in ((slice(0, 3), a), (slice(5, 8), b)):
        expected = guided(Told(), c, w=2.0)(x, t)
        torch.testing.assert_close(eps[..., columns], expected[..., columns], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conditions": []}, "no condition to compose"),
        ({"scales": [1.0]}, "2 conditions, 1 scales and 2 masks"),
        ({"masks": [torch.ones(6, 8)]}, "2 conditions, 2 scales and 1 masks"),
        ({"null": torch.zeros(5)}, "they must be alike"),
    ],
)
def test_what_does_not_fit(change, said):
    _, _, a, b, _ = batch()
    given = {"conditions": [a, b], "scales": 3.0, **change}
    with pytest.raises(UserError, match=said):
        composed(Told(), given.pop("conditions"), given.pop("scales"), **given)


def test_another_number_of_pictures_is_refused():
    x, t, a, b, _ = batch()
    with pytest.raises(UserError, match="3 embeddings a sentence for 2 images"):
        composed(Told(), [a, b])(x[:2], t[:2])


@pytest.mark.parametrize("shape", [(3, 6, 8), (3, 3), (1, 1, 6, 8), (3, 4, 6, 8)])
def test_a_mask_of_another_size_is_refused(shape):
    """Three masks (H, W) in one would weigh channels, where there are as many of them as pictures."""
    x, t, a, b, _ = batch()
    with pytest.raises(UserError, match="make it"):
        composed(Told(), [a, b], masks=[torch.ones(shape)] * 2)(x, t)


def test_masks_may_differ_between_pictures():
    x, t, a, b, _ = batch()
    ones = torch.ones(3, 1, 6, 8)
    one, other = composed(Told(), [a, b])(x, t), composed(Told(), [a, b], masks=[ones, ones])(x, t)
    assert torch.equal(one, other)


def test_halves_need_a_ramp():
    with pytest.raises(UserError, match="give more than 0"):
        halves(4, 4, soft=0)
