"""CLIPs that are small enough for tests: ours, open_clip's and a folder of transformers', of random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dlcv_diffusion.models.clip.small import SmallClip, SmallClipConfig, build_small_clip, save_small_clip
from dlcv_diffusion.models.clip.tokenizer import learn_merges, write_tokenizer

NAMES = ["fox", "willow_tree", "castle", "hot air balloon", "owl"]
CAPTIONS = {f"a photo of a {name.replace('_', ' ')}.": 3 for name in NAMES}
CAPTIONS |= {f"{name.replace('_', ' ')}s in the style of a blueprint": 1 for name in NAMES}
MERGES = learn_merges(CAPTIONS, 60)
CONFIG = SmallClipConfig(embed_dim=32, vision_width=8, head_width=32, text_width=32, text_layers=2, text_heads=2)

SEEING = replace(CONFIG, vision_layers=2, vision_width=32)
"""A ViT, whose features differ from picture to picture even where its weights are random."""


def small_clip(config=CONFIG, seed=0, **facts):
    """Random weights, but for BatchNorm's statistics and scales, which at their start would hide mistakes."""
    model = build_small_clip(config, MERGES, seed).eval()
    draw = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or "bn" in name and name.endswith("weight"):
            value.copy_(0.5 + torch.rand(value.shape, generator=draw))
        elif name.endswith((".bias", "running_mean")):
            value.copy_(0.1 * torch.randn(value.shape, generator=draw))
    return SmallClip(model, config, MERGES, {"name": "small", **facts})


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    """A `model.safetensors` as `dlcv train clip` leaves it."""
    path = tmp_path_factory.mktemp("clip") / "model.safetensors"
    save_small_clip(small_clip(), path)
    return path


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory):
    """A folder in transformers' format: a `CLIPModel` of random weights, its tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("hf")
    end = 512 + len(MERGES) + 1
    text = {"vocab_size": end + 1, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 20, "eos_token_id": end, "bos_token_id": end - 1}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 48, "patch_size": 16}
    config = CLIPConfig(text_config={**text, "pad_token_id": end}, vision_config=vision, projection_dim=24)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(config)
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    write_tokenizer(folder, MERGES, context=20)
    return folder


def course_folder(folder, count=3, names=NAMES, size=32, seed=0):
    """A folder in the course's layout, `val/{label}_{n}.png` with `id2label.json`; returns the pictures' arrays."""
    (folder / "val").mkdir(parents=True)
    (folder / "id2label.json").write_text(json.dumps({str(label): name for label, name in enumerate(names)}))
    draw, arrays = np.random.default_rng(seed), {}
    for label in range(len(names)):
        for number in range(count):
            coarse = draw.integers(0, 256, (4, 4, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
            picture.save(folder / "val" / f"{label}_{number}.png")
            arrays[f"{label}_{number}.png"] = np.asarray(picture)
    return arrays


@pytest.fixture
def open_clip_name(monkeypatch, tmp_path):
    """The name of a tiny model in open_clip's registry, with plain GELU, and its weights: "tiny-test", file.

    Its tag "openai" stands for weights that were trained with QuickGELU, "laion" for such as were not.
    """
    import open_clip
    from open_clip import factory, pretrained

    words = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": words}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.model.CLIP(**config)
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.ndim == 2 and "embedding" not in name:
                torch.nn.init.normal_(weight, std=0.3)
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-test", config)
    tags = {"laion": pretrained._pcfg(file=str(path)), "openai": pretrained._pcfg(file=str(path), quick_gelu=True)}
    tags["far"] = pretrained._pcfg(hf_hub="nobody/has-this/")
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-test", tags)
    return "tiny-test", path
