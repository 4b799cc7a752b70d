"""A Stable Diffusion of random weights, small enough for tests, as a folder in SD 1.x's layout."""

import json

import pytest
import torch
from small_clips import MERGES

from dlcv_diffusion.models.clip.tokenizer import write_tokenizer
from dlcv_diffusion.models.registry import short_hash
from dlcv_diffusion.models.text_to_image import as_text_to_image
from dlcv_diffusion.personalisation.concepts import base_facts, write_custom
from dlcv_diffusion.personalisation.network import cross_attention

CONTEXT = 20
QUICK = {"steps": 4, "batch_size": 4, "device": "cpu", "precision": "no"}
"""A run of seconds."""
END = 512 + len(MERGES) + 1


def small_networks(seed=0, width=32):
    """U-Net, autoencoder and text encoder, in eval mode: pictures of 32×32, latents of 4×8×8, text of `width`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = {"vocab_size": END + 1, "hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": CONTEXT, "eos_token_id": END}
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "block_out_channels": (16, 32)}
    blocks |= {"layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    once = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    once |= {"block_out_channels": (4, 8, 8), "norm_num_groups": 4, "sample_size": 32, "scaling_factor": 0.5}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = CLIPTextModel(CLIPTextConfig(**text, bos_token_id=END - 1, pad_token_id=END))
        unet = UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=width, **blocks)
        vae = AutoencoderKL(latent_channels=4, **once)
        for name, weight in [*encoder.named_parameters(), *unet.named_parameters()]:
            if "embedding.weight" in name or "attn2.to_" in name:  # so that words are far apart, and are heard
                torch.nn.init.normal_(weight, std=0.3)
    return [network.eval() for network in (unet, vae, encoder)]


def write_small_pipeline(folder, prediction="epsilon", width=32):
    """A folder as `StableDiffusionPipeline.save_pretrained` leaves it."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    unet, vae, encoder = small_networks(width=width)
    write_tokenizer(folder / "tokenizer", MERGES, CONTEXT)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    scheduler = PNDMScheduler(**betas, skip_prk_steps=True, steps_offset=1, prediction_type=prediction)
    parts = {"unet": unet, "vae": vae, "text_encoder": encoder, "scheduler": scheduler}
    parts |= {"tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer")}
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**parts, **rest).save_pretrained(folder)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
    return folder


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    return write_small_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture
def pipeline(pipeline_folder):
    """A fresh one for each test."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(pipeline_folder, safety_checker=None)


@pytest.fixture
def concept_folder(tmp_path):
    """Four pictures of a red square on white."""
    return write_concept(tmp_path / "concept")


def write_concept(folder, colour="red", count=4):
    from PIL import Image

    folder.mkdir()
    for number in range(count):
        picture = Image.new("RGB", (40, 40), "white")
        picture.paste(colour, (8 + number, 8, 28 + number, 28))
        picture.save(folder / f"{number}.png")
    return folder


def everything(pipeline):
    """A hash of all weights and buffers."""
    networks = (pipeline.unet, pipeline.text_encoder, pipeline.vae)
    return short_hash(value for network in networks for value in network.state_dict().values())


def flags(pipeline):
    """What is not a number: what requires a gradient, where it lies in memory, and the modes."""
    networks = (pipeline.unet, pipeline.text_encoder, pipeline.vae)
    return [(p.requires_grad, p.data_ptr()) for n in networks for p in n.parameters()], [n.training for n in networks]


def custom(pipeline, path, tokens=("<new1>",), seed=0, vectors=None):
    """Write a file of Custom Diffusion of random changes; returns those of keys and values."""
    sd, draw = as_text_to_image(pipeline), torch.Generator().manual_seed(seed)
    names, weights = cross_attention(sd.unet), dict(sd.unet.named_parameters())
    deltas = {name: 0.05 * torch.randn(weights[name].shape, generator=draw) for name in names}
    vectors = vectors or {token: torch.randn(1, sd.table.embedding_dim, generator=draw) for token in tokens}
    write_custom(path, vectors, deltas, base_facts(sd))
    return deltas
