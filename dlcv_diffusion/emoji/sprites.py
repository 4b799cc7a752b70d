"""Sprites: one thing as one artist drew it, 64×64 with transparency, cut to what is drawn and alike in size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import check
from ..files import atomic_write
from ..reading import reading

SIDE = 64
"""Pixels a side, of a sprite and of a scene."""

LONGEST, SHORTEST, INK = 60, 50, 0.52
"""A sprite's longer side in pixels lies between these; INK is the share of LONGEST² that is opaque where both allow."""

COLUMNS = 25
"""Sprites in a row of a sheet."""


def fit_sprite(picture: Image.Image) -> np.ndarray:
    """A picture with transparency of any size as a sprite: uint8 (64, 64, 4), trimmed, centred, alike in size.

    What covers much is made a little smaller, so that a door does not look larger than a bird. Raises `UserError` where
    nothing is opaque, or everything.

    >>> fit_sprite(Image.new("RGBA", (90, 90), (255, 0, 0, 255)).resize((30, 90)))
    Traceback (most recent call last):
    dlcv_diffusion.errors.UserError: nothing in this picture is transparent; give one of a thing without its ground
    """
    picture = picture.convert("RGBA")
    alpha = np.asarray(picture)[..., 3]
    check(alpha.max() > 127, "nothing in this picture is opaque; give another")
    check(alpha.min() < 128, "nothing in this picture is transparent; give one of a thing without its ground")
    rows, columns = (np.flatnonzero((alpha > 12).any(axis)) for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    width, height = box[2] - box[0], box[3] - box[1]
    even = LONGEST * np.sqrt(INK / (alpha.sum() / 255))
    scale = np.clip(even, SHORTEST / max(width, height), LONGEST / max(width, height))
    width, height = (max(1, round(side * scale)) for side in (width, height))
    sprite = Image.new("RGBA", (SIDE, SIDE))
    drawn = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    sprite.paste(drawn, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(sprite)


def write_sheet(path: str | Path, sprites: np.ndarray) -> None:
    """Sprites uint8 (N, 64, 64, 4) as one lossless WebP of 25 columns, row by row.

    >>> write_sheet("emoji_noto.webp", sprites)   # doctest: +SKIP
    """
    rows = -(-len(sprites) // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, SIDE, SIDE, 4), np.uint8)
    sheet[: len(sprites)] = sprites
    sheet[sheet[..., 3] == 0] = 0
    sheet = sheet.reshape(rows, COLUMNS, SIDE, SIDE, 4).swapaxes(1, 2).reshape(rows * SIDE, COLUMNS * SIDE, 4)
    with atomic_write(path) as temporary:
        Image.fromarray(sheet).save(temporary, "WEBP", lossless=True, quality=100, method=6)


def read_sheet(path: str | Path, count: int) -> np.ndarray:
    """The first `count` sprites of a sheet, uint8 (count, 64, 64, 4).

    Raises `UserError` where the file is missing, damaged or too small.

    >>> read_sheet("emoji_noto.webp", 10).shape   # doctest: +SKIP
    (10, 64, 64, 4)
    """
    advice = "install the package again"
    with reading(path, "is not a sheet of sprites", advice), Image.open(path) as image:
        sheet = np.asarray(image.convert("RGBA"))
    rows = -(-count // COLUMNS)
    check(sheet.shape == (rows * SIDE, COLUMNS * SIDE, 4), f"'{path}' does not hold {count} sprites; {advice}")
    return sheet.reshape(rows, SIDE, COLUMNS, SIDE, 4).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 4)[:count]


def read_folder(folder: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The sprites of a folder's pictures that bear these names, such as `fox.png` or `ice_cream_cone.png`.

    Others are left alone. Raises `UserError` where none is found, or one cannot be read or is not transparent.

    >>> read_folder("sixth_artist", ["fox", "owl"])   # doctest: +SKIP
    """
    advice, found = "replace it, or take it out", {}
    with reading(folder, "is not a folder of pictures", "give a folder of pictures such as fox.png"):
        files = {path.stem.replace("_", " ").casefold(): path for path in sorted(Path(folder).iterdir())}
    for name in names:
        if path := files.get(name.casefold()):
            with reading(path, "is not a picture that can be read", advice), Image.open(path) as image:
                picture = image.convert("RGBA")
            transparent = picture.getextrema()[3][0] < 128
            check(transparent, f"'{path}' has no transparent ground; {advice}")
            found[name] = fit_sprite(picture)
    check(found, f"'{folder}' holds no picture named after one of the {len(names)} things; name them as fox.png")
    return found
