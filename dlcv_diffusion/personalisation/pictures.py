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
from ..images.folders import files_below, picture_names, read_pictures
from ..images.pictures import REPLACE, fit_square, open_picture
from ..models.text_to_image import TextToImage, draw
from ..training.checkpoints import short_hash

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


def encoded(sd: TextToImage, images: Tensor) -> Tensor:
    """Latents z = s · E(x), (N, c, h, w) float32 on the CPU, of uint8 images (N, 3, H, W): the encoder's means.

    The encoder is not trained, so once is enough, and it takes no memory from then on.
    """
    latents = sd.encode(images).cpu()
    check(latents.isfinite().all(), "the latents of the pictures are not finite; load the autoencoder in float32")
    return latents


def write_drawn(sd: TextToImage, prompt: str, count: int, folder: str | Path, seed: int = 0) -> Path:
    """Draw pictures of a prompt, 00000.png …, into a folder below this one, named after all that they follow from.

    Where they are already, nothing is drawn. Returns that folder.
    """
    weights = short_hash([*sd.unet.state_dict().values(), *sd.text_encoder.state_dict().values()])
    follows = sha256(repr((prompt, count, seed, weights)).encode()).hexdigest()[:8]
    words = "".join(letter if letter.isalnum() else "_" for letter in prompt[:40])
    folder = Path(folder, f"{words}_{follows}")
    if not all((folder / f"{number:05}.png").is_file() for number in range(count)):
        images = draw(sd, [prompt] * count, range(seed, seed + count))
        with staging_folder(folder) as staging:
            for number, image in enumerate(images):
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(staging / f"{number:05}.png")
    return folder
