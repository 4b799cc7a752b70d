"""The few pictures of a concept as latents, and pictures of its kind that the model draws itself."""

import io
import os
from hashlib import sha256
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..errors import check
from ..files import staging_folder
from ..guidance import guidance_weight, guided
from ..images.folders import files_below, picture_names, read_pictures
from ..images.pictures import REPLACE, fit_square, open_picture
from ..models.text_to_image import TextToImage
from ..noise import seeded_noise
from ..samplers import dpm_solver, last
from ..training.checkpoints import short_hash

MOST = 10_000
"""Pictures of one concept, or of its kind; more are a slip."""

AT_ONCE = 64
"""Pictures that are drawn at a time, of 16×16 latents; of larger ones fewer."""

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


def encoded(sd: TextToImage, images: Tensor) -> Tensor:
    """Latents z = s · E(x), (N, c, h, w) float32 on the CPU, of uint8 images (N, 3, H, W): the encoder's means.

    The encoder is not trained, so once is enough, and it takes no memory from then on.
    """
    latents = sd.encode(images).cpu()
    check(latents.isfinite().all(), "the latents of the pictures are not finite; load the autoencoder in float32")
    return latents


def draw(sd: TextToImage, prompt: str, count: int, *, scale: float = 6.0, steps: int = 25, seed: int = 0) -> Tensor:
    """Pictures that the model draws for a prompt, uint8 (count, 3, H, W): DPM-Solver, guided; picture i of seed + i.

    >>> draw(sd, "a photo of a dog", 100).shape   # doctest: +SKIP
    torch.Size([100, 3, 512, 512])
    """
    condition, found = sd.encode_prompts([prompt]), []
    at_once = max(1, AT_ONCE * 16 * 16 // (sd.shape[1] * sd.shape[2]))
    for seeds in torch.arange(seed, seed + count).split(at_once):
        denoise = guided(sd, condition.expand(len(seeds), -1, -1), guidance_weight(scale))
        noise = seeded_noise((len(seeds), *sd.shape), seeds.tolist(), sd.device)
        found.append(sd.decode(last(dpm_solver(denoise, noise, steps=steps)).x))
    return torch.cat(found)


def write_drawn(sd: TextToImage, prompt: str, count: int, folder: str | Path, seed: int = 0) -> Path:
    """Draw pictures of a prompt, 00000.png …, into a folder below this one, named after all that they follow from.

    Where they are already, nothing is drawn. Returns that folder.
    """
    weights = short_hash([*sd.unet.state_dict().values(), *sd.text_encoder.state_dict().values()])
    follows = sha256(repr((prompt, count, seed, weights)).encode()).hexdigest()[:8]
    words = "".join(letter if letter.isalnum() else "_" for letter in prompt[:40])
    folder = Path(folder, f"{words}_{follows}")
    if not all((folder / f"{number:05}.png").is_file() for number in range(count)):
        images = draw(sd, prompt, count, seed=seed)
        with staging_folder(folder) as staging:
            for number, image in enumerate(images):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / f"{number:05}.png")
    return folder
