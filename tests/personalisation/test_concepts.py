"""Learnt concepts on disk: every form is read, and what cannot be is told in a sentence."""

import pytest
import torch
from safetensors.torch import save_file
from small_concepts import custom

from dlcv_diffusion.errors import UserError
from dlcv_diffusion.models.registry import short_hash, write_tensors
from dlcv_diffusion.models.text_to_image import as_text_to_image, load_text_to_image
from dlcv_diffusion.personalisation import load_concepts, read_concept_file
from dlcv_diffusion.personalisation.concepts import base_facts, write_custom, write_embedding
from dlcv_diffusion.personalisation.network import cross_attention, frozen_copy

ONE, TWO = torch.arange(32.0), torch.randn(2, 32, generator=torch.Generator().manual_seed(0))


def automatic(rows, **more):
    return {"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "<new1>", "step": 500, **more}


FORMS = {
    "learned_embeds.bin": {"<new1>": ONE},
    "course.pt": {"<new1>": torch.nn.Parameter(ONE)},
    "several.bin": {"<new1>": TWO},
    "half.pt": {"<new1>": TWO.half()},
    "automatic.pt": automatic(TWO, sd_checkpoint=None, sd_checkpoint_name=None),
    "authors.pt": {"string_to_token": {"<new1>": torch.tensor(265)}, "string_to_param": {"<new1>": TWO}},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_torch_save(tmp_path, name):
    torch.save(FORMS[name], tmp_path / name)
    found = read_concept_file(tmp_path / name).vectors
    assert list(found) == ["<new1>"]
    wanted = ONE[None] if name in ("learned_embeds.bin", "course.pt") else TWO
    torch.testing.assert_close(found["<new1>"], wanted, atol=2e-3 if name == "half.pt" else 0, rtol=0)
    assert not found["<new1>"].requires_grad
    assert list(read_concept_file(tmp_path / name, token="<mine>").vectors) == ["<mine>"]


def test_the_authors_parameter_dict(tmp_path):
    kept = torch.nn.ParameterDict({"*": torch.nn.Parameter(TWO)})
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": kept}, tmp_path / "embeddings.pt")
    assert torch.equal(read_concept_file(tmp_path / "embeddings.pt", token="<new1>").vectors["<new1>"], TWO)


def test_safetensors_of_diffusers_of_the_web_and_a_folder(tmp_path):
    save_file({"<new1>": ONE}, tmp_path / "learned_embeds.safetensors")
    assert torch.equal(read_concept_file(tmp_path).vectors["<new1>"], ONE[None])
    save_file({"emb_params": TWO}, tmp_path / "grumpy.safetensors")
    assert torch.equal(read_concept_file(tmp_path / "grumpy.safetensors").vectors["grumpy"], TWO)
    write_embedding(tmp_path / "run" / "model.safetensors", "<new2>", TWO, {"method": "by hand"})
    found = read_concept_file(tmp_path / "run")
    assert torch.equal(found.vectors["<new2>"], TWO) and found.facts == {"method": "by hand"}


def test_they_come_into_the_pipeline(pipeline, tmp_path):
    torch.save(FORMS["automatic.pt"], tmp_path / "a.pt")
    save_file({"<new2>": ONE}, tmp_path / "b.safetensors")
    assert load_concepts(pipeline, tmp_path / "a.pt", tmp_path / "b.safetensors") == ["<new1>", "<new2>"]
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[-3:], torch.cat([TWO, ONE[None]]))
    with pytest.raises(UserError, match="the token '<new1>' exists already"):
        load_concepts(pipeline, tmp_path / "a.pt")
    custom(pipeline, tmp_path / "c.safetensors", ["<kept>"])
    with pytest.raises(UserError, match="whose tokens keep their names; leave out the other name"):
        load_concepts(pipeline, f"<mine>={tmp_path / 'c.safetensors'}")
    assert load_concepts(pipeline, f"<again>={tmp_path / 'a.pt'}") == ["<again>"]


def test_a_text_to_image_model_reads_prompts_with_them(pipeline_folder, pipeline, tmp_path):
    sd = load_text_to_image(pipeline_folder, "cpu")
    torch.save(FORMS["automatic.pt"], tmp_path / "a.pt")
    assert load_concepts(sd, tmp_path / "a.pt") == load_concepts(pipeline, tmp_path / "a.pt") == ["<new1>"]
    found = sd.encode_prompts(["a <new1>, a fox"])
    wanted, _ = pipeline.encode_prompt("a <new1>, a fox", "cpu", 1, False)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_file_of_several_terms(tmp_path):
    torch.save({"<new1>": ONE, "<new2>": TWO}, tmp_path / "two.bin")
    with pytest.raises(
        UserError, match=r"holds several terms: <new1>, <new2>; choose one of them, as in '<new1>=.*two.bin'"
    ):
        read_concept_file(tmp_path / "two.bin")
    with pytest.raises(UserError, match=r"several terms"):
        read_concept_file(tmp_path / "two.bin", token="<new3>")
    found = read_concept_file(tmp_path / "two.bin", token="<new2>").vectors
    assert list(found) == ["<new2>"] and torch.equal(found["<new2>"], TWO)


class Evil:
    def __reduce__(self):
        return print, ("this was run",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Evil(), "holds pickled code, which is never run"),
        ({"<new1>": Evil()}, "holds pickled code, which is never run"),
        ({}, r"holds no \{token: vector\}"),
        (ONE, r"holds no \{token: vector\}"),
        ({"<new1>": "a dog"}, r"holds no vector \(d,\) or vectors \(n, d\) for '<new1>'"),
        ({"<new1>": torch.zeros(1, 2, 3)}, "holds no vector"),
        ({"<new1>": torch.zeros(0)}, "holds no vector"),
        ({"string_to_param": {}}, "holds no vectors"),
        ({"clip_l": TWO, "clip_g": TWO}, "Stable Diffusion XL, which has two text encoders"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, capsys, content, said):
    torch.save(content, tmp_path / "file.bin")
    with pytest.raises(UserError, match=said):
        read_concept_file(tmp_path / "file.bin")
    assert capsys.readouterr().out == ""


def test_files_that_are_missing_damaged_or_too_new(tmp_path):
    with pytest.raises(UserError, match="'.*none.pt' is not there; give a .safetensors, .bin or .pt"):
        read_concept_file(tmp_path / "none.pt")
    for name in ("cut.safetensors", "cut.pt"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(UserError, match="damaged|whole safetensors"):
            read_concept_file(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="holds no model.safetensors or learned_embeds"):
        read_concept_file(tmp_path / "folder")
    save_file({"<new1>": ONE}, tmp_path / "new.safetensors", {"dlcv_diffusion": '{"format": 99}'})
    with pytest.raises(UserError, match="newer dlcv_diffusion"):
        read_concept_file(tmp_path / "new.safetensors")


@pytest.mark.parametrize(("found", "name"), [(768, "1.x"), (1024, "2.x"), (48, None)])
def test_vectors_of_another_model(pipeline, tmp_path, found, name):
    torch.save({"<new1>": torch.zeros(found)}, tmp_path / "other.bin")
    with pytest.raises(UserError, match=f"have {found:,} numbers.*this text encoder's words 32; give one") as said:
        load_concepts(pipeline, tmp_path / "other.bin")
    assert (name is None) == ("Stable Diffusion" not in str(said.value))


def test_custom_diffusion_is_added_to_keys_and_values_alone(pipeline, tmp_path):
    path = tmp_path / "a.safetensors"
    deltas, before = custom(pipeline, path), {k: v.detach().clone() for k, v in pipeline.unet.named_parameters()}
    assert load_concepts(pipeline, path) == ["<new1>"]
    for name, weight in pipeline.unet.named_parameters():
        wanted = before[name] + deltas[name].half().float() if name in deltas else before[name]
        assert torch.equal(weight, wanted)


def test_custom_diffusion_belongs_to_its_model_and_comes_once(pipeline, tmp_path):
    custom(pipeline, tmp_path / "a.safetensors")
    custom(pipeline, tmp_path / "b.safetensors", ["<new2>"], seed=1)
    with pytest.raises(UserError, match="both change keys and values; join them by `dlcv personalise merge`"):
        load_concepts(pipeline, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    load_concepts(pipeline, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="keys and values are not those of .* on which '.*b.safetensors' was learnt"):
        load_concepts(pipeline, tmp_path / "b.safetensors")
    assert "<new2>" not in pipeline.tokenizer.get_vocab()


def test_two_files_with_the_same_token(pipeline, tmp_path):
    for name in ("a.bin", "b.bin"):
        torch.save({"<new1>": ONE}, tmp_path / name)
    with pytest.raises(UserError, match="two of the files hold the token '<new1>'"):
        load_concepts(pipeline, tmp_path / "a.bin", tmp_path / "b.bin")
    assert "<new1>" not in pipeline.tokenizer.get_vocab()


def test_a_name_for_a_second_vector_in_another_file(pipeline, tmp_path):
    torch.save({"<new1>": TWO}, tmp_path / "a.bin")
    torch.save({"<NEW1>_1": ONE}, tmp_path / "b.bin")
    with pytest.raises(UserError, match="two of the files hold the token '<new1>_1'"):
        load_concepts(pipeline, tmp_path / "a.bin", tmp_path / "b.bin")
    assert "<new1>" not in pipeline.tokenizer.get_vocab()


def test_a_network_that_shares_its_weights_stays_as_it_is(pipeline, tmp_path):
    copy = frozen_copy(pipeline.unet)
    before, flags = short_hash(copy.parameters()), [weight.requires_grad for weight in pipeline.unet.parameters()]
    custom(pipeline, tmp_path / "a.safetensors")
    load_concepts(pipeline, tmp_path / "a.safetensors")
    assert short_hash(copy.parameters()) == before != short_hash(pipeline.unet.parameters())
    assert [weight.requires_grad for weight in pipeline.unet.parameters()] == flags


def test_keys_and_values_are_all_there(pipeline, tmp_path):
    sd = as_text_to_image(pipeline)
    deltas = {name: torch.zeros_like(sd.unet.get_parameter(name)) for name in cross_attention(sd.unet)[1:]}
    write_custom(tmp_path / "a.safetensors", {"<new1>": ONE[None]}, deltas, base_facts(sd))
    with pytest.raises(UserError, match="keys and values are not those of"):
        load_concepts(pipeline, tmp_path / "a.safetensors")


def test_other_files_of_ours_are_no_concepts(tmp_path):
    write_tensors(tmp_path / "checkpoint.safetensors", {"model.u": TWO}, {"checkpoint": {"step": 1}})
    with pytest.raises(UserError, match="is a checkpoint or another file of dlcv_diffusion; give the run's model"):
        read_concept_file(tmp_path / "checkpoint.safetensors", token="model.u")
