"""Our small CLIP: its tokenizer reads as CLIP's do, its file keeps it, and transformers' models compute the same."""

import gzip
import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from small_clips import CONFIG, MERGES, clip_file, small_clip  # noqa: F401 – a fixture
from small_runs import one_thread  # noqa: F401 – for every test here
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer

from dlcv_diffusion import UserError
from dlcv_diffusion.models.clip import load_clip, tokenizer
from dlcv_diffusion.models.clip.small import SmallClipConfig, build_small_clip, read_small_clip, save_small_clip
from dlcv_diffusion.models.clip.to_transformers import (
    text_model,
    whole_model,
    write_text_encoder,
    write_transformers_folder,
)
from dlcv_diffusion.models.registry import read_tensors, shipped_weights, write_tensors

TEXTS = [
    "a fox",
    "A photo of a willow tree!",
    "castles in the style of a blueprint",
    "zebra: 漢!",
    "it's 2 owls",
]
VIT = SmallClipConfig(embed_dim=24, vision_layers=2, vision_width=32, head_width=16, text_width=32, text_heads=2)


# --- the tokenizer ----------------------------------------------------------------------------------------------------


def test_transformers_and_open_clip_read_the_same_files_to_the_same_ids(tmp_path):
    tokenizer.write_tokenizer(tmp_path, MERGES, context=16)
    ours, theirs = CLIPTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    simple = open_clip.SimpleTokenizer(str(tmp_path / "bpe_simple_vocab.txt.gz"), context_length=16)
    for text in TEXTS:
        ids = simple.encode(text)
        assert ours(text).input_ids == theirs(text).input_ids == [simple.sot_token_id, *ids, simple.eot_token_id]
    assert len(ours) == simple.vocab_size == len(tokenizer.vocabulary(MERGES)) == 512 + len(MERGES) + 2
    assert json.loads((tmp_path / "vocab.json").read_text()) == ours.get_vocab()
    lines = (tmp_path / "merges.txt").read_text().splitlines()
    assert tokenizer.checked_merges(lines[1:], "merges.txt") == MERGES
    assert gzip.decompress((tmp_path / "bpe_simple_vocab.txt.gz").read_bytes()).decode().startswith("#version: 0.2\n")


def test_frequent_words_become_one_token_and_any_other_can_be_written():
    found = tokenizer.clip_tokenizer(MERGES)
    assert all(len(found.encode(word)) == 1 for word in ("fox", "photo", "blueprint"))
    assert len(found.encode("xylophone")) > 3 and found.decode(found.encode("xylophone ☃")).strip() == "xylophone ☃"


def test_a_merge_joins_the_most_frequent_pair_wherever_it_stands():
    merges = tokenizer.learn_merges({"abcab ab": 1}, 10)
    assert merges[0] == ("a", "b</w>"), "twice, at the ends of both words; 'ab' once"
    assert len(tokenizer.clip_tokenizer(merges).encode("abcab")) == 1
    texts = {"a fox": 1, "foxes": 2, "boxes of foxes": 3}
    assert tokenizer.learn_merges(texts, 4) == tokenizer.learn_merges(texts, 9)[:4]


def test_tokens_can_be_added_and_the_end_is_still_found():
    clip = small_clip()
    model, end = text_model(clip), 512 + len(MERGES) + 1
    before = model(torch.tensor([[end - 1, 5, end, end]])).pooler_output
    with torch.random.fork_rng():
        model.resize_token_embeddings(end + 2)
    ids = torch.tensor([[end - 1, 5, end, end], [end - 1, end + 1, end, end]])
    found = model(ids).pooler_output
    assert torch.allclose(found[:1], before, atol=1e-6)
    hidden = model(ids).last_hidden_state
    assert torch.equal(found[1], hidden[1, 2]), "the new token has a higher id than the end, and is not taken for it"


@pytest.mark.parametrize("line", ["a b c", "ab", " b"])
def test_lines_that_are_no_merges_are_refused(line):
    with pytest.raises(UserError, match="merges.txt: .* is no merge of two symbols"):
        tokenizer.checked_merges(["a b", line], "merges.txt")


# --- its file ---------------------------------------------------------------------------------------------------------


def test_a_saved_clip_is_the_same_up_to_half_precision(tmp_path):
    clip = small_clip(classes=["fox"])
    save_small_clip(clip, tmp_path / "whole.safetensors")
    save_small_clip(clip, tmp_path / "half.safetensors", dtype=torch.float16)
    whole, half = (load_clip(tmp_path / f"{name}.safetensors", device="cpu") for name in ("whole", "half"))
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = images.float() / 127.5 - 1
    with torch.no_grad():
        wanted = [clip.model.encode_image(x, normalize=True)]
        wanted += [clip.model.encode_text(whole.towers.tokenizer(TEXTS[:2]), normalize=True)]
    for found, atol in ((whole, 1e-6), (half, 2e-2)):
        assert torch.allclose(found(images), wanted[0], atol=atol)
        assert torch.allclose(found.encode_texts(TEXTS[:2]), wanted[1], atol=atol)
    assert whole.name == "small" and whole.facts["classes"] == ["fox"] and not whole.training


def test_initial_weights_follow_from_the_seed_and_nothing_else():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = (build_small_clip(CONFIG, MERGES, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["text_projection"], other["text_projection"])
    assert torch.equal(torch.get_rng_state(), before)


def test_other_files_are_refused_in_a_sentence(tmp_path, clip_file):  # noqa: F811
    with pytest.raises(UserError, match="holds no CLIP of ours"):
        load_clip(shipped_weights()["digits"])
    tensors, header = read_tensors(clip_file)
    for change, said in (
        ({"merges": header["merges"][:-1]}, "does not fit its weights"),
        ({"merges": ["x"] * len(MERGES)}, "no merge of two symbols"),
        ({"clip": {**header["clip"], "text_layers": 3}}, "are not those of this CLIP"),
        ({"clip": {**header["clip"], "text_heads": 5}}, "do not divide among the heads"),
        ({"clip": {**header["clip"], "text_layers": 10**9}}, "less than or equal to 24"),
        ({"metadata": {"templates": 5}}, "metadata.templates is 5"),
        ({"metadata": {"classes": [["fox"]]}}, "metadata.classes.0"),
    ):
        write_tensors(tmp_path / "changed.safetensors", tensors, {**header, **change})
        with pytest.raises(UserError, match=said):
            read_small_clip(tmp_path / "changed.safetensors")


def test_a_text_half_that_lies_beside_it_is_not_stored_again(tmp_path):
    clip = small_clip(classes=["fox"])
    write_text_encoder(clip, tmp_path / "pipeline")
    beside = "pipeline/text_encoder/model.safetensors"
    save_small_clip(clip, tmp_path / "whole.safetensors")
    save_small_clip(clip, tmp_path / "lean.safetensors", text_half=beside)
    sizes = [(tmp_path / name).stat().st_size for name in ("lean.safetensors", beside, "whole.safetensors")]
    assert sizes[0] + sizes[1] < 1.02 * sizes[2]
    lean, state = read_small_clip(tmp_path / "lean.safetensors"), clip.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in lean.model.state_dict().items())
    with pytest.raises(UserError, match="is not the text half of this CLIP, weight for weight"):
        save_small_clip(clip, tmp_path / "half.safetensors", dtype=torch.float16, text_half=beside)
    with torch.no_grad():
        clip.model.ln_final.bias[0] += 1
    with pytest.raises(UserError, match="is not the text half of this CLIP, weight for weight"):
        save_small_clip(clip, tmp_path / "other.safetensors", text_half=beside)
    tensors, header = read_tensors(tmp_path / "lean.safetensors")
    for elsewhere in ("../pipeline/text_encoder/model.safetensors", "/a.safetensors", "a/../../b.safetensors", "a.bin"):
        write_tensors(tmp_path / "led_away.safetensors", tensors, {**header, "text_half": (elsewhere, "")})
        with pytest.raises(UserError, match="is not a .safetensors file in a folder below that of the CLIP"):
            read_small_clip(tmp_path / "led_away.safetensors")
        with pytest.raises(UserError, match="is not a .safetensors file in a folder below that of the CLIP"):
            save_small_clip(small_clip(), tmp_path / "led_away.safetensors", text_half=elsewhere)
    write_text_encoder(small_clip(seed=1), tmp_path / "pipeline")
    with pytest.raises(UserError, match="is no longer the text half that .* was saved with"):
        read_small_clip(tmp_path / "lean.safetensors")
    save_file({"embeddings.weight": torch.zeros(2)}, tmp_path / beside)
    with pytest.raises(UserError, match="does not hold the weights of a CLIPTextModel of 2 layers"):
        read_small_clip(tmp_path / "lean.safetensors")
    (tmp_path / beside).write_bytes(b"torn")
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        read_small_clip(tmp_path / "lean.safetensors")
    (tmp_path / beside).unlink()
    with pytest.raises(UserError, match="no text half of a CLIP at .*; keep the CLIP and the pipeline"):
        read_small_clip(tmp_path / "lean.safetensors")


# --- transformers' models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, VIT], ids=["resnet", "vit"])
def test_the_text_half_is_transformers_text_model(config):
    clip = small_clip(config)
    read, ids = text_model(clip), tokenizer.clip_tokenizer(MERGES, 16)(TEXTS)
    with torch.no_grad():
        found = read(ids).pooler_output @ clip.model.text_projection
        assert torch.allclose(found, clip.model.encode_text(ids), atol=1e-5)
        x = clip.model.token_embedding(ids) + clip.model.positional_embedding
        hidden = clip.model.ln_final(clip.model.transformer(x, attn_mask=clip.model.attn_mask))
        assert torch.allclose(read(ids).last_hidden_state, hidden, atol=1e-5)


def test_a_pipelines_text_parts_are_written_and_read_again(tmp_path):
    clip = small_clip()
    write_text_encoder(clip, tmp_path)
    words = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    read = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    tokens = words(TEXTS, padding="max_length", max_length=words.model_max_length, truncation=True, return_tensors="pt")
    assert tokens.input_ids.shape == (len(TEXTS), CONFIG.context)
    with torch.no_grad():
        found = read(tokens.input_ids).pooler_output @ clip.model.text_projection
        wanted = clip.model.encode_text(tokenizer.clip_tokenizer(MERGES, 16)(TEXTS))
    assert torch.allclose(found, wanted, atol=1e-5), "whatever the texts are padded with"


def test_a_clip_with_a_vit_is_transformers_model_as_a_whole(tmp_path):
    clip = small_clip(VIT)
    write_transformers_folder(clip, tmp_path / "hf")
    save_small_clip(clip, tmp_path / "model.safetensors")
    theirs, ours = load_clip(tmp_path / "hf", device="cpu"), load_clip(tmp_path / "model.safetensors", device="cpu")
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(theirs(images), ours(images), atol=1e-5)
    assert torch.allclose(theirs.encode_texts(TEXTS), ours.encode_texts(TEXTS), atol=1e-5)
    assert theirs.logit_scale == pytest.approx(ours.logit_scale, rel=1e-6)
    with pytest.raises(UserError, match="a ViT, and this CLIP a ResNet"):
        whole_model(small_clip())
