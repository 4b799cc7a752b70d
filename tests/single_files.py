"""A pipeline's weights in the single-file layout of Stable Diffusion's original code (CompVis), for tests."""

import re

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"}
RESNET |= {"conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
UNET |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
UNET |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1"}
UNET |= {"mid_block.resnets.1": "middle_block.2"}
VAE = {"conv_norm_out": "norm_out", "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2"}
VAE |= {"mid_block.attentions.0": "mid.attn_1", "conv_shortcut": "nin_shortcut", "group_norm": "norm"}
VAE |= {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def single_file(unet, vae, text_encoder):
    """One state dict of all three, as `sd-v1-4.ckpt` has it under "state_dict"."""
    found = {f"model.diffusion_model.{_of_unet(name)}": value for name, value in unet.state_dict().items()}
    levels = len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        linear = ".attentions." in name and value.ndim == 2  # they are convolutions of 1×1 there
        found[f"first_stage_model.{_of_vae(name, levels)}"] = value[..., None, None] if linear else value
    for name, value in text_encoder.state_dict().items():
        inner = name.removeprefix("text_model.")
        found[f"cond_stage_model.transformer.text_model.{inner}"] = value
    return {name: value.contiguous() for name, value in found.items()}


def _replaced(name, words):
    for theirs, ours in words.items():
        name = re.sub(rf"(^|\.){re.escape(theirs)}(?=\.)", rf"\g<1>{ours}", name)
    return name


def _of_unet(name):
    """Three input blocks a level, the third of which halves the sides, and three output blocks a level."""
    block = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    if not block:
        name = _replaced(name, UNET)
        return _replaced(name, RESNET) if name.startswith(("middle_block.0", "middle_block.2")) else name
    way, level, kind, number, inner = block[1], int(block[2]), block[3], int(block[4]), block[5]
    if kind == "resnets":
        inner = _replaced(inner, RESNET)
    if way == "down":
        if kind == "downsamplers":
            return f"input_blocks.{3 * level + 3}.0.op.{inner.removeprefix('conv.')}"
        return f"input_blocks.{3 * level + number + 1}.{int(kind == 'attentions')}.{inner}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.{inner}"
    return f"output_blocks.{3 * level + number}.{int(kind == 'attentions')}.{inner}"


def _of_vae(name, levels):
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    for old, new in (("upsamplers.0", "upsample"), (r"resnets\.(\d+)", r"block.\g<2>")):
        name = re.sub(
            rf"up_blocks\.(\d+)\.{old}",
            lambda found, new=new: f"up.{levels - 1 - int(found[1])}." + new.replace(r"\g<2>", found[found.lastindex]),
            name,
        )
    return _replaced(name, VAE)
