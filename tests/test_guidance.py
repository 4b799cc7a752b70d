"""Classifier-free guidance equals its formula, and costs what it says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dlcv_diffusion import NoiseSchedule, UserError, drop_labels, guidance_weight, guided


class LabelNet(nn.Module):
    """A network that depends on image, timestep and label, and remembers the batches it was asked for."""

    null = 20  # the class that stands for no label

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(21, 3, 1, 1, generator=generator))
        self.batches = []

    def forward(self, x, t, labels=None):
        self.batches.append(len(x))
        labels = torch.full_like(t, self.null) if labels is None else labels
        return torch.sin(x + self.embedding[labels]) * (1 + t.reshape(-1, 1, 1, 1) / 350)


def batch(n=4):
    x = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, torch.full((n,), 100), torch.arange(n) * 5


@pytest.mark.parametrize("w", [-1.0, 0.5, 2.0, 6.0])
def test_one_doubled_forward_equals_two(w):
    model, (x, t, c) = LabelNet(), batch()
    expected = (1 + w) * model(x, t, c) - w * model(x, t)
    model.batches.clear()
    torch.testing.assert_close(guided(model, c, w)(x, t), expected, atol=1e-5, rtol=1e-5)
    assert model.batches == [8]


def test_both_conventions_are_the_same():
    model, (x, t, c) = LabelNet(), batch()
    conditional, unconditional = model(x, t, c), model(x, t)
    s = 3.0
    expected = unconditional + s * (conditional - unconditional)
    torch.testing.assert_close(guided(model, c, guidance_weight(s))(x, t), expected, atol=1e-5, rtol=1e-5)


def test_half_precision_is_summed_in_the_images_dtype():
    class Half(LabelNet):
        def forward(self, x, t, labels=None):
            return super().forward(x, t, labels).bfloat16()

    model, (x, t, c) = Half(), batch()
    expected = 3 * model(x, t, c).float() - 2 * model(x, t).float()
    torch.testing.assert_close(guided(model, c, w=2.0)(x, t), expected)


def test_no_guidance_is_one_conditional_forward():
    model, (x, t, c) = LabelNet(), batch()
    expected = model(x, t, c)
    model.batches.clear()
    assert torch.equal(guided(model, c, w=0)(x, t), expected)
    assert model.batches == [4]


def test_the_null_class_is_the_unconditional_model():
    model, (x, t, _) = LabelNet(), batch()
    torch.testing.assert_close(guided(model, [20] * 4, w=2.0)(x, t), model(x, t), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t, inside", [(49, False), (50, True), (100, True), (200, True), (201, False)])
def test_the_interval_includes_its_ends_and_saves_the_second_half(t, inside):
    model, (x, _, c) = LabelNet(), batch()
    t = torch.full((4,), t)
    expected = guided(model, c, w=2.0 if inside else 0.0)(x, t)
    model.batches.clear()
    assert torch.equal(guided(model, c, w=2.0, interval=(50, 200))(x, t), expected)
    assert model.batches == [8 if inside else 4]


def test_the_interval_holds_for_each_image_when_timesteps_differ():
    model, (x, _, c) = LabelNet(), batch()
    t = torch.tensor([0, 60, 300, 150])
    mixed = guided(model, c, w=2.0, interval=(50, 200))(x, t)
    plain, strong = guided(model, c, w=0.0)(x, t), guided(model, c, w=2.0)(x, t)
    torch.testing.assert_close(mixed[[0, 2]], plain[[0, 2]])
    torch.testing.assert_close(mixed[[1, 3]], strong[[1, 3]])


def test_the_interval_comes_from_noise_levels():
    denoise = guided(LabelNet(), [0], interval=NoiseSchedule.linear(350).interval(0.2, 3.0))
    assert denoise.interval == (35, 281)


def test_the_model_can_be_found_by_a_sampler():
    model = LabelNet()
    assert guided(model, [1]).model is model


@pytest.mark.parametrize(
    "labels, words",
    [
        ([3, 21], "label 21"),
        ([-1], "label -1"),
        ([0.5], "whole numbers"),
        ([[1, 2]], "whole numbers"),
        (3, "whole numbers"),
        ([True], "whole numbers"),
    ],
)
def test_wrong_labels_are_told(labels, words):
    with pytest.raises(UserError, match=words):
        guided(LabelNet(), labels)


def test_other_mistakes_are_told():
    x, t, _ = batch()
    with pytest.raises(UserError, match="3 labels or embeddings for 4 images"):
        guided(LabelNet(), [1, 2, 3])(x, t)
    with pytest.raises(UserError, match="give whole timesteps"):
        guided(LabelNet(), [1], interval=(200, 50))
    with pytest.raises(UserError, match="no condition"):
        guided(nn.Identity(), [1])
    with pytest.raises(UserError, match="between 0 and 1"):
        drop_labels(torch.zeros(1, dtype=torch.int64), 1.1, 20, torch.Generator())


def test_labels_are_dropped_one_by_one_at_the_right_rate():
    """Of n = 100,000 labels a binomial number is dropped, n p ± 5 √(n p (1 − p)), in each batch another."""
    n, p, generator = 100_000, 0.1, torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 20
    dropped = drop_labels(labels, p, 20, generator) == 20
    assert abs(dropped.sum().item() - n * p) < 5 * (n * p * (1 - p)) ** 0.5
    counts = dropped.reshape(-1, 100).sum(1).float()
    assert 0.8 < counts.var() / (100 * p * (1 - p)) < 1.2  # all or none of a batch would give 100 here
    every_class = dropped.reshape(-1, 20).float().mean(0)
    assert (every_class - p).abs().max() < 5 * (p * (1 - p) / (n / 20)) ** 0.5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 19), max_size=50), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_label_is_kept_or_null_and_the_generator_decides(labels, p, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    before = labels.clone()
    out = drop_labels(labels, p, 20, torch.Generator().manual_seed(seed))
    assert out.dtype == torch.int64 and torch.equal(labels, before)
    assert ((out == labels) | (out == 20)).all()
    assert torch.equal(out, drop_labels(labels, p, 20, torch.Generator().manual_seed(seed)))
    if p in (0, 1):
        assert torch.equal(out, labels if p == 0 else torch.full_like(labels, 20))


def test_embeddings_are_guided_as_labels_are():
    """Prompts of a text encoder: (B, L, D), with one embedding of the empty prompt for all, or one for each."""
    generator = torch.Generator().manual_seed(2)
    prompts, empty = torch.randn(3, 5, 4, generator=generator), torch.randn(5, 4, generator=generator)

    def network(x, t, condition):
        return x * condition.mean((1, 2)).reshape(-1, 1, 1, 1)

    x, t, _ = batch(3)
    expected = 3 * network(x, t, prompts) - 2 * network(x, t, empty.expand(3, 5, 4))
    for null in (empty, empty[None], empty.expand(3, 5, 4)):
        torch.testing.assert_close(guided(network, prompts, w=2.0, null=null)(x, t), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="must be alike"):
        guided(network, prompts, null=empty[:, :2])
