"""The few pictures of a concept as latents, and pictures of its kind that the model draws itself."""

import io
import os
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import check
from ..files import staging_folder
from ..images.folders import all_names, files_below, picture_names, read_pictures
from ..images.pictures import REPLACE, fit_square, open_picture
from ..models.registry import short_hash
from ..models.text_to_image import TextToImage, draw
from ..reading import reading

MOST = 10_000
"""Pictures of one concept, or of its kind; more are a slip."""

GIVE = "give a folder of three to six pictures of it"


def read_concept(source: str | Path, side: int) -> Tensor:
    """The pictures of a folder or zip, cut to their middle square and resized: uint8 (N, 3, side, side).

    Raises `UserError` for one that is missing or empty, that holds other files beside the pictures and their captions,
    or one that cannot be read.

    >>> read_concept("photographs_of_my_dog", 512).shape   # doctest: +SKIP
    torch.Size([5, 3, 512, 512])
    """
    names = picture_names(source, advice=GIVE)
    if os.path.isdir(source):
        others = sorted(set(files_below(source, GIVE)) - {*names, *map(caption_name, names)})
        check(not others, f"'{source}' holds '{''.join(others[:1])}' beside the pictures; take it out, or {GIVE}")
    check(len(names) <= MOST, f"'{source}' holds {len(names):,} pictures; {GIVE}")
    images = torch.empty((len(names), 3, side, side), dtype=torch.uint8)
    for row, content in enumerate(read_pictures(source, names, GIVE)):
        picture = open_picture(io.BytesIO(content), REPLACE, f"{source}/{names[row]}", upright=True)
        images[row] = torch.from_numpy(fit_square(picture, side))
    return images


def caption_name(picture: str) -> str:
    """The file beside a picture that says what it shows: dog.txt beside dog.png."""
    return os.path.splitext(picture)[0] + ".txt"


def read_captions_of(source: str | Path, word: str) -> list[list[str]]:
    """The sentences of each picture of a folder, one a line of the text file beside it, with a word in the place of {}.

    Of a zip, those in it. An empty list for a picture without such a file. Raises `UserError` for a file that is empty
    or no text, and a sentence without {}.

    >>> read_captions_of("paintings", "<new2>")   # doctest: +SKIP
    [['a fox in the style of <new2>'], []]
    """
    pictures, there = picture_names(source, advice=GIVE), set(all_names(source, GIVE))
    captions = [name for name in map(caption_name, pictures) if name in there]
    contents = dict(zip(captions, read_pictures(source, captions, GIVE), strict=True))
    return [_sentences(contents.get(caption_name(name)), f"{source}/{caption_name(name)}", word) for name in pictures]


def _sentences(content: bytes | None, path: str, word: str) -> list[str]:
    if content is None:
        return []
    with reading(path, "is not a text file in UTF-8", "save it again, or take it out"):
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    check(lines, f"'{path}' is empty; write into it what the picture shows, with {{}} for the new word, or take it out")
    bare = next((line for line in lines if "{}" not in line), None)
    check(bare is None, f"the caption '{bare or '':.60}' in '{path}' has no {{}} where the new word goes; put one in")
    return [line.replace("{}", word) for line in lines]


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Each picture of `left`, half as large, to the left of the one of `right` whose border is most like its own.

    CutMix-Unmix (Han et al., arXiv 2303.11305, section 4.2) for things that stand free on a plain ground: above and
    below a half picture its outermost rows go on. uint8 (N, 3, H, W) and (M, 3, H, W) give (N, 3, H, W), H and W even.

    >>> side_by_side(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(5, 3, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 3, 8, 8])
    """
    nearest = torch.cdist(_border(left), _border(right)).argmin(1)
    return torch.cat([_half(left), _half(right[nearest])], -1)


def _border(images: Tensor) -> Tensor:
    """The mean colours of the outermost pixels, (N, 3)."""
    sides = images[..., 0], images[..., -1], images[..., 0, :], images[..., -1, :]
    return torch.cat(sides, -1).float().mean(-1)


def _half(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    small = F.interpolate(images.float(), (height // 2, width // 2), mode="bilinear", antialias=True)
    above = (height - height // 2) // 2
    padded = F.pad(small, (0, 0, above, height - height // 2 - above), mode="replicate")
    return padded.round().clamp(0, 255).to(torch.uint8)


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
