"""The few pictures of a concept as latents, and pictures of its kind that the model draws itself."""

import io
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import check
from ..files import staging_folder
from ..guidance import guidance_weight, guided
from ..images.folders import files_below, picture_names, read_pictures
from ..images.pictures import REPLACE, fit_square, open_picture
from ..models.text_to_image.latents import decode, encode
from ..noise import seeded_noise
from ..samplers import dpm_solver, evaluating, last
from .parts import Parts, token_ids

MOST = 10_000
"""Pictures of one concept, or of its kind; more are a slip."""

GIVE = "give a folder of three to six pictures of it"


def read_concept(source: str | Path, side: int) -> Tensor:
    """The pictures of a folder or zip, cut to their middle square and resized: uint8 (N, 3, side, side).

    Raises `UserError` for one that is missing or empty, that holds other files beside the pictures, or one that cannot
    be read.

    >>> read_concept("photographs_of_my_dog", 512).shape   # doctest: +SKIP
    torch.Size([5, 3, 512, 512])
    """
    names = picture_names(source, advice=GIVE)
    if os.path.isdir(source):
        others = sorted(set(files_below(source, GIVE)) - set(names))
        check(not others, f"'{source}' holds '{''.join(others[:1])}' beside the pictures; take it out, or {GIVE}")
    check(len(names) <= MOST, f"'{source}' holds {len(names):,} pictures; {GIVE}")
    images = torch.empty((len(names), 3, side, side), dtype=torch.uint8)
    for row, content in enumerate(read_pictures(source, names, GIVE)):
        picture = open_picture(io.BytesIO(content), REPLACE, f"{source}/{names[row]}", upright=True)
        images[row] = torch.from_numpy(fit_square(picture, side))
    return images


def encoded(parts: Parts, images: Tensor) -> Tensor:
    """Latents z = s · E(x), (N, c, h, w) float32 on the CPU, of uint8 images (N, 3, H, W): the encoder's means.

    The encoder is not trained, so once is enough, and it takes no memory from then on.
    """
    latents = encode(parts.autoencoder, images).cpu()
    check(latents.isfinite().all(), "the latents of the pictures are not finite; load the autoencoder in float32")
    return latents


def draw(
    parts: Parts, prompt: str, count: int, *, scale: float = 6.0, steps: int = 25, seed: int = 0, at_once: int = 8
) -> Tensor:
    """Pictures that the model draws for a prompt, uint8 (count, 3, H, W): DPM-Solver, guided; picture i of seed + i.

    >>> draw(parts, "a photo of a dog", 100).shape   # doctest: +SKIP
    torch.Size([100, 3, 512, 512])
    """
    unet, device = parts.unet, parts.unet.device

    def eps(z: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return unet(z.to(unet.dtype), t, encoder_hidden_states=c.to(unet.dtype), return_dict=False)[0].float()

    found = []
    with evaluating([*unet.modules(), *parts.text_encoder.modules()]):
        told, null = parts.text_encoder(token_ids(parts.tokenizer, [prompt, ""]).to(device))[0].float()
        denoise = Denoiser(eps, parts.schedule, parts.prediction, null=null)
        for seeds in torch.arange(seed, seed + count).split(at_once):
            latent = parts.side // parts.factor
            z = seeded_noise((len(seeds), unet.config.in_channels, latent, latent), seeds.tolist(), device)
            told_each = told.expand(len(z), *told.shape)
            z = last(dpm_solver(guided(denoise, told_each, guidance_weight(scale)), z, steps=steps)).x
            found.append(decode(parts.autoencoder, z))
    return torch.cat(found)


def write_drawn(parts: Parts, prompt: str, count: int, folder: str | Path, seed: int = 0) -> None:
    """Draw pictures of a prompt into a new folder, 00000.png …; where they are already, nothing happens."""
    if not all(Path(folder, f"{number:05}.png").is_file() for number in range(count)):
        images = draw(parts, prompt, count, seed=seed)
        with staging_folder(folder) as staging:
            for number, image in enumerate(images):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / f"{number:05}.png")
