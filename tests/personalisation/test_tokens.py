"""New words: what was there stays, to the bit; names are checked; nothing is drawn from torch's generator."""

import pytest
import torch

from dlcv_diffusion.errors import UserError
from dlcv_diffusion.models.text_to_image import as_text_to_image
from dlcv_diffusion.models.text_to_image.prompts import expanded
from dlcv_diffusion.personalisation import add_token
from dlcv_diffusion.personalisation.network import frozen_copy
from dlcv_diffusion.personalisation.tokens import WordsAndVectors, initial_vectors, with_vectors


def ids(pipeline, text):
    return pipeline.tokenizer(text).input_ids[1:-1]


def test_a_new_word_leaves_the_others_and_the_generator_as_they_were(pipeline):
    table = pipeline.text_encoder.get_input_embeddings()
    before, state, vector = table.weight.detach().clone(), torch.get_rng_state(), torch.randn(32)
    state = torch.get_rng_state()
    new = add_token(pipeline, "<new1>", vector)
    assert torch.equal(torch.get_rng_state(), state)
    assert new == [len(before)] and torch.equal(table.weight[: len(before)], before)
    assert torch.equal(table.weight[new[0]], vector)
    assert pipeline.text_encoder.get_input_embeddings().num_embeddings == len(before) + 1
    assert pipeline.text_encoder.config.vocab_size == len(before) + 1
    assert ids(pipeline, "a <new1>, a fox") == [*ids(pipeline, "a"), new[0], *ids(pipeline, ", a fox")]


def test_transformers_own_resizing_draws_from_the_generator(pipeline):
    state = torch.get_rng_state()
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer) + 1)
    assert not torch.equal(torch.get_rng_state(), state)


def test_several_vectors_are_written_out(pipeline):
    vectors = torch.randn(3, 32)
    new = add_token(pipeline, "<new1>", vectors)
    add_token(pipeline, "<new2>", vectors[0])
    add_token(pipeline, "<new10>", vectors[:2])
    said = expanded("a <new1>, <new2> and <new10>", pipeline.tokenizer)
    assert said == "a <new1> <new1>_1 <new1>_2, <new2> and <new10> <new10>_1"
    assert expanded(said, pipeline.tokenizer) == said
    assert ids(pipeline, expanded("<new1>", pipeline.tokenizer)) == new
    sd = as_text_to_image(pipeline)
    for prompt in ("a <new1>", said, "A <NEW1>"):  # the tokenizer makes capitals small
        assert [number for number in sd.tokens([prompt])[0].tolist() if number in new] == new
    prompt = "a <new1> next to a <new2>"
    assert expanded(prompt, pipeline.tokenizer) == pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)


def test_the_new_word_is_read_as_the_parameter_of_its_own(pipeline):
    vector = torch.randn(1, 32)
    text_encoder = frozen_copy(pipeline.text_encoder)
    tokenizer = with_vectors(pipeline.tokenizer, text_encoder, [("<new1>", vector)])
    assert "<new1>" not in pipeline.tokenizer.get_vocab()
    sentence = torch.tensor([tokenizer("a <new1> fox").input_ids])
    add_token(pipeline, "<new1>", vector)
    assert torch.equal(text_encoder(sentence)[0], pipeline.text_encoder(sentence)[0])


def test_scaled_vectors_move_by_the_scale():
    for scale in (1.0, 8.0):
        lookup = WordsAndVectors(torch.nn.Embedding(3, 2), torch.ones(1, 2), first=3, scale=scale)
        assert torch.equal(lookup.vectors, torch.ones(1, 2))
        adam = torch.optim.Adam([lookup.u], lr=0.01)
        lookup(torch.tensor([3])).sum().backward()
        adam.step()
        torch.testing.assert_close(lookup.vectors, torch.full((1, 2), 1 - 0.01 * scale))


def test_vectors_begin_at_a_word_or_at_the_mean(pipeline):
    table = pipeline.text_encoder.get_input_embeddings().weight
    (fox,) = ids(pipeline, "fox")
    assert torch.equal(initial_vectors(pipeline, "fox", 2), table[[fox, fox]])
    torch.testing.assert_close(initial_vectors(pipeline), table.mean(0, keepdim=True))


@pytest.mark.parametrize("word", ["hot air", "zqx", "", "foxes in boxes"])
def test_an_initialiser_is_one_token(pipeline, word):
    with pytest.raises(
        UserError, match=f"initialiser '{word}' is not one token of the vocabulary.*give one plain word"
    ):
        initial_vectors(pipeline, word)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("<new 1>", "is no token: it is empty or holds spaces"),
        ("", "is no token"),
        ("fox", "'fox' is an ordinary word of the vocabulary already"),
        ("Fox", "'Fox' is an ordinary word"),
        ("<|endoftext|>", "exists already"),
        ("<old>", "'<old>' exists already in this model; choose a name"),
        ("<OLD>", "'<OLD>' exists already"),
    ],
)
def test_names_that_are_taken(pipeline, token, said):
    add_token(pipeline, "<old>", torch.zeros(32))
    size = len(pipeline.tokenizer)
    with pytest.raises(UserError, match=said.replace("|", r"\|")):
        add_token(pipeline, token, torch.zeros(32))
    assert len(pipeline.tokenizer) == size


def test_a_name_for_a_second_vector_may_be_taken_too(pipeline):
    add_token(pipeline, "<new1>_1", torch.zeros(32))
    for count in (1, 2):  # a prompt with <new1> would ask for both
        with pytest.raises(UserError, match="'<new1>_1' exists already"):
            add_token(pipeline, "<new1>", torch.zeros(count, 32))
    add_token(pipeline, "<new2>", torch.zeros(32))
    with pytest.raises(UserError, match="'<New2>_1' would be another vector of '<new2>'"):
        add_token(pipeline, "<New2>_1", torch.zeros(32))


def test_vectors_of_another_width_or_of_nan(pipeline):
    with pytest.raises(UserError, match=r"have 768 numbers, as those of Stable Diffusion 1.x have, and .* words 32"):
        add_token(pipeline, "<new1>", torch.zeros(768))
    with pytest.raises(UserError, match="not finite"):
        add_token(pipeline, "<new1>", torch.full((1, 32), torch.nan))
    assert "<new1>" not in pipeline.tokenizer.get_vocab()


@pytest.mark.parametrize(("part", "name"), [("text_encoder", "text encoder"), ("vae", "autoencoder")])
def test_a_pipeline_that_lacks_a_part(pipeline, part, name):
    setattr(pipeline, part, None)
    with pytest.raises(UserError, match=f"has no {name}; give a whole text-to-image model"):
        add_token(pipeline, "<new1>", torch.zeros(32))
