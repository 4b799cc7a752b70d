"""Everything we measure with is an encoder: one protocol, one check of what goes in and of what comes out."""

import math

import numpy as np
import pytest
import torch

from dlcv_diffusion import UserError
from dlcv_diffusion.digits.judge import load_judge
from dlcv_diffusion.evaluation import encoder as encoder_module
from dlcv_diffusion.evaluation.encoder import PixelComponents, checked_images, encode, pixels
from dlcv_diffusion.evaluation.frechet import frechet_distance
from dlcv_diffusion.evaluation.neighbours import nearest_neighbours, share_within


def images(count, seed=0, shape=(3, 28, 28)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)


def mean_colour(pictures):
    """An encoder that anybody may write."""
    return pictures.float().mean((2, 3))


ENCODERS = {
    "pixels": lambda: pixels,
    "components": lambda: PixelComponents.of(images(40, seed=9), count=5),
    "judge": lambda: load_judge().halves[0].encode,
    "own": lambda: mean_colour,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_measure_takes_every_encoder(name):
    encoder, pictures = ENCODERS[name](), images(30)
    features = encode(encoder, pictures)
    assert features.shape[0] == 30 and features.ndim == 2 and features.dtype == torch.float32
    assert frechet_distance(features, features.flip(0)) == pytest.approx(0, abs=1e-3)
    assert share_within(features, features) == 1
    rows, distances = nearest_neighbours(pictures[:3], pictures, encoder=encoder)
    assert rows.flatten().tolist() == [0, 1, 2] and distances.max() < 1e-5


@pytest.mark.parametrize("name", ENCODERS)
def test_features_do_not_depend_on_the_batch(name, monkeypatch):
    encoder, pictures = ENCODERS[name](), images(9)
    whole = encode(encoder, pictures)
    monkeypatch.setattr(encoder_module, "BATCH", 2)
    torch.testing.assert_close(encode(encoder, pictures), whole, atol=1e-4, rtol=1e-4)


def test_encoding_keeps_no_gradients():
    scale = torch.ones((), requires_grad=True)
    assert not encode(lambda x: pixels(x) * scale, images(2)).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 3, 28, 28),
        torch.zeros(2, 3, 28, 28, dtype=torch.int64),
        torch.zeros(3, 28, 28, dtype=torch.uint8),
        torch.zeros(0, 3, 28, 28, dtype=torch.uint8),
        torch.zeros(2, 3, 0, 28, dtype=torch.uint8),
        np.zeros((2, 3, 28, 28)),
        "pictures",
        ["a", "b"],
        None,
        [[1, 2], [3]],
    ],
)
def test_other_things_are_no_images(wrong):
    for measure in (checked_images, lambda x: encode(pixels, x), PixelComponents.of):
        with pytest.raises(UserError, match=r"measured as uint8 \(N, C, H, W\), one or more"):
            measure(wrong)


def test_the_sentence_says_how_samples_become_images():
    with pytest.raises(UserError, match=r"\(N, 3, 28, 28\), one or more, not float32 \(2, 3, 8, 8\).*to_uint8"):
        checked_images(torch.zeros(2, 3, 8, 8), (3, 28, 28))


def test_numpy_images_are_images():
    array = images(2).numpy()
    assert torch.equal(checked_images(array), torch.from_numpy(array))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_refused(value):
    def broken(pictures):
        features = pixels(pictures)
        features[-1, -1] = value
        return features

    with pytest.raises(UserError, match="features hold NaN or infinite"):
        encode(broken, images(3))
    with pytest.raises(UserError, match="features hold NaN or infinite"):
        frechet_distance(pixels(images(3)), broken(images(3)))


@pytest.mark.parametrize("broken", [lambda x: x.float(), lambda x: pixels(x)[:1], lambda x: pixels(x).mean()])
def test_features_of_another_shape_are_refused(broken):
    with pytest.raises(UserError, match="must give N images features"):
        encode(broken, images(3))
