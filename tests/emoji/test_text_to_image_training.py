"""Training the small text-to-image model: what it trains on, its loss, folders that diffusers draws from, runs."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_clips import CONFIG
from small_pipelines import small_vae
from small_runs import names, one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError, ddim, guidance_weight, guided, last, seeded_noise
from dlcv_diffusion.emoji import text_to_image_data
from dlcv_diffusion.emoji import text_to_image_training as training
from dlcv_diffusion.emoji.autoencoder_training import AutoencoderRecipe, write_autoencoder
from dlcv_diffusion.emoji.captions import caption, phrase
from dlcv_diffusion.emoji.clip_data import world_merges
from dlcv_diffusion.emoji.splits import scenes
from dlcv_diffusion.emoji.styles import STYLES
from dlcv_diffusion.emoji.text_to_image_data import CALM, FRAMES, SHARES, LatentPool, prompt_of
from dlcv_diffusion.emoji.text_to_image_training import (
    TEXT_TO_IMAGE,
    TextToImageObjective,
    TextToImageRecipe,
    pool_of,
    start_from,
    text_to_image_recipe,
    train_text_to_image,
)
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.models.clip.small import SmallClip, build_small_clip, save_small_clip
from dlcv_diffusion.models.clip.to_transformers import text_model, text_tokenizer
from dlcv_diffusion.models.registry import read_tensors, short_hash
from dlcv_diffusion.models.text_to_image import TextToImage, load_text_to_image
from dlcv_diffusion.models.text_to_image.saving import write_pipeline
from dlcv_diffusion.training import TrainConfig

TRAIN = TrainConfig(
    steps=6, batch_size=4, warmup=2, ema_decay=0.5, weight_decay=0.0, prediction="v", noise_levels=(-0.4, 1.2)
)
SMALL = TextToImageRecipe((8, 16), (False, True), 12, TRAIN, heads=2)


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def clip(world):
    config, merges = replace(CONFIG, context=24), world_merges(world)
    return SmallClip(build_small_clip(config, merges).eval(), config, merges, {"name": "small"})


@pytest.fixture(scope="module")
def parts(clip, tmp_path_factory):
    """The autoencoder and the CLIP of a run, as its options."""
    folder = tmp_path_factory.mktemp("parts")
    save_small_clip(clip, folder / "clip.safetensors")
    write_autoencoder(AutoencoderRecipe((4, 8, 8), 4, 1, TRAIN).build().eval(), folder / "autoencoder", {})
    return {"autoencoder": folder / "autoencoder", "clip": folder / "clip.safetensors"}


@pytest.fixture(scope="module")
def drawing(clip):
    autoencoder = AutoencoderRecipe((4, 8, 8), 4, 1, TRAIN).build().eval()
    unet = SMALL.build((4, 16, 16), 32)
    return TextToImage(unet, autoencoder, text_model(clip), text_tokenizer(clip), training.SCHEDULE, "v").eval()


@pytest.fixture(scope="module")
def pool(drawing, world):
    return pool_of(drawing, world, 12, 0, torch.device("cpu"))


def objective_of(drawing, clip, pool, config):
    return TextToImageObjective(drawing.model, pool, drawing.schedule, config, drawing, clip)


# --- what it trains on ------------------------------------------------------------------------------------------------


def test_scenes_are_calm_and_nothing_held_out_is_among_them(world):
    drawn = list(scenes(world, "train", 400, 0, core=True, kinds=SHARES, variety=CALM))
    for scene in drawn:
        assert set(scene.things) <= set(world.core) and not world.is_held_out(scene.things, scene.style)
        assert all(placed.artist in CALM.artists and not placed.mirror for placed in scene.placed)
    shares = {kind: sum(scene.kind == kind for scene in drawn) / 400 for kind in SHARES}
    assert all(abs(shares[kind] - share) < 0.08 for kind, share in SHARES.items())


def test_prompts_are_plain_captions_or_framed(world):
    rng = np.random.default_rng(0)
    drawn = list(scenes(world, "train", 200, 0, core=True))
    prompts = [prompt_of(world, scene, rng) for scene in drawn]
    plain = [caption(world, scene) for scene in drawn]
    framed = [said for said, wanted in zip(prompts, plain, strict=True) if said != wanted]
    assert 0.2 < len(framed) / 200 < 0.4
    for said, wanted in zip(prompts, plain, strict=True):
        assert said == wanted or said in [frame.format(wanted) for frame in FRAMES]


def test_the_pool_holds_each_scene_and_each_prompt_once(drawing, pool, world):
    from dlcv_diffusion.emoji.splits import pictures

    images, shown = pictures(world, "train", 12, 0, core=True, kinds=SHARES, variety=CALM)
    assert torch.allclose(pool.latents, drawing.encode(images), atol=1e-5) and len(pool) == 12
    assert len(set(pool.prompts)) == len(pool.prompts) and pool.prompts[pool.null] == ""
    for row, scene in enumerate(shown):
        assert caption(world, scene) in pool.prompts[pool.said[row]]
    wanted = drawing.encode_prompts(pool.prompts)
    assert torch.allclose(pool.embeddings.float(), wanted, rtol=1e-3, atol=1e-3)
    assert torch.allclose(pool.embeddings[pool.null].float(), drawing.null, rtol=1e-3, atol=1e-3)


def test_a_batch_follows_from_its_step_and_drops_prompts(drawing, clip, pool):
    config = replace(TRAIN, batch_size=12, label_drop=0.5)
    objective = objective_of(drawing, clip, pool, config)
    z0, prompts, t, eps = batch = objective.batch(5)
    for one, again in zip(objective.batch(5), batch, strict=True):
        assert torch.equal(one, again)
    assert z0.shape == eps.shape == (12, 4, 16, 16) and t.max() < 1000 and prompts.shape == (12, 24, 32)
    null, rows = pool.embeddings[pool.null].float(), [pool.latents.tolist().index(each) for each in z0.tolist()]
    empty = [torch.equal(each, null) for each in prompts]
    assert 2 <= sum(empty) <= 10 and sorted(rows) == list(range(12))
    for row, prompt, dropped in zip(rows, prompts, empty, strict=True):
        assert dropped or torch.equal(prompt, pool.embeddings[pool.said[row]].float())


def test_the_loss_is_that_of_v(drawing, clip, pool):
    objective = objective_of(drawing, clip, pool, TRAIN)
    z0, prompts, t, eps = batch = objective.batch(1)
    abar = training.SCHEDULE.alphas_bar[t].float()[:, None, None, None]
    z, v = abar.sqrt() * z0 + (1 - abar).sqrt() * eps, abar.sqrt() * eps - (1 - abar).sqrt() * z0
    with torch.no_grad():
        found = drawing.unet(z, t, encoder_hidden_states=prompts).sample
        assert objective.loss(drawing.model, *batch).item() == pytest.approx(((found - v) ** 2).mean().item(), rel=1e-5)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(training, "TEXT_TO_IMAGE", {"tiny": SMALL, "small": SMALL})
    monkeypatch.setattr(training, "PROMPTS", ("a fox", "an owl next to a pizza"))


def weights(out):
    return {name: value.numpy().tobytes() for name, value in read_tensors(out / "checkpoint.safetensors")[0].items()}


def test_a_run_goes_on_to_the_same_bits(tmp_path, small, world, parts):
    options = {**parts, "world": world, "checkpoint_every": 2, "preview_every": 3, "device": "cpu"}
    state = torch.get_rng_state()
    assert [each.step for each in train_text_to_image("tiny", tmp_path / "whole", **options)] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator is left alone"
    for each in train_text_to_image("tiny", tmp_path / "left", **options):
        if each.step == 5:
            break
    list(train_text_to_image("tiny", tmp_path / "left", resume=True, **options))
    assert weights(tmp_path / "left") == weights(tmp_path / "whole")
    one, other = (
        (tmp_path / folder / "model/unet/diffusion_pytorch_model.safetensors").read_bytes()
        for folder in ("whole", "left")
    )
    assert one == other and "samples/step_000003.png" in names(tmp_path / "left")
    assert not [name for name in weights(tmp_path / "left") if "autoencoder" in name or "text" in name]


def test_what_a_run_leaves_draws_in_diffusers_and_here(dlcv, tmp_path, small, parts, monkeypatch):
    from diffusers import StableDiffusionPipeline

    given = f"--autoencoder {parts['autoencoder']} --clip {parts['clip']}"
    code, out, err = dlcv(f"train text-to-image --preset tiny --steps 2 --out run --device cpu {given}")
    assert code == 0 and out.endswith("\ntrained weights: run/model\n"), err
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "run/model")
    pipeline.set_progress_bar_config(disable=True)
    noise, prompts = seeded_noise((2, 4, 16, 16), range(2)), ["a fox", "an owl next to a pizza"]
    options = {"latents": noise, "guidance_scale": 3.0, "num_inference_steps": 4}
    wanted = torch.from_numpy(pipeline(prompts, output_type="np", **options).images).permute(0, 3, 1, 2)
    sd = load_text_to_image(tmp_path / "run/model", "cpu")
    found = last(ddim(guided(sd, sd.encode_prompts(prompts), w=guidance_weight(3.0)), noise, steps=4)).x
    assert (sd.decode(found).float() - (wanted * 255).round()).abs().max() <= 1
    assert sd.name == "text-to-image-tiny" and sd.facts["train"]["steps"] == 2 and "fox" in sd.facts["things"]
    assert json.loads((tmp_path / "run/model/model_index.json").read_text())["safety_checker"] == [None, None]
    assert str(tmp_path) not in (tmp_path / "run/model/vae/config.json").read_text()
    monkeypatch.setattr("dlcv_diffusion.emoji.text_to_image_training.SHIPPED", {"emoji": tmp_path / "gone"})
    code, _, err = dlcv("train text-to-image --preset tiny --out other --device cpu")
    assert code == 2 and "are not in this version; train it by `dlcv train" in err


def test_a_run_starts_from_given_weights(tmp_path, small, world, parts):
    options = {**parts, "world": world, "device": "cpu"}
    list(train_text_to_image("tiny", tmp_path / "first", **options))
    further = {"init": tmp_path / "first/model", "lr": 1e-12, "steps": 1}
    list(train_text_to_image("tiny", tmp_path / "further", **further, **options))
    first, then = (load_text_to_image(tmp_path / name / "model", "cpu") for name in ("first", "further"))
    for name, weight in first.unet.state_dict().items():
        assert torch.equal(weight, then.unet.state_dict()[name]), name
    assert then.facts["init"] == short_hash(first.unet.state_dict().values()) and then.facts["train"]["steps"] == 1
    with pytest.raises(UserError, match="holds no model_index.json"):
        list(train_text_to_image("tiny", tmp_path / "none", init=tmp_path, **options))
    again = {**options, "lr": 1e-12, "steps": 1, "resume": True}
    with pytest.raises(UserError, match="init: .* then, None now"):
        list(train_text_to_image("tiny", tmp_path / "further", **again))


def test_weights_to_go_on_from_are_of_the_same_parts(drawing, clip, world, tmp_path):
    parts = drawing.autoencoder, clip, drawing.schedule
    write_pipeline(tmp_path / "same", drawing.unet, *parts, "v")
    unet = SMALL.build((4, 16, 16), 32, seed=1)

    def model(unet=unet, autoencoder=drawing.autoencoder, clip=clip, prediction="v"):
        return TextToImage(unet, autoencoder, text_model(clip), text_tokenizer(clip), training.SCHEDULE, prediction)

    start_from(model(), tmp_path / "same")
    for one, other in zip(unet.state_dict().values(), drawing.unet.state_dict().values(), strict=True):
        assert torch.equal(one, other.half().float())
    heads = replace(SMALL, heads=4).build((4, 16, 16), 32)  # the same weights, and another network
    autoencoder = AutoencoderRecipe((4, 8, 8), 4, 1, TRAIN).build(seed=1).eval()
    other = replace(clip, model=build_small_clip(clip.config, clip.merges, seed=1).eval())
    for changed, said in (
        ({"unet": heads}, "attention_head_dim: 2 then, 4 now"),
        ({"autoencoder": autoencoder}, "trained with another autoencoder"),
        ({"clip": other}, "trained with another CLIP"),
        ({"prediction": "eps"}, "trained on another schedule or prediction"),
    ):
        with pytest.raises(UserError, match=said):
            start_from(model(**changed), tmp_path / "same")


def test_latents_are_as_large_as_the_scenes_make_them(tmp_path, small, world, parts):
    vae = small_vae()  # eight pixels a side a latent, and trained on larger pictures, as Stable Diffusion's
    vae.register_to_config(sample_size=512)
    vae.save_pretrained(tmp_path / "vae")
    options = {**parts, "autoencoder": tmp_path, "world": world, "device": "cpu", "steps": 1}
    list(train_text_to_image("tiny", tmp_path / "run", **options))
    assert load_text_to_image(tmp_path / "run/model", "cpu").shape == (4, 8, 8)


def test_latents_that_do_not_fit_are_refused(drawing, clip, pool):
    with pytest.raises(UserError, match="leave flip out"):
        objective_of(drawing, clip, pool, replace(TRAIN, flip=True))
    other = TextToImage(
        SMALL.build((4, 8, 8), 32), drawing.autoencoder, text_model(clip), text_tokenizer(clip), training.SCHEDULE
    )
    with pytest.raises(UserError, match=r"makes latents \(4, 16, 16\) of the scenes, and the U-Net draws \(4, 8, 8\)"):
        objective_of(other, clip, pool, TRAIN)


def test_presets_are_known_and_fit():
    assert text_to_image_recipe("small") is TEXT_TO_IMAGE["small"]
    with pytest.raises(UserError, match="unknown preset 'large'; choose one of: small, tiny"):
        text_to_image_recipe("large")
    for recipe in TEXT_TO_IMAGE.values():
        unet = recipe.build((8, 16, 16), 128)
        assert sum(weight.numel() for weight in unet.parameters()) <= 4.2e6, "12 MB with all parts, in half precision"
        assert recipe.train.prediction == "v" and recipe.train.label_drop == 0.1


def thumbnails(world, count, seed=0):
    """A pool whose latents are pictures made small, and whose embeddings say nothing."""
    return LatentPool(
        world,
        lambda images: images[:, :1, ::16, ::16].float(),
        lambda prompts: torch.ones(len(prompts), 2, 3),
        count,
        seed,
    )


def test_a_pool_follows_from_its_seed_and_from_nothing_else(world, monkeypatch):
    one, again, other = (thumbnails(world, 8, seed) for seed in (0, 0, 1))
    assert torch.equal(one.latents, again.latents) and one.facts == again.facts != other.facts
    assert one.prompts == again.prompts != other.prompts
    monkeypatch.setattr(text_to_image_data, "AT_ONCE", 3)
    parts = thumbnails(world, 8)
    assert torch.equal(one.latents, parts.latents) and one.prompts == parts.prompts and one.facts == parts.facts
    monkeypatch.setattr(text_to_image_data, "FRAMES", ("a sketch of {}",))
    said = thumbnails(world, 8).facts
    assert said["prompts_hash"] != one.facts["prompts_hash"] and said["world_hash"] == one.facts["world_hash"]


def test_no_prompt_names_what_is_held_out(world):
    prompts = thumbnails(world, 300).prompts
    names = [phrase(world, thing) for thing in world.held_out_things]
    held_out = [*names, STYLES[world.held_out_style].phrase]
    held_out += [
        f"{phrase(world, thing)} in the style of {STYLES[style].phrase}" for thing, style in world.held_out_pairs
    ]
    for prompt in prompts:
        assert not [words for words in held_out if re.search(rf"\b{re.escape(words)}\b", prompt)], prompt
    assert any(phrase(world, "fox") in prompt for prompt in prompts)
