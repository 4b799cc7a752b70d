"""One door for every CLIP, and what users get wrong on the way through it."""

import json
import shutil
import time

import numpy as np
import open_clip
import pytest
import torch
from open_clip import pretrained
from PIL import Image
from safetensors.torch import load_file, save_file
from small_clips import (  # noqa: F401 – fixtures
    NAMES,
    clip_file,
    course_folder,
    open_clip_name,
    small_clip,
    transformers_folder,
)
from small_runs import one_thread  # noqa: F401 – for every test here
from transformers import AutoModel, AutoTokenizer

from dlcv_diffusion import UserError
from dlcv_diffusion.models.clip import load_clip, loading, network, open_clip_towers

TEXTS = ["a photo of a fox.", "a castle"]


def pictures(count=3, size=32):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)


def by_open_clip(name, path, quick_gelu, images, texts):
    """Features and scale by open_clip's own calls."""
    model, _, transform = open_clip.create_model_and_transforms(name, str(path), quick_gelu=quick_gelu)
    model.eval()
    x = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    with torch.no_grad():
        return model(x, open_clip.get_tokenizer(name)(texts))


# --- each kind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 90])
def test_a_model_of_open_clips_is_what_it_is_there(open_clip_name, size):  # noqa: F811
    name, path = open_clip_name
    clip = load_clip(name, str(path), "cpu")
    image, text, scale = by_open_clip(name, path, False, pictures(size=size), TEXTS)
    assert torch.allclose(clip(pictures(size=size)), image, atol=1e-6)
    assert torch.allclose(clip.encode_texts(TEXTS), text, atol=1e-6)
    assert clip.logit_scale == pytest.approx(scale.item()) and clip.temperature == pytest.approx(1 / scale.item())
    assert clip.size == (48, 48) and not clip.training


def test_a_folder_of_transformers_is_what_it_is_there(transformers_folder):  # noqa: F811
    clip = load_clip(transformers_folder, device="cpu")
    model, words = AutoModel.from_pretrained(transformers_folder), AutoTokenizer.from_pretrained(transformers_folder)
    images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pictures()]
    with torch.no_grad():
        tokens = words(TEXTS, padding=True, return_tensors="pt")
        pixels = clip.towers.processor(images=images, return_tensors="pt").pixel_values
        found = model(pixel_values=pixels, **tokens)
    assert torch.allclose(clip(pictures()), found.image_embeds, atol=1e-6)
    assert torch.allclose(clip.encode_images(images), found.image_embeds, atol=1e-6)
    assert torch.allclose(clip.encode_texts(TEXTS), found.text_embeds, atol=1e-6)


def test_a_folder_as_open_clip_pushes_it_to_the_hub(tmp_path, open_clip_name):  # noqa: F811
    name, path = open_clip_name
    (tmp_path / "repo").mkdir()
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "repo" / "open_clip_config.json").write_text(json.dumps(config))
    save_file(torch.load(path, weights_only=True), tmp_path / "repo" / "open_clip_model.safetensors")
    clip = load_clip(tmp_path / "repo", device="cpu")
    model = open_clip.create_model(f"local-dir:{tmp_path / 'repo'}").eval()
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(clip.encode_prepared(x), model.encode_image(x, normalize=True), atol=1e-6)
    assert clip.prepare(torch.full((1, 3, 48, 48), 255, dtype=torch.uint8)).max() == 1, "the folder's own mean"


def test_safetensors_and_pt_files_hold_the_same(tmp_path, open_clip_name):  # noqa: F811
    name, path = open_clip_name
    state = torch.load(path, weights_only=True)
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "trained.pt")
    wanted = load_clip(name, str(path), "cpu")(pictures())
    for file in ("w.safetensors", "trained.pt"):
        assert torch.equal(load_clip(name, tmp_path / file, "cpu")(pictures()), wanted)


# --- what is caught ---------------------------------------------------------------------------------------------------


def test_openais_weights_get_their_activation_and_it_is_said(open_clip_name):  # noqa: F811
    name, path = open_clip_name
    plain, quick = (by_open_clip(name, path, how, pictures(), TEXTS)[0] for how in (False, True))
    assert not torch.allclose(plain, quick, atol=1e-4)
    clip = load_clip(name, "openai", "cpu")
    assert torch.allclose(clip(pictures()), quick, atol=1e-6)
    assert "'tiny-test' has GELU, but these weights were trained with QuickGELU" in clip.notes[0]
    assert torch.allclose(load_clip(name, "laion", "cpu")(pictures()), plain, atol=1e-6)


def test_of_a_file_the_activation_is_told_by_its_name_its_kind_or_the_user(tmp_path, open_clip_name):  # noqa: F811
    name, path = open_clip_name
    plain, quick = (by_open_clip(name, path, how, pictures(), TEXTS)[0] for how in (False, True))
    named, switched = tmp_path / "vit_openai.pt", "trained with QuickGELU: computed with that"
    named.write_bytes(path.read_bytes())
    for file, how, wanted, note in (
        (named, None, quick, switched),
        (named, False, plain, ""),
        (path, True, quick, switched),
        (path, None, plain, "does not say which weights of 'tiny-test' it holds: computed with GELU"),
    ):
        clip = load_clip(name, file, "cpu", quick_gelu=how)
        assert torch.allclose(clip(pictures()), wanted, atol=1e-6), (file.name, how)
        assert note in " ".join(clip.notes) and bool(clip.notes) == bool(note)


def test_a_file_named_after_a_tag_is_that_tags(tmp_path, monkeypatch, open_clip_name):  # noqa: F811
    """Without a network one is told to save weights so: they must not lose their activation and normalisation."""
    name, path = open_clip_name
    tags = pretrained._PRETRAINED[name]
    tags["laion"].update(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    tags["openai"].update(url="https://nowhere.invalid/RN-tiny.pt")
    folder = tmp_path / "models--nobody--has-this" / "snapshots"
    folder.mkdir(parents=True)
    for file, tag in (
        (tmp_path / "laion.pt", "laion"),
        (tmp_path / "openai.pt", "openai"),
        (tmp_path / "RN-tiny.pt", "openai"),
        (folder / "open_clip_model.pt", "far"),
    ):
        file.write_bytes(path.read_bytes())
        assert open_clip_towers.tag_of(name, file) == tags[tag], file
        if tag != "far":
            clip, wanted = load_clip(name, file, "cpu"), load_clip(name, tag, "cpu")
            assert torch.equal(clip(pictures(size=48)), wanted(pictures(size=48))) and clip.notes == wanted.notes
    assert not open_clip_towers.tag_of(name, path)


def test_an_activation_that_contradicts_the_weights_is_refused(clip_file, transformers_folder, open_clip_name):  # noqa: F811
    name = open_clip_name[0]
    with pytest.raises(UserError, match="'tiny-test' were trained with QuickGELU; leave quick_gelu"):
        load_clip(name, "openai", "cpu", quick_gelu=False)
    for source in (clip_file, transformers_folder):
        with pytest.raises(UserError, match="quick_gelu .* does nothing for"):
            load_clip(source, quick_gelu=True)


def test_texts_that_are_too_long_are_refused_by_any_tokenizer(transformers_folder, open_clip_name):  # noqa: F811
    clip = load_clip(*open_clip_name, "cpu")
    clip.towers.tokenizer = open_clip.tokenizer.HFTokenizer(str(transformers_folder))
    assert clip.encode_texts(["a fox"]).shape == (1, 24)
    with pytest.raises(UserError, match="is 82 tokens long, and this CLIP reads 77"):
        clip.encode_texts(["fox " * 80])


def test_where_our_weights_are_not_there_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setitem(loading.SHIPPED, "emoji", tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="'emoji' are not in this version; train it by `dlcv train clip` .* or give"):
        load_clip()


def test_it_computes_in_eval_mode_and_leaves_the_mode_as_it_was(clip_file):  # noqa: F811
    clip = load_clip(clip_file, device="cpu")
    wanted, before = clip(pictures()), {name: value.clone() for name, value in clip.state_dict().items()}
    assert torch.equal(clip.train()(pictures()), wanted) and clip.training
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())


@pytest.mark.parametrize("given", [[], [np.zeros((8, 8, 3), np.uint8)], torch.zeros(2, 3, 8, 8)])
def test_what_is_no_picture_is_refused(clip_file, given):  # noqa: F811
    with pytest.raises(UserError, match="give CLIP a tensor, or a list|pictures for CLIP are uint8"):
        load_clip(clip_file, device="cpu").encode_images(given)


def test_an_archive_of_openais_is_read_and_known(tmp_path, open_clip_name):  # noqa: F811
    name, path = open_clip_name

    # a module whose tensors have the names of OpenAI's archives
    holder = torch.nn.Module()
    for key, value in torch.load(path, weights_only=True).items():
        *modules, last = key.split(".")
        place = holder
        for part in modules:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.register_buffer(last, value.half())
    for key, value in (("input_resolution", 48), ("context_length", 77), ("vocab_size", 49408)):
        holder.register_buffer(key, torch.tensor(value))
    torch.jit.script(holder).save(tmp_path / "ViT-tiny.pt")
    clip = load_clip(name, tmp_path / "ViT-tiny.pt", "cpu")
    quick = by_open_clip(name, path, True, pictures(), TEXTS)[0]
    assert torch.allclose(clip(pictures()), quick, atol=5e-3) and "QuickGELU" in clip.notes[0]


def test_features_have_length_1_whatever_the_network_gives(tmp_path, open_clip_name):  # noqa: F811
    name, path = open_clip_name
    state = torch.load(path, weights_only=True)
    longer = {**state, "visual.proj": 7 * state["visual.proj"], "text_projection": 5 * state["text_projection"]}
    torch.save(longer, tmp_path / "longer.pt")
    one, other = load_clip(name, path, "cpu"), load_clip(name, tmp_path / "longer.pt", "cpu")
    assert torch.allclose(one(pictures()), other(pictures()), atol=1e-6)
    assert torch.allclose(one.encode_texts(TEXTS), other.encode_texts(TEXTS), atol=1e-6)


def test_small_grey_transparent_and_palette_pictures_are_resized_as_trained(clip_file):  # noqa: F811
    clip = load_clip(clip_file, device="cpu")
    grey = torch.full((1, 1, 32, 32), 90, dtype=torch.uint8)
    assert torch.equal(clip(grey), clip(grey.expand(-1, 3, -1, -1)))
    picture = Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy())
    wanted = torch.from_numpy(np.array(picture.resize((64, 64), Image.Resampling.BICUBIC)))
    assert torch.allclose(clip.prepare([picture])[0], wanted.permute(2, 0, 1) / 127.5 - 1, atol=1e-6)
    assert torch.equal(clip.prepare(pictures(1)), clip.prepare([picture]))
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert torch.equal(clip.prepare([clear]), torch.ones(1, 3, 64, 64)), "what is transparent shows white"
    for mode in ("P", "L"):
        other = picture.convert(mode)
        assert torch.equal(clip.prepare([other]), clip.prepare([other.convert("RGB")]))


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_float_images_and_single_ones_are_refused(clip_file, images):  # noqa: F811
    with pytest.raises(UserError, match="uint8"):
        load_clip(clip_file, device="cpu")(images)


def test_a_text_that_is_too_long_is_named(clip_file, transformers_folder):  # noqa: F811
    for source in (clip_file, transformers_folder):
        with pytest.raises(UserError, match=r"'fox fox.*' is \d+ tokens long, and this CLIP reads (16|20)"):
            load_clip(source, device="cpu").encode_texts(["a fox", "fox " * 30])


def test_without_a_network_it_ends_at_once_and_says_what_to_do(monkeypatch, open_clip_name):  # noqa: F811
    monkeypatch.setattr(network, "hub_answers", lambda: False)
    monkeypatch.setattr("dlcv_diffusion.models.clip.loading.hub_answers", lambda: False)
    began = time.perf_counter()
    for source, weights, repository in (
        (open_clip_name[0], "far", "nobody/has-this"),
        ("hf-hub:nobody/has-that", None, "nobody/has-that"),
        ("nobody/has-it", None, "nobody/has-it"),
    ):
        with pytest.raises(UserError, match=f"no network; download .*'{repository}'.* and give"):
            load_clip(source, weights)
    assert time.perf_counter() - began < 5


def test_a_hub_that_never_answers_does_not_hold_one_up(monkeypatch):
    monkeypatch.setattr(network, "PATIENCE", 0.1)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: time.sleep(3))
    began = time.perf_counter()
    assert not network.answers("https://nowhere.invalid") and time.perf_counter() - began < 1


def test_what_is_no_clip_is_told_in_a_sentence(tmp_path, open_clip_name, transformers_folder):  # noqa: F811
    name, path = open_clip_name
    state = torch.load(path, weights_only=True)
    torch.save({**state, "visual.proj": torch.full_like(state["visual.proj"], torch.nan)}, tmp_path / "nan.pt")
    torch.save({k: v for k, v in state.items() if k != "visual.proj"}, tmp_path / "part.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "empty").mkdir()
    for source, weights, said in (
        (name, None, "a network without weights; give pretrained .* a tag, such as laion or openai"),
        (name, "none.pt", "'none.pt' is neither a file nor a tag of 'tiny-test'"),
        (name, tmp_path / "text.pt", "is not a whole .pt file"),
        (name, tmp_path / "part.pt", "are not those of this CLIP: .*visual.proj"),
        (name, tmp_path / "nan.pt", "are not finite"),
        (tmp_path / "empty", None, "holds neither config.json nor open_clip_config.json"),
        ("no-such-clip", None, "no CLIP 'no-such-clip' here"),
        (transformers_folder, "openai", "does nothing for"),
        (tmp_path / "none.safetensors", None, "no CLIP at .*none.safetensors"),
    ):
        with pytest.raises(UserError, match=said):
            load_clip(source, weights)


def test_a_folder_of_transformers_that_is_not_whole_is_told(tmp_path, transformers_folder):  # noqa: F811
    shutil.copytree(transformers_folder, tmp_path / "copy")
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="not whole: .*visual_projection"):
        load_clip(tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="of the kind 'bert', no CLIP"):
        load_clip(tmp_path / "copy")


def test_it_says_nothing_while_it_loads(capfd, open_clip_name, transformers_folder):  # noqa: F811
    load_clip(*open_clip_name)
    load_clip(transformers_folder)
    assert capfd.readouterr() == ("", "")


def test_names_are_known_as_openai_writes_them():
    assert [open_clip_towers.known_name(name) for name in ("ViT-B/32", "vit-l-14", "x")] == [
        "ViT-B-32",
        "ViT-L-14",
        None,
    ]
