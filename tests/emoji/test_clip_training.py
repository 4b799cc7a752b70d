"""Training the small CLIP: its loss, what counts as true, batches that follow from their step, runs that go on."""

from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from small_clips import CONFIG
from small_runs import generator, names, one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError
from dlcv_diffusion.emoji import clip_training
from dlcv_diffusion.emoji.clip_data import UNSAID, ScenePool, augmented, less_said, true_of, world_merges
from dlcv_diffusion.emoji.clip_training import (
    CLIPS,
    ClipObjective,
    ClipRecipe,
    InTraining,
    clip_recipe,
    contrastive_loss,
    train_clip,
)
from dlcv_diffusion.emoji.scenes import Placed, Scene
from dlcv_diffusion.emoji.world import load_world
from dlcv_diffusion.models.clip import load_clip
from dlcv_diffusion.models.clip.small import build_small_clip
from dlcv_diffusion.models.clip.tokenizer import clip_tokenizer
from dlcv_diffusion.models.registry import read_tensors
from dlcv_diffusion.training import RunConfig


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def merges(world):
    return world_merges(world)


@pytest.fixture(scope="module")
def pool(world):
    return ScenePool(world, 40, seed=0)


# --- the loss ---------------------------------------------------------------------------------------------------------


def features(count=6, seed=0):
    draw = generator(seed)
    return (F.normalize(torch.randn(count, 8, generator=draw), dim=1) for _ in range(2))


def test_the_loss_is_open_clips_where_no_other_caption_is_true():
    images, texts = features()
    scale = torch.tensor(14.3)
    found = contrastive_loss(images, texts, scale, torch.eye(6, dtype=torch.bool))
    assert found.item() == pytest.approx(open_clip.loss.ClipLoss()(images, texts, scale).item(), rel=1e-6)


def test_what_is_true_too_is_no_negative_in_either_direction():
    images, texts = features()
    true = torch.eye(6, dtype=torch.bool)
    true[1, 4] = True
    total = 0.0
    logits = 10 * images @ texts.T
    for i in range(6):  # the formula, term by term
        rows = [j for j in range(6) if j == i or not true[i, j]]
        columns = [j for j in range(6) if j == i or not true[j, i]]
        total += (logits[i, rows].logsumexp(0) - logits[i, i]) + (logits[columns, i].logsumexp(0) - logits[i, i])
    found = contrastive_loss(images, texts, torch.tensor(10.0), true)
    assert found.item() == pytest.approx(total.item() / 12, rel=1e-5)


def test_a_batch_in_parts_would_be_another_loss(pool, merges):
    with pytest.raises(UserError, match="a batch of pairs in 2 parts is another loss"):
        ClipObjective(build_small_clip(CONFIG, merges), CONFIG, merges, pool, RunConfig(steps=1, accumulate=2))


def test_the_scale_is_100_at_most():
    images, texts = features()
    true, scale = torch.eye(6, dtype=torch.bool), torch.tensor(300.0, requires_grad=True)
    loss = contrastive_loss(images, texts, scale, true)
    assert loss.item() == contrastive_loss(images, texts, torch.tensor(100.0), true).item()
    assert torch.autograd.grad(loss, scale)[0] == 0


def test_a_caption_is_true_of_a_picture_that_shows_all_it_says(world):
    fox, pizza, neon, blue = 3, 9, 2, 4
    shown = torch.tensor([[fox, UNSAID, UNSAID, neon], [fox, pizza, UNSAID, UNSAID], [fox, UNSAID, blue, UNSAID]])
    said = torch.tensor([[fox, UNSAID, UNSAID, UNSAID], [pizza, UNSAID, UNSAID, UNSAID], *shown.tolist()])
    wanted = [[True, False, True, False, False], [True, True, False, True, False], [True, False, False, False, True]]
    assert true_of(shown, said).tolist() == wanted


def test_captions_that_say_less_are_true_of_their_own_picture(pool):
    rows = torch.arange(40)
    drawn = pool.batch(rows, seed=0, step=0)
    assert true_of(drawn.shown, drawn.said).diagonal().all() and torch.equal(drawn.images, pool.images)
    less = (drawn.said != drawn.shown).any(1)
    assert 2 <= less.sum() <= 25, "of some, and not of most"
    for row in less.nonzero().flatten().tolist():
        assert pool.scenes[row].style is None or pool.scenes[row].style not in drawn.captions[row]
    pair = Scene((Placed("fox", "noto"), Placed("pizza", "noto")))
    left = {less_said(pair, np.random.default_rng(k)).things for k in range(20)}
    assert left == {("fox",), ("pizza",)}


def test_nothing_held_out_is_in_the_pool(world):
    for scene in ScenePool(world, 200, seed=3).scenes:
        assert not world.is_held_out(scene.things, scene.style)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_follows_from_its_step(pool, merges):
    def objective():
        clip = build_small_clip(replace(CONFIG, context=24), merges)
        return ClipObjective(clip, replace(CONFIG, context=24), merges, pool, RunConfig(steps=9, batch_size=8))

    one, again = objective(), objective()
    one.batch(0)
    for a, b in zip(one.batch(5), again.batch(5), strict=True):
        assert torch.equal(a, b)
    x, tokens, shown, said = one.batch(5)
    assert x.shape == (8, 3, 64, 64) and x.abs().max() <= 1 and tokens.shape == (8, 24)
    assert shown.shape == said.shape == (8, 4) and not torch.equal(x, one.batch(6)[0])


def test_pictures_whose_caption_names_a_colour_keep_their_colours():
    images = torch.zeros(64, 3, 64, 64, dtype=torch.uint8)
    images[:, 0] = 200  # red all over, so that turning and moving change nothing
    recolour = torch.arange(64) < 32
    x = augmented(images, recolour, generator())
    hue = x[:, 0].mean((1, 2)) - x[:, 1:].mean((1, 2, 3))
    assert (hue[~recolour] > 0.9).all() and (hue[recolour] < 0.5).any()
    assert x.std((2, 3)).max() < 1e-4, "what comes in from outside has the corner's colour"


def test_training_computes_what_the_clip_does(pool, merges):
    clip = build_small_clip(replace(CONFIG, context=24), merges).eval()
    tokens = clip_tokenizer(merges, 24)(["a fox", "an owl next to a pizza, a blueprint", "a", "a photo of a hot dog."])
    images = torch.rand(4, 3, 64, 64, generator=generator()) * 2 - 1
    for found, wanted in zip(InTraining(clip)(images, tokens), clip(images, tokens), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def test_every_word_of_the_world_is_one_token(world, merges):
    tokenizer = clip_tokenizer(merges)
    for thing in world.things:
        for word in tokenizer.pat.findall(f"{thing.name} {' '.join(thing.synonyms)}".lower()):
            assert len(tokenizer.encode(word)) == 1, word


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    train = RunConfig(steps=6, batch_size=8, lr=1e-3, warmup=2, ema_decay=0.5, weight_decay=0.0, clip_grad=1.0)
    recipe = ClipRecipe(replace(CONFIG, context=24), 24, train)
    monkeypatch.setattr(clip_training, "CLIPS", {"tiny": recipe, "small": recipe})


def weights(out):
    return {name: value.numpy().tobytes() for name, value in read_tensors(out / "checkpoint.safetensors")[0].items()}


def test_a_run_goes_on_to_the_same_bits(tmp_path, small, world):
    options = {"world": world, "checkpoint_every": 2, "preview_every": 3, "device": "cpu"}
    states = list(train_clip("tiny", tmp_path / "whole", **options))
    assert [state.step for state in states] == [1, 2, 3, 4, 5, 6]
    for state in train_clip("tiny", tmp_path / "left", **options):
        if state.step == 5:
            break
    list(train_clip("tiny", tmp_path / "left", resume=True, **options))
    assert weights(tmp_path / "left") == weights(tmp_path / "whole")
    one, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "left"))
    assert one == other and "samples/step_000003.png" in names(tmp_path / "left")
    with pytest.raises(UserError, match="other settings"):
        list(train_clip("tiny", tmp_path / "left", resume=True, leave_out="noto", **options))


def test_what_a_run_leaves_is_a_clip(tmp_path, small, world):
    list(train_clip("tiny", tmp_path, world=world, leave_out="openmoji", device="cpu"))
    clip = load_clip(tmp_path / "model.safetensors", device="cpu")
    assert clip.name == "clip-tiny" and clip.facts["artists"] == ["noto", "twemoji", "fluent_flat", "fluent"]
    assert "fox" in clip.facts["classes"] and not set(clip.facts["classes"]) & set(world.held_out_things)
    assert world.held_out_style not in clip.facts["styles"] and clip.facts["train"]["steps"] == 6
    assert clip.logit_scale <= 100 and clip.encode_texts(["a photo of an owl"]).shape == (1, CONFIG.embed_dim)


def test_the_command_line_trains_and_goes_on(dlcv, tmp_path, small):
    code, out, err = dlcv("train clip --preset tiny --steps 2 --out run --device cpu")
    assert code == 0 and out.endswith("\ntrained weights: run/model.safetensors\n"), err
    code, _, err = dlcv("train clip --preset tiny --steps 2 --out run --device cpu")
    assert code == 2 and "holds a training run already" in err
    code, _, err = dlcv("train clip --leave-out nobody --out other --device cpu")
    assert code == 2 and "there is no artist 'nobody' to leave out" in err and not (tmp_path / "other").exists()


def test_presets_are_known_and_fit():
    assert clip_recipe("small") is CLIPS["small"]
    with pytest.raises(UserError, match="unknown preset 'large'; choose one of: small, tiny"):
        clip_recipe("large")
    for recipe in CLIPS.values():
        size = sum(p.numel() for p in build_small_clip(recipe.config, [("a", "b")] * 1500).parameters())
        assert size <= 2.45e6, "5 MB in half precision, with the header"
