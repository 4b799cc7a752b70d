"""The merge of eq. 4 and 5: against a solver that shares nothing with it, and its constraint."""

import numpy as np
import pytest
import torch
from scipy.linalg import lstsq, null_space
from small_concepts import custom

from dlcv_diffusion.errors import UserError
from dlcv_diffusion.models.text_to_image import as_text_to_image
from dlcv_diffusion.personalisation import load_concepts, merge, merged_weight, read_concept_file
from dlcv_diffusion.personalisation.concepts import write_embedding
from dlcv_diffusion.personalisation.merging import features

CAPTIONS = ["a photo of a fox.", "a castle", "owls in the style of a blueprint", "a willow tree and a hot air balloon"]


def random(*shapes, seed=0):
    draw = np.random.default_rng(seed)
    return [torch.from_numpy(draw.standard_normal(shape)) for shape in shapes]


def solved_in_the_null_space(W0, C, V, C_reg):
    """argmin ‖(W − W0) C_regᵀ‖ with W Cᵀ = Vᵀ: any solution of the constraint, and the best step in C's null space."""
    W0, C, V, C_reg = (each.numpy() for each in (W0, C, V, C_reg))
    one, N = lstsq(C, V)[0].T, null_space(C)
    step = lstsq(C_reg @ N, (C_reg @ (W0 - one).T))[0].T
    return torch.from_numpy(one + step @ N.T)


@pytest.mark.parametrize(("out", "d", "s", "r"), [(6, 5, 2, 40), (3, 8, 1, 20), (10, 12, 7, 300)])
def test_the_closed_form_is_the_constrained_minimum(out, d, s, r):
    W0, C, V, C_reg = random((out, d), (s, d), (s, out), (r, d))
    W = merged_weight(W0, C, V, C_reg)
    torch.testing.assert_close(W @ C.T, V.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(W, solved_in_the_null_space(W0, C, V, C_reg), rtol=0, atol=1e-6)


def test_nothing_asked_for_changes_nothing():
    W0, C, C_reg = random((4, 6), (2, 6), (50, 6))
    torch.testing.assert_close(merged_weight(W0, C, C @ W0.T, C_reg), W0)


def test_the_constraint_holds_with_fewer_words_than_dimensions():
    W0, C, V, C_reg = random((4, 16), (3, 16), (3, 4), (5, 16))
    torch.testing.assert_close(merged_weight(W0, C, V, C_reg) @ C.T, V.T, rtol=0, atol=1e-7)


def test_concepts_that_are_read_alike():
    W0, C, V, C_reg = random((4, 6), (2, 6), (2, 4), (50, 6))
    with pytest.raises(UserError, match="read alike by the text encoder"):
        merged_weight(W0, C[[0, 0]], V, C_reg)


def test_each_concept_gets_the_keys_and_values_of_its_own_training(pipeline, tmp_path):
    sd, paths = as_text_to_image(pipeline), [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    kept = [
        custom(pipeline, path, [token], seed)
        for seed, (path, token) in enumerate(zip(paths, ("<new1>", "<new2>"), strict=True))
    ]
    before = {name: weight.detach().clone() for name, weight in sd.unet.named_parameters()}
    assert merge(pipeline, paths, tmp_path / "both.safetensors", CAPTIONS) == ["<new1>", "<new2>"]
    assert all(torch.equal(weight, before[name]) for name, weight in sd.unet.named_parameters())
    vectors = [item for path in paths for item in read_concept_file(path).vectors.items()]
    C, _ = features(sd, vectors, CAPTIONS)
    load_concepts(pipeline, tmp_path / "both.safetensors")
    weights = dict(sd.unet.named_parameters())
    for (token, rows), deltas in zip(vectors, kept, strict=True):
        place = pipeline.tokenizer.convert_tokens_to_ids(token)
        assert torch.equal(sd.table.weight[place], rows[0])
        for name, delta in deltas.items():
            own = (before[name].double() + delta.half().double()) @ C[token].T
            found = weights[name].detach().double() @ C[token].T
            apart = (before[name].double() @ C[token].T - own).abs().mean()
            assert (found - own).abs().mean() < 0.02 * apart  # half precision


def test_what_cannot_be_merged(pipeline, tmp_path):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    custom(pipeline, a)
    with pytest.raises(UserError, match="two or more files"):
        merge(pipeline, [a], tmp_path / "out.safetensors", CAPTIONS)
    with pytest.raises(UserError, match="two of the files hold the token '<new1>'"):
        merge(pipeline, [a, a], tmp_path / "out.safetensors", CAPTIONS)
    write_embedding(b, "<new2>", torch.zeros(1, 32))
    with pytest.raises(UserError, match="changes no keys and values"):
        merge(pipeline, [a, b], tmp_path / "out.safetensors", CAPTIONS)
    assert not (tmp_path / "out.safetensors").exists()


def test_words_that_are_read_nearly_alike(pipeline, tmp_path):
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    custom(pipeline, paths[0], vectors={"<new1>": vector})
    custom(pipeline, paths[1], seed=1, vectors={"<new2>": 1.001 * vector})
    with pytest.raises(UserError, match=r"so nearly alike that all other sentences would change by \d+%; learn them"):
        merge(pipeline, paths, tmp_path / "both.safetensors", CAPTIONS)
    assert not (tmp_path / "both.safetensors").exists()
