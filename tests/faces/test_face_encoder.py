"""The face encoder: what it is indifferent to, what it notices, its file, and the loss it was trained with."""

import math

import pytest
import torch
import torch.nn.functional as F
from train_face_encoder import TEMPERATURE, Contrast, Projected, augmented, deformed, nt_xent, spoilt

from dlcv_diffusion import UserError
from dlcv_diffusion.faces.encoder import FaceEncoder, default_face_encoder, load_face_encoder, save_face_encoder
from dlcv_diffusion.images.own_photo import grace_hopper
from dlcv_diffusion.images.pixels import to_uint8


def alike(encoder, a, b):
    return (encoder(to_uint8(a)) * encoder(to_uint8(b))).sum(1)


def test_the_shipped_encoder_sees_the_person_and_not_the_light():
    encoder, face = default_face_encoder(), grace_hopper()
    same = alike(encoder, face, (face * 0.8 + 0.1).flip(-1))
    slipped = torch.cat([face[..., :32], face[..., 32:].roll(6, -2)], dim=-1)
    assert same > 0.98 > alike(encoder, face, slipped), "a half that slipped down by six pixels"
    assert encoder(to_uint8(face)).norm(dim=1).item() == pytest.approx(1, abs=1e-5)


def test_the_shipped_encoder_says_what_it_notices_in_photographs():
    seen = default_face_encoder().metadata["changed_photographs"]
    encoder = {change: distances["encoder"] for change, distances in seen.items()}
    assert encoder["unchanged"] < 1.2 and encoder["darker by a tenth"] < 1.2
    assert encoder["blurred by 1 pixel"] > 10 and encoder["halves of two people"] > 10
    assert encoder["mouth moved by 6 pixels"] > 2 and encoder["one eye lowered by 6 pixels"] > 4


def test_a_saved_encoder_is_the_same_up_to_half_precision(tmp_path):
    torch.manual_seed(0)
    encoder, images = FaceEncoder(), torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    save_face_encoder(encoder, tmp_path / "e.safetensors", {"images": 3})
    again = load_face_encoder(tmp_path / "e.safetensors")
    assert again.metadata == {"images": 3} and not again.training
    assert torch.allclose(encoder(images), again(images), atol=1e-3)


def test_other_files_and_other_pictures_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no face encoder"):
        load_face_encoder(default_digits())
    with pytest.raises(UserError, match="no weights at"):
        load_face_encoder(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"uint8 \(N, 1, 64, 64\)"):
        default_face_encoder()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def default_digits():
    from dlcv_diffusion.models.registry import shipped_weights

    return shipped_weights()["digits"]


def test_the_loss_is_simclrs_with_more_negatives():
    z = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    unit, total = F.normalize(z, dim=1), 0.0
    for i in range(6):  # eq. 1, term by term
        j = (i + 3) % 6
        others = sum(math.exp(unit[i] @ unit[k] / TEMPERATURE) for k in range(9) if k != i)
        total -= math.log(math.exp(unit[i] @ unit[j] / TEMPERATURE) / others)
    assert nt_xent(z).item() == pytest.approx(total / 6, rel=1e-5)


def test_the_whole_loss_also_asks_which_third_was_spoilt():
    """With a head of zeros NT-Xent is that of equal vectors, and what is left is the cross-entropy of the logits."""
    torch.manual_seed(0)
    network = Projected(FaceEncoder(), out=4)
    for weight in network.head[-1].parameters():
        weight.data.fill_(1.0 if weight.ndim == 1 else 0.0)
    views = torch.randn(2, 3, 1, 64, 64)
    loss = Contrast(network, None, None).loss(network, views)
    logits = network(views.transpose(0, 1).flatten(0, 1))[:, -1]
    entropy = 2 * F.softplus(-logits[4:]).sum() + F.softplus(logits[:4]).sum()
    assert loss.item() == pytest.approx(math.log(5) + entropy.item() / 6, rel=1e-4)


@pytest.mark.parametrize("change", [augmented, deformed, spoilt])
def test_views_follow_from_the_generator_and_stay_in_range(change):
    faces = torch.cat([grace_hopper(), grace_hopper().flip(-2)]).repeat(4, 1, 1, 1)
    x = faces if change is spoilt else grace_hopper().expand(8, -1, -1, -1)
    one, again = (change(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, again) and one.abs().max() <= 1
    assert (one - x).abs().mean((1, 2, 3)).min() > 0
    assert (one[0] - one[2]).abs().mean() > 0.01, "the same picture twice in a batch: each has a change of its own"
