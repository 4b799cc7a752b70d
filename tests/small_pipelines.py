"""Text-to-image pipelines small enough for tests: a folder in Stable Diffusion 1's layout, of random weights."""

import json

import pytest
import torch
from small_clips import MERGES
from small_runs import with_random_weights

from dlcv_diffusion.models.clip.tokenizer import write_tokenizer

WORDS = 512 + len(MERGES) + 2
SD1_SCHEDULER = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
SD1_SCHEDULER |= {"beta_schedule": "scaled_linear", "clip_sample": False, "set_alpha_to_one": False}


def small_unet_2d(channels=(16, 16, 32, 32), *, sample_size=8, latents=4, width=32, seed=0):
    """A `UNet2DConditionModel` with the blocks of Stable Diffusion 1, only narrower."""
    from diffusers import UNet2DConditionModel

    levels = len(channels)
    unet = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latents,
        out_channels=latents,
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    return with_random_weights(unet, seed)


def small_vae(channels=(8, 8, 16, 16), *, latents=4, seed=1):
    """An `AutoencoderKL` with the blocks of Stable Diffusion 1, and its factor."""
    from diffusers import AutoencoderKL

    levels = len(channels)
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=2,
        latent_channels=latents,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.18215,
    )
    return with_random_weights(vae, seed)


def small_text_encoder(width=32, length=77, seed=2):
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"vocab_size": WORDS, "hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": length}
    special = {"eos_token_id": WORDS - 1, "bos_token_id": WORDS - 2, "pad_token_id": WORDS - 1}
    return with_random_weights(CLIPTextModel(CLIPTextConfig(**sizes, **special)), seed)


def write_sd1(folder, *, prediction="epsilon", scheduler="PNDMScheduler", **parts):
    """A folder as those of Stable Diffusion 1.x on the hub, with the parts given instead of the small ones."""
    import diffusers

    networks = {"unet": small_unet_2d, "vae": small_vae, "text_encoder": small_text_encoder}
    for name, make in networks.items():
        (parts.get(name) or make()).save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer", MERGES, context=77)
    settings = {**SD1_SCHEDULER, "prediction_type": prediction}
    settings |= {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    getattr(diffusers, scheduler).from_config(settings).save_pretrained(folder / "scheduler")
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0"}
    index |= {"scheduler": ["diffusers", scheduler], "text_encoder": ["transformers", "CLIPTextModel"]}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"vae": ["diffusers", "AutoencoderKL"]}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"]}
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def sd1(tmp_path_factory):
    """Small, of random weights, that predicts ε."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return write_sd1(tmp_path_factory.mktemp("sd1"))
