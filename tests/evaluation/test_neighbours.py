"""Neighbours: planted copies, distances by hand, and precision and recall of sets that are known to overlap."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation import neighbours
from dlcv_diffusion.evaluation.neighbours import Nearest, nearest_neighbours, nearest_training, share_within


def images(count, seed, shape=(3, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("part", [10, 20_000])
def test_planted_copies_are_found(part, monkeypatch):
    monkeypatch.setattr(neighbours, "PART", part)
    reference, samples = images(57, 0), images(5, 1)
    samples[1] = reference[41]
    samples[4] = reference[8]
    samples[4, 0, 0, 0] ^= 16  # one value of 192 is off by 16
    rows, distances = nearest_neighbours(samples, reference, k=3)
    assert rows[1, 0] == 41 and distances[1, 0] == 0
    assert rows[4, 0] == 8 and distances[4, 0] == pytest.approx(math.sqrt(16**2 / 192), rel=1e-6)
    exact = (samples[:, None].double() - reference.double()).square().flatten(2).mean(-1).sqrt()
    torch.testing.assert_close(distances.double(), exact.sort(1).values[:, :3], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(exact.gather(1, rows), exact.sort(1).values[:, :3], atol=1e-3, rtol=1e-5)
    near = nearest_training(samples, reference, samples[[0, 2, 3]])
    assert near.smallest == 0 and near.real_smallest > 60


@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), m=st.integers(1, 40), k=st.integers(1, 40))
def test_neighbours_are_those_of_a_plain_search(seed, n, m, k):
    samples, reference, k = images(n, seed, (1, 3, 3)), images(m, seed + 1, (1, 3, 3)), min(k, m)
    rows, distances = nearest_neighbours(samples, reference, k)
    exact = (samples[:, None].double() - reference.double()).square().flatten(2).mean(-1).sqrt()
    torch.testing.assert_close(distances.double(), exact.sort(1).values[:, :k], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(distances.double(), exact.gather(1, rows), atol=1e-3, rtol=1e-5)
    assert all(len(set(row)) == k for row in rows.tolist())


def test_another_encoder_sees_other_neighbours():
    """By the mean colour alone, a picture's nearest is itself with its pixels in another order."""
    samples = images(1, 3)
    shuffled = samples.flatten(2)[:, :, torch.randperm(64, generator=torch.Generator().manual_seed(0))].view_as(samples)
    reference = torch.cat([samples ^ 1, shuffled])
    by_pixels, _ = nearest_neighbours(samples, reference)
    by_colour, distance = nearest_neighbours(samples, reference, encoder=lambda x: x.float().mean((2, 3)))
    assert by_pixels.item() == 0 and by_colour.item() == 1 and distance.item() < 1e-4


def test_they_say_what_they_need():
    pictures = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match="one shape"):
        nearest_neighbours(pictures, torch.zeros(3, 3, 5, 5, dtype=torch.uint8))
    for k in (0, 4):
        with pytest.raises(UserError, match=f"{k} neighbours among 3"):
            nearest_neighbours(pictures, pictures, k=k)
    for pair in ((pictures.float(), pictures), (pictures, pictures.float())):
        with pytest.raises(UserError, match="uint8"):
            nearest_neighbours(*pair)


def test_nearest_reads_as_a_sentence():
    assert str(Nearest(31.21, 9.8, 30.4, 8.1)) == (
        "31.2 grey levels away in the median, 9.8 at least (held-out images: 30.4, 8.1)"
    )


# --- precision and recall -------------------------------------------------------------------------------------------


def brute_force(features, members, k):
    """Equation 1 of the paper, in loops."""
    inside = 0
    for feature in features.tolist():
        for member in members.tolist():
            reach = sorted(math.dist(member, other) for other in members.tolist())[k]
            if math.dist(feature, member) <= reach + 1e-12:
                inside += 1
                break
    return inside / len(features)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 12), m=st.integers(4, 12), k=st.integers(1, 3))
def test_the_share_within_is_the_papers(seed, n, m, k):
    generator = torch.Generator().manual_seed(seed)
    features, members = torch.randn(n, 2, generator=generator), torch.randn(m, 2, generator=generator)
    assert share_within(features, members, k) == pytest.approx(brute_force(features, members, k))


def test_precision_and_recall_tell_bad_samples_from_few_kinds():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(400, 3, generator=generator)
    as_real = torch.randn(400, 3, generator=generator)
    alike = 0.1 * torch.randn(400, 3, generator=generator)  # all in the middle: good ones, little variety
    wild = 6 * torch.randn(400, 3, generator=generator)  # as far as real ones, and further
    precision, recall = (lambda s: share_within(s, real)), (lambda s: share_within(real, s))
    assert precision(as_real) > 0.9 and recall(as_real) > 0.9
    assert precision(alike) > 0.99 and recall(alike) < 0.2
    assert precision(wild) < 0.3 and recall(wild) > 0.9


def test_too_few_members_are_refused():
    with pytest.raises(UserError, match="3 features have no neighbours number 3"):
        share_within(torch.zeros(5, 2), torch.zeros(3, 2))
