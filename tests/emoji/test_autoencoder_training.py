"""Training the autoencoder: its loss, latents that are standard, folders that diffusers reads, runs that go on."""

import json

import pytest
import torch
from small_runs import generator, names, one_thread  # noqa: F401 – for every test here
from torch.distributions import Independent, Normal, kl_divergence

from dlcv_diffusion import UserError
from dlcv_diffusion.emoji import autoencoder_training
from dlcv_diffusion.emoji.autoencoder_training import (
    AUTOENCODERS,
    AutoencoderObjective,
    AutoencoderRecipe,
    autoencoder_recipe,
    psnr_by_kind,
    reconstruction_loss,
    standardised,
    train_autoencoder,
    write_autoencoder,
)
from dlcv_diffusion.emoji.splits import pictures
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.evaluation.psnr import psnr
from dlcv_diffusion.models.registry import read_tensors
from dlcv_diffusion.models.text_to_image.latents import decode, downsampling, encode, read_autoencoder
from dlcv_diffusion.training import RunConfig

TRAIN = RunConfig(steps=6, batch_size=4, lr=1e-3, warmup=2, ema_decay=0.5, weight_decay=0.0, clip_grad=1.0)
SMALL = AutoencoderRecipe((4, 8, 8), 4, 12, TRAIN)


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def images(world):
    return pictures(world, "train", 12, seed=0)[0]


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_the_kl_term_is_torchs():
    mean, log_variance = (torch.randn(3, 4, 5, 5, generator=generator(seed)) for seed in (0, 1))
    given = Independent(Normal(mean, (log_variance / 2).exp()), 3)
    standard = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 3)
    found = autoencoder_training.kl_divergence(mean, log_variance)
    assert torch.allclose(found, kl_divergence(given, standard), rtol=1e-5)


def test_the_loss_is_what_it_says(images):
    objective = AutoencoderObjective(SMALL.build(), images, TRAIN)
    x, noise = objective.batch(3)
    assert x.shape == (4, 3, 64, 64) and x.abs().max() <= 1 and noise.shape == (4, 4, 16, 16)
    found, mean, log_variance = objective.model(x, noise)
    kl = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2 / 4
    wanted = (x - found).abs().mean() + 4 * ((x - found) ** 2).mean() + 1e-6 * kl
    assert objective.loss(objective.model, x, noise).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert reconstruction_loss(x, x) == 0


def test_a_batch_follows_from_its_step(images):
    one, again = (AutoencoderObjective(SMALL.build(), images, TRAIN) for _ in range(2))
    one.batch(0)
    for a, b in zip(one.batch(5), again.batch(5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.batch(5)[1], one.batch(4)[1])


# --- PSNR -------------------------------------------------------------------------------------------------------------


def test_psnr_in_closed_form():
    dark, half = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    half[1, :, :4] = 10  # a mean square of 50
    found = psnr(dark, half)
    assert found[0] == torch.inf and found[1].item() == pytest.approx(48.1308036 - 16.9897000, abs=1e-4)
    with pytest.raises(UserError, match="give uint8"):
        psnr(dark, half.float())


def test_psnr_by_kind_of_a_perfect_copy_and_of_none(world, monkeypatch):
    monkeypatch.setattr(autoencoder_training, "encode", lambda autoencoder, images: images)
    monkeypatch.setattr(autoencoder_training, "decode", lambda autoencoder, images: images)
    assert set(psnr_by_kind(None, world, 2).values()) == {float("inf")}
    monkeypatch.setattr(autoencoder_training, "decode", lambda autoencoder, images: (images ^ 1).byte())
    found = psnr_by_kind(None, world, 2)  # every value is off by one level
    assert list(found) == ["white", "colour", "pair", "style", "all"]
    assert all(value == pytest.approx(48.1308, abs=1e-3) for value in found.values())


# --- latents ----------------------------------------------------------------------------------------------------------


def test_standard_latents_and_the_same_pictures(images):
    autoencoder = SMALL.build().eval()
    with torch.no_grad():
        autoencoder.quant_conv.bias += torch.tensor([3.0, 0, -1, 0, 0, 0, 0, 0])
        autoencoder.quant_conv.weight *= 7
    copy = standardised(autoencoder, images)
    z = encode(copy, images)
    assert z.shape == (12, 4, 16, 16) and copy.config.scaling_factor == 1
    assert z.mean((0, 2, 3)).abs().max() < 1e-5 and (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
    x = torch.randn(2, 3, 64, 64, generator=generator())
    with torch.no_grad():
        noise = torch.randn(2, 4, 16, 16, generator=generator(1))
        (old, was), (new, now) = (
            (each.encode(x).latent_dist, each) for each in (autoencoder, copy)
        )  # a sample of the same noise too: σ is divided as μ is
        for wanted, found in ((old.mean, new.mean), (old.mean + old.std * noise, new.mean + new.std * noise)):
            assert torch.allclose(was.decode(wanted).sample, now.decode(found).sample, atol=1e-4)


def test_pictures_that_cannot_be_encoded(images):
    autoencoder = SMALL.build().eval()
    assert downsampling(autoencoder) == 4
    with pytest.raises(UserError, match="are uint8"):
        encode(autoencoder, images.float())
    with pytest.raises(UserError, match="multiples of 4 pixels"):
        encode(autoencoder, images[..., :30])
    with pytest.raises(UserError, match=r"latents to decode are \(B, 4, h, w\)"):
        decode(autoencoder, torch.zeros(1, 3, 16, 16))
    with pytest.raises(UserError, match="not finite"):
        decode(autoencoder, torch.full((1, 4, 16, 16), torch.nan))


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(autoencoder_training, "AUTOENCODERS", {"tiny": SMALL, "small": SMALL})


def weights(out):
    return {name: value.numpy().tobytes() for name, value in read_tensors(out / "checkpoint.safetensors")[0].items()}


def test_a_run_goes_on_to_the_same_bits(tmp_path, small, world):
    options = {"world": world, "checkpoint_every": 2, "preview_every": 3, "device": "cpu"}
    assert [state.step for state in train_autoencoder("tiny", tmp_path / "whole", **options)] == [1, 2, 3, 4, 5, 6]
    for state in train_autoencoder("tiny", tmp_path / "left", **options):
        if state.step == 5:
            break
    list(train_autoencoder("tiny", tmp_path / "left", resume=True, **options))
    assert weights(tmp_path / "left") == weights(tmp_path / "whole")
    one, other = (
        (tmp_path / folder / "model/diffusion_pytorch_model.safetensors").read_bytes() for folder in ("whole", "left")
    )
    assert one == other and "samples/step_000003.png" in names(tmp_path / "left")


def test_what_a_run_leaves_is_read_by_diffusers(dlcv, tmp_path, small, images):
    from diffusers import AutoencoderKL

    code, out, err = dlcv("train autoencoder --preset tiny --steps 2 --out run --device cpu")
    assert code == 0 and out.endswith("\ntrained weights: run/model\n"), err
    code, _, err = dlcv("train autoencoder --preset tiny --steps 2 --out run --device cpu")
    assert code == 2 and "holds a training run already" in err
    theirs, ours = AutoencoderKL.from_pretrained(tmp_path / "run/model"), read_autoencoder(tmp_path / "run/model")
    found = encode(ours, images)
    with torch.no_grad():
        wanted = theirs.float().encode(images / 127.5 - 1).latent_dist.mean
    assert torch.allclose(found, wanted, atol=1e-5) and (found.std((0, 2, 3)) - 1).abs().max() < 0.05
    assert json.loads((tmp_path / "run/model/facts.json").read_text())["train"]["steps"] == 2
    with pytest.raises(UserError, match="no autoencoder in"):
        read_autoencoder(tmp_path)
    for name in ("checkpoint.safetensors", "metrics.csv"):
        (tmp_path / "run" / name).unlink()
    code, _, err = dlcv("train autoencoder --preset tiny --steps 2 --out run --device cpu")
    assert code == 2 and "without a checkpoint to go on from" in err, "a trained model is not written over"


def test_what_cannot_be_saved_is_said_in_one_sentence(tmp_path, images, monkeypatch):
    from safetensors import SafetensorError

    autoencoder = SMALL.build().eval()
    with monkeypatch.context() as patch:
        patch.setattr(type(autoencoder), "save_pretrained", lambda *_: (_ for _ in ()).throw(SafetensorError("full")))
        with pytest.raises(UserError, match="the weights of the AutoencoderKL cannot be written: .*full; make room"):
            write_autoencoder(autoencoder, tmp_path / "model", {})
    with torch.no_grad():
        autoencoder.quant_conv.bias += 1e6
    with pytest.raises(UserError, match="not finite in half precision"):
        write_autoencoder(autoencoder, tmp_path / "model", {})
    assert not (tmp_path / "model").exists()


def test_presets_are_known_and_fit():
    assert autoencoder_recipe("small") is AUTOENCODERS["small"]
    with pytest.raises(UserError, match="unknown preset 'large'; choose one of: small, tiny"):
        autoencoder_recipe("large")
    for recipe in AUTOENCODERS.values():
        assert sum(weight.numel() for weight in recipe.build().parameters()) <= 1e6
