"""Textual inversion: only the vectors move, they find what is planted, and a run goes on to the same bits."""

import pytest
import torch
from safetensors.torch import load_file
from small_concepts import QUICK, everything, flags, write_concept, write_small_pipeline

from dlcv_diffusion.errors import UserError
from dlcv_diffusion.models.text_to_image import as_text_to_image
from dlcv_diffusion.models.text_to_image.prompts import token_ids
from dlcv_diffusion.personalisation import Concept, add_token, load_concepts, train_textual_inversion
from dlcv_diffusion.personalisation import learning as learning_module
from dlcv_diffusion.personalisation.learning import PersonalisationConfig, PersonalisationObjective, Stream
from dlcv_diffusion.personalisation.network import PersonalisedNetwork
from dlcv_diffusion.personalisation.tokens import initial_vectors
from dlcv_diffusion.training.loop import run


def train(*args, **options):
    return [*train_textual_inversion(*args, **{**QUICK, **options})]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_only_the_vectors_train_and_the_pipeline_stays_as_it_is(tmp_path, concept_folder, prediction):
    from diffusers import StableDiffusionPipeline

    folder = write_small_pipeline(tmp_path / "pipeline", prediction)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    before, how, words, state = everything(pipeline), flags(pipeline), len(pipeline.tokenizer), torch.get_rng_state()
    states = train(pipeline, Concept(concept_folder, "<new1>", "fox"), tmp_path / "run", vectors=2, lr=0.01)
    assert torch.equal(torch.get_rng_state(), state)
    assert everything(pipeline) == before and flags(pipeline) == how and len(pipeline.tokenizer) == words
    network = states[-1].model
    trained = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert [name.rpartition(".")[2] for name in trained] == ["u"]
    moved = network.vectors["<new1>"].detach() - initial_vectors(pipeline, "fox", 2)
    assert (moved.abs().amax(1) > 0.002).all()
    assert all(weight.grad is None for weight in network.unet.parameters())


def test_the_loss_is_the_equation(pipeline, tmp_path, concept_folder):
    """‖v_θ − target‖² by hand, with the vector in the model's own table."""
    add_token(pipeline, "<known>", torch.randn(32, generator=torch.Generator().manual_seed(1)))
    vector = pipeline.text_encoder.get_input_embeddings().weight[-1:].detach()
    sd = as_text_to_image(pipeline)
    network = PersonalisedNetwork(sd, [("<new1>", vector)])
    draw = torch.Generator().manual_seed(0)
    z, eps, t = (
        torch.randn(3, 4, 8, 8, generator=draw),
        torch.randn(3, 4, 8, 8, generator=draw),
        torch.tensor([5, 500, 999]),
    )
    config = PersonalisationConfig(steps=1, batch_size=3)
    objective = PersonalisationObjective(network, [], sd, config, {}, None)
    new = token_ids(["a <new1>"], network.tokenizer).expand(3, -1)
    loss = objective.loss(network, z, new, t, eps, torch.ones(3))
    known = pipeline.tokenizer(["a <known>"] * 3, padding="max_length", return_tensors="pt").input_ids
    noisy = pipeline.scheduler.add_noise(z, eps, t)
    wanted = pipeline.unet(noisy, t, encoder_hidden_states=pipeline.text_encoder(known)[0]).sample
    torch.testing.assert_close(loss, (wanted - eps).square().mean(), rtol=1e-5, atol=1e-6)


class Planted(PersonalisationObjective):
    """The target is what the U-Net says where the new word has a planted vector."""

    def __init__(self, pipeline, planted, network, config):
        sd = as_text_to_image(pipeline)
        self.teacher = PersonalisedNetwork(sd, [("<new1>", planted)])
        ids = token_ids(["a <new1>", "<new1> and a fox"], network.tokenizer)
        stream = Stream(torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(2)), ids)
        super().__init__(network, [stream], sd, config, {}, lambda *_: None)

    def loss(self, network, *batch):
        z, ids, t, eps, _ = batch
        noisy = self.schedule.add_noise(z, eps, t)
        with torch.no_grad():
            wanted = self.teacher(noisy, t, ids)
        return (network(noisy, t, ids) - wanted).square().mean()


def test_a_planted_vector_is_found(pipeline, tmp_path):
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    begin, planted = (
        initial_vectors(pipeline, "fox"),
        table.std() * torch.randn(1, 32, generator=torch.Generator().manual_seed(3)),
    )
    network = PersonalisedNetwork(as_text_to_image(pipeline), [("<new1>", begin)])
    config = PersonalisationConfig(steps=100, batch_size=4, lr=0.03, warmup=0, weight_decay=0.0, ema_decay=0.0)
    losses = [state.loss for state in run(Planted(pipeline, planted, network, config), config, tmp_path / "run")]
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])
    near = torch.nn.functional.cosine_similarity
    assert near(network.vectors["<new1>"], planted) > near(begin, planted) + 0.3


def test_a_run_goes_on_to_the_same_bits(pipeline, tmp_path, concept_folder):
    concept = Concept(concept_folder, "<new1>", "fox")
    train(pipeline, concept, tmp_path / "whole", steps=4)
    states = train_textual_inversion(pipeline, concept, tmp_path / "two", **QUICK, checkpoint_every=2)
    next(states), next(states)
    states.close()
    train(pipeline, concept, tmp_path / "two", resume=True)
    whole, two = (load_file(tmp_path / name / "model.safetensors")["<new1>"] for name in ("whole", "two"))
    assert torch.equal(whole, two)
    other = Concept(write_concept(tmp_path / "other", "blue"), "<new1>", "fox")
    with pytest.raises(UserError, match="other settings"):
        train(pipeline, other, tmp_path / "two", resume=True, steps=6)


def test_a_batch_in_parts_and_checkpointing_give_the_same_vector(pipeline, tmp_path, concept_folder):
    concept = Concept(concept_folder, "<new1>", "fox")
    found = []
    for name, options in {"a": {}, "b": {"accumulate": 3, "checkpointing": True}}.items():
        losses = [state.loss for state in train(pipeline, concept, tmp_path / name, **options)]
        found.append((losses[0], load_file(tmp_path / name / "model.safetensors")["<new1>"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def test_in_bfloat16_the_vectors_are_float32(pipeline, tmp_path, concept_folder):
    states = train(pipeline, Concept(concept_folder, "<new1>", "fox"), tmp_path / "run", precision="bf16", steps=2)
    network = states[-1].model
    assert network.unet.dtype == torch.bfloat16 and network.vectors["<new1>"].dtype == torch.float32
    assert pipeline.unet.dtype == torch.float32


@pytest.mark.parametrize("vectors", [1, 2])
def test_diffusers_reads_what_was_learnt(pipeline_folder, tmp_path, concept_folder, vectors):
    from diffusers import StableDiffusionPipeline

    ours, theirs = (StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None) for _ in range(2))
    train(ours, Concept(concept_folder, "<new1>", "fox"), tmp_path / "run", vectors=vectors)
    assert load_concepts(ours, tmp_path / "run") == ["<new1>"]
    theirs.load_textual_inversion(str(tmp_path / "run" / "model.safetensors"))
    assert len(ours.tokenizer) == len(theirs.tokenizer)
    tables = [each.text_encoder.get_input_embeddings().weight for each in (ours, theirs)]
    assert torch.equal(*tables)


# --- what does not do -------------------------------------------------------------------------------------------------


def test_half_precision_that_overflows_says_so(pipeline, tmp_path, concept_folder):
    with torch.no_grad():
        pipeline.unet.conv_in.weight.fill_(1e38)
    with pytest.raises(UserError, match=r"became (nan|inf) in half precision \(bf16\); take --precision no"):
        train(pipeline, Concept(concept_folder, "<new1>", "fox"), tmp_path / "run", precision="bf16")


@pytest.mark.parametrize("place", ["training_target", "encoded"])
def test_too_little_memory_says_what_to_lower(pipeline, tmp_path, concept_folder, monkeypatch, place):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(learning_module, place, full)
    with pytest.raises(UserError, match="too little memory for a batch of 4; --accumulate 4, --checkpointing"):
        train(pipeline, Concept(concept_folder, "<new1>", "fox"), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": "nowhere"}, "'nowhere' is not there; give a folder of three to six pictures"),
        ({"token": "fox"}, "ordinary word"),
        ({"initialiser": "hot air"}, "not one token"),
        ({"kind": "person"}, "unknown kind of concept 'person'"),
        ({"templates": ["a photo"]}, "the template 'a photo' has no {} where the new word goes"),
        ({"templates": ["{} " + "fox " * 30]}, "tokens, and the model reads 20; shorten it"),
    ],
)
def test_a_concept_that_cannot_be_learnt(pipeline, tmp_path, concept_folder, change, said):
    concept = Concept(**{"images": concept_folder, "token": "<new1>", "initialiser": "fox", **change})
    with pytest.raises(UserError, match=said.replace("{}", r"\{\}")):
        train(pipeline, concept, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_that_are_empty_or_mixed(pipeline, tmp_path, concept_folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in .*empty"):
        train(pipeline, Concept(tmp_path / "empty"), tmp_path / "run")
    (concept_folder / "notes.txt").write_text("a dog")
    with pytest.raises(UserError, match="holds 'notes.txt' beside the pictures; take it out"):
        train(pipeline, Concept(concept_folder), tmp_path / "run")
    (concept_folder / "notes.txt").rename(concept_folder / "notes.png")
    with pytest.raises(UserError, match="notes.png' is not a picture that can be read"):
        train(pipeline, Concept(concept_folder), tmp_path / "run")
