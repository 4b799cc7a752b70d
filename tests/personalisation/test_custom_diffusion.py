"""Custom Diffusion: every concept's vector moves, keys and values move, nothing else; one file, the same anywhere."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_concepts import QUICK, everything, flags, write_concept

from dlcv_diffusion.errors import UserError
from dlcv_diffusion.models.text_to_image import as_text_to_image
from dlcv_diffusion.models.text_to_image.prompts import token_ids
from dlcv_diffusion.personalisation import (
    Concept,
    PersonalisedNetwork,
    load_concepts,
    read_concept_file,
    train_custom_diffusion,
)
from dlcv_diffusion.personalisation.learning import (
    PersonalisationConfig,
    PersonalisationObjective,
    Stream,
    concept_pictures,
    concept_streams,
    prior_of,
)
from dlcv_diffusion.personalisation.network import cross_attention
from dlcv_diffusion.personalisation.pictures import encoded, read_captions_of, read_concept, side_by_side
from dlcv_diffusion.personalisation.tokens import initial_vectors


def train(pipeline, concepts, out, **options):
    return [*train_custom_diffusion(pipeline, concepts, out, **{**QUICK, **options})]


def three(tmp_path, **more):
    words = {"red": "fox", "blue": "owl", "green": "castle"}
    folders = [write_concept(tmp_path / colour, colour, count=2) for colour in words]
    rows = enumerate(zip(folders, words.values(), strict=True), start=1)
    return [Concept(folder, f"<new{number}>", word, **more) for number, (folder, word) in rows]


def test_every_token_moves_keys_and_values_move_and_nothing_else(pipeline, tmp_path):
    before, how = everything(pipeline), flags(pipeline)
    start = {
        token: initial_vectors(pipeline, word)
        for token, word in {"<new1>": "fox", "<new2>": "owl", "<new3>": "castle"}.items()
    }
    states = train(pipeline, three(tmp_path), tmp_path / "run", batch_size=3)
    assert everything(pipeline) == before and flags(pipeline) == how
    found = read_concept_file(tmp_path / "run")
    assert list(found.vectors) == list(start)
    for token, rows in found.vectors.items():  # the last one too
        assert (rows - start[token]).abs().max() > 1e-3, token
    assert sorted(found.deltas) == sorted(cross_attention(pipeline.unet)) and len(found.deltas) % 2 == 0
    assert all(delta.abs().max() > 1e-6 for delta in found.deltas.values())
    network, trained = states[-1].model, set(cross_attention(pipeline.unet))
    unet, text = (dict(each.named_parameters()) for each in (pipeline.unet, pipeline.text_encoder))
    for name, weight in network.unet.named_parameters():
        assert torch.equal(weight, unet[name]) != (name in trained), name
    for name, weight in network.text_encoder.named_parameters():
        assert weight.requires_grad or torch.equal(weight, text[name.replace(".table", "")]), name


def test_the_prior_is_drawn_once_and_kept(pipeline, tmp_path):
    concepts = three(tmp_path, prior=2)[:2]
    states = train_custom_diffusion(pipeline, concepts, tmp_path / "run", **QUICK, checkpoint_every=1)
    next(states)
    states.close()
    drawn = sorted((tmp_path / "run" / "prior").rglob("*.png"))
    assert len(drawn) == 4
    times = [path.stat().st_mtime_ns for path in drawn]
    train(pipeline, concepts, tmp_path / "run", resume=True)
    assert [path.stat().st_mtime_ns for path in drawn] == times


def test_a_prior_that_is_given_takes_its_turn_with_its_weight(pipeline, tmp_path, concept_folder):
    concept = Concept(
        concept_folder, "<new1>", "fox", prior=write_concept(tmp_path / "prior", "blue"), templates=["a {}"]
    )
    train(pipeline, [concept], tmp_path / "run", prior_weight=0.5, steps=1)
    facts = read_concept_file(tmp_path / "run").facts["concepts"][0]
    assert facts["prior_hash"] != facts["data_hash"] and facts["pictures"] == 4
    with pytest.raises(UserError, match="its kind has no name; give the initialiser"):
        train(pipeline, [Concept(concept_folder, "<new1>", prior=2)], tmp_path / "other")


def test_the_prior_counts_by_its_weight(pipeline):
    """(mean over the concept + λ · mean over the prior) / 2 (arXiv 2208.12242, eq. 2): there are as many of each."""
    sd, draw = as_text_to_image(pipeline), torch.Generator().manual_seed(0)
    network = PersonalisedNetwork(sd, [("<new1>", initial_vectors(sd, "fox"))], cross_attention(sd.unet))
    concept, prior = (token_ids([text], network.tokenizer) for text in ("a <new1>", "a fox"))
    latents = torch.randn(2, 1, 4, 8, 8, generator=draw)
    streams = [Stream(latents[0], concept), Stream(latents[1], prior, 0.25)]
    config = PersonalisationConfig(steps=1, batch_size=6, precision="no")
    objective = PersonalisationObjective(network, streams, sd, config, {}, None)
    z, ids, t, eps, weights = objective.batch(0)
    assert weights.tolist() == [1.0, 0.25] * 3
    assert torch.equal(z[0::2], latents[0].expand(3, -1, -1, -1)) and torch.equal(ids[1::2], prior.expand(3, -1))
    with torch.no_grad():
        found = network(pipeline.scheduler.add_noise(z, eps, t), t, ids)
        each = (found - eps).square().mean((1, 2, 3))
        wanted = (each[0::2].mean() + 0.25 * each[1::2].mean()) / 2
        torch.testing.assert_close(objective.loss(network, z, ids, t, eps, weights), wanted, rtol=1e-5, atol=1e-6)


def test_what_was_drawn_of_another_kind_is_no_prior(pipeline, tmp_path, concept_folder):
    sd, found = as_text_to_image(pipeline), []
    for word, seed in (("fox", 0), ("owl", 0), ("fox", 1), ("fox", 0)):
        found.append(prior_of(Concept(concept_folder, "<new1>", word, prior=2), sd, tmp_path, seed)[0])
    assert len(list(tmp_path.glob("a_*_*"))) == 3
    assert torch.equal(found[0], found[3]) and not any(torch.equal(found[0], other) for other in found[1:3])


def test_a_run_goes_on_to_the_same_bits(pipeline, tmp_path):
    concepts = three(tmp_path)[:2]
    train(pipeline, concepts, tmp_path / "whole")
    states = train_custom_diffusion(pipeline, concepts, tmp_path / "two", **QUICK, checkpoint_every=2)
    next(states), next(states)
    states.close()
    train(pipeline, concepts, tmp_path / "two", resume=True)
    whole, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "two"))
    assert whole.keys() == two.keys() and all(torch.equal(whole[name], two[name]) for name in whole)


def test_in_bfloat16_what_trains_is_float32(pipeline, tmp_path):
    states = train(pipeline, three(tmp_path)[:1], tmp_path / "run", precision="bf16", steps=2, checkpointing=True)
    network, trained = states[-1].model, set(cross_attention(pipeline.unet))
    for name, weight in network.unet.named_parameters():
        assert weight.dtype == (torch.float32 if name in trained else torch.bfloat16)
    assert all(delta.abs().max() > 0 for delta in read_concept_file(tmp_path / "run").deltas.values())


DRAW = """
import sys
import numpy as np, torch
sys.modules["peft"] = None  # importing it fails from now on
from diffusers import StableDiffusionPipeline
from dlcv_diffusion.personalisation import load_concepts
torch.set_num_threads(1)
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None)
load_concepts(pipeline, sys.argv[2])
draw = torch.Generator().manual_seed(0)
np.save(sys.argv[3], pipeline("a <new1> and a <new2>", num_inference_steps=4, generator=draw, output_type="np").images)
"""


def drawn(pipeline, prompt):
    draw = torch.Generator().manual_seed(0)
    return pipeline(prompt, num_inference_steps=4, generator=draw, output_type="np").images


def test_a_new_process_draws_the_same_without_peft(pipeline, pipeline_folder, tmp_path):
    """Here, with peft where it is installed; there, without."""
    train(pipeline, three(tmp_path)[:2], tmp_path / "run", lr=0.01, lr_ratio=10.0)
    before = drawn(pipeline, "a fox and a castle")
    load_concepts(pipeline, tmp_path / "run")
    here = drawn(pipeline, "a <new1> and a <new2>")
    words = [pipeline_folder, tmp_path / "run", tmp_path / "there.npy"]
    subprocess.run([sys.executable, "-c", DRAW, *map(str, words)], check=True, timeout=500)
    assert np.abs(np.load(words[-1]) - here).max() < 1e-5
    assert np.abs(drawn(pipeline, "a fox and a castle") - before).max() > 1e-3  # keys and values did change


def test_the_file_of_stable_diffusion_1_4_is_below_80_megabytes():
    """Its U-Net on the meta device: only shapes."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    weights = dict(unet.named_parameters())
    assert sum(weight.numel() for weight in weights.values()) == 859_520_964  # as published
    names = cross_attention(unet)
    numbers = sum(weights[name].numel() for name in names)
    assert len(names) == 32 and numbers == 2 * 768 * (5 * 320 + 5 * 640 + 6 * 1280)
    assert 2 * numbers < 40e6  # bytes, in half precision


def test_a_model_without_cross_attention(pipeline, tmp_path, concept_folder):
    from diffusers import UNet2DModel

    pipeline.unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    with pytest.raises(UserError, match="has no cross-attention"):
        cross_attention(pipeline.unet)
    with pytest.raises(UserError, match="the parts of .* do not make a model"):
        train(pipeline, [Concept(concept_folder, "<new1>")], tmp_path / "run")


@pytest.mark.parametrize("concepts", [[], ["<new1>", "<new1>"]])
def test_concepts_that_cannot_be_learnt_together(pipeline, tmp_path, concept_folder, concepts):
    said = "exists already" if concepts else "there is no concept to learn"
    with pytest.raises(UserError, match=said):
        train(pipeline, [Concept(concept_folder, token, "fox") for token in concepts], tmp_path / "run")


def test_cutmix_shows_every_pair_side_by_side_with_its_sentence(pipeline, tmp_path):
    """Two things: each beside the other and beside its kind, in both orders; with a style, or alone, none."""
    sd = as_text_to_image(pipeline)
    red, blue, third = three(tmp_path, prior=2)
    style = replace(third, kind="style", prior=0)
    network = PersonalisedNetwork(sd, [(each.token, initial_vectors(sd, "fox")) for each in (red, blue, style)])
    config = PersonalisationConfig(steps=1, cutmix=True)
    streams, _ = concept_streams([red, blue], sd, network.tokenizer, config, tmp_path / "prior")
    plain, _ = concept_streams([red, blue], sd, network.tokenizer, replace(config, cutmix=False), tmp_path)
    styled, _ = concept_streams([red, blue, style], sd, network.tokenizer, config, tmp_path)
    assert len(styled) == len(plain) + 1
    alone, _ = concept_streams([red], sd, network.tokenizer, config, tmp_path)
    assert len(alone) == 2, "one thing alone, and its prior"
    said = {tuple(stream.ids[0].tolist()) for stream in streams[len(plain) :]}
    names = [("<new1>", "<new2>"), ("<new1>", "fox"), ("<new2>", "owl")]
    pairs = [f"a {a} next to a {b}" for a, b in names] + [f"a {b} next to a {a}" for a, b in names]
    assert said == {tuple(token_ids([pair], network.tokenizer)[0].tolist()) for pair in pairs}
    pictures = [read_concept(each.images, sd.side) for each in (red, blue)]
    assert torch.equal(streams[len(plain)].latents, encoded(sd, side_by_side(*pictures)))
    first = sorted(Path(red.images).glob("*.png"))[0]  # its ground is said, so half of a pair it would be wrong
    first.with_suffix(".txt").write_text("a {} on a grey background", encoding="utf-8")
    streams, _ = concept_streams([red, blue], sd, network.tokenizer, config, tmp_path / "prior")
    assert torch.equal(streams[len(plain)].latents, encoded(sd, side_by_side(pictures[0][1:], pictures[1])))


def test_halves_are_whole_pictures_on_like_grounds():
    grounds = torch.tensor([[250, 0, 0], [0, 0, 250]], dtype=torch.uint8)
    left, right = (grounds[order, :, None, None].repeat(1, 1, 16, 16) for order in ([0, 1], [1, 0]))
    left[:, :, 4:12, 4:12] = 120
    mixed = side_by_side(left, right)
    assert mixed.shape == (2, 3, 16, 16) and (mixed[0, 0, 0] == 250).all() and (mixed[1, 2, :, 8:] == 250).all()
    assert (mixed[0, :, 7:9, 3:5] == 120).all() and (mixed[0, :, :4] == grounds[0, :, None, None]).all()


def test_a_picture_may_come_with_what_it_shows(pipeline, concept_folder):
    sd = as_text_to_image(pipeline)
    names = sorted(path.stem for path in concept_folder.glob("*.png"))
    (concept_folder / f"{names[1]}.txt").write_text("a castle in the style of {}\n\na fox, {}\n", encoding="utf-8")
    concept = Concept(concept_folder, "<new1>", "fox", "style", templates=["in the style of {}"])
    network = PersonalisedNetwork(sd, [("<new1>", initial_vectors(sd, "fox"))])
    images, ids, alone, _ = concept_pictures(concept, sd, network.tokenizer, flip=True)
    wanted = [["in the style of <new1>"] * 2] * len(names)
    wanted[1] = ["a castle in the style of <new1>", "a fox, <new1>"]
    assert torch.equal(ids, torch.stack([token_ids(said, network.tokenizer) for said in wanted * 2]))
    assert alone.tolist() == [number != 1 for number in range(len(names))] * 2
    assert len(images) == len(ids)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty; write into it"), (b"a fox", "has no {} where the new word goes"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_a_caption_that_does_not_do_is_refused(concept_folder, content, said):
    next(concept_folder.glob("*.png")).with_suffix(".txt").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_captions_of(concept_folder, "<new1>")
