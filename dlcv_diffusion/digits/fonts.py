"""Digits of real font files: found, screened and drawn, for the street digits."""

import os
import re
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ..errors import check
from ..images.folders import files_below

GLYPH_HEIGHT = 96
"""Pixels from the top to the bottom of the digit 0 as `Font.glyph` draws it."""

HOLES = {0: {1}, 1: {0}, 2: {0, 1}, 3: {0}, 4: {0, 1}, 5: {0}, 6: {1}, 7: {0}, 8: {2}, 9: {1}}
"""How many holes a plainly drawn digit has: what outlines, stencils, tofu and slashed zeros get wrong."""

UNWANTED = re.compile(
    "italic|oblique|slant|thin|hairline|extralight|ultralight|light|outline|shadow|ornament|dingbat|symbol|emoji|script"
    "|hand|smallcap|swash|pixel|bitmap|stencil|engraved|initial|braille|math|icon|barcode"
)
ODD_FAMILIES = "compagnon|millimetre|unpilgi|ungungseo|caslon|ramaraja|suravaram|patchsans|patchserif|mekanus"
"""Families that pass every measurement and yet look odd on a wall: broken strokes, brush, extreme contrast."""

FOLDERS = """
    /usr/share/fonts /usr/local/share/fonts /Library/Fonts /System/Library/Fonts C:/Windows/Fonts
    ~/.fonts ~/.local/share/fonts ~/Library/Fonts
"""


@dataclass(frozen=True)
class Font:
    """One font file that draws ten plain digits. `glyph(d)` is the mask (H, W) uint8 of digit d, cut to its ink."""

    path: str
    family: str
    style: str
    stroke: float = field(compare=False)
    """Median thickness of the digits' strokes as a part of their height: 0.1 is regular, 0.2 is bold."""

    def glyph(self, digit: int) -> np.ndarray:
        return _glyph(self.path, digit)


@lru_cache(maxsize=8192)
def _glyph(path: str, digit: int) -> np.ndarray:
    return _draw(_sized(path), digit)[0]


@lru_cache(maxsize=1024)
def _sized(path: str) -> ImageFont.FreeTypeFont:
    """The font at the size where its 0 is GLYPH_HEIGHT pixels high."""
    left, top, right, bottom = ImageFont.truetype(path, 200).getbbox("0")
    check(bottom > top, f"'{path}' draws nothing")
    return ImageFont.truetype(path, max(8, round(200 * GLYPH_HEIGHT / (bottom - top))))


def _draw(font: ImageFont.FreeTypeFont, digit: int) -> tuple[np.ndarray, int, int]:
    """The ink of one digit, and where its top and bottom lie relative to the line."""
    left, top, right, bottom = font.getbbox(str(digit))
    check(0 < right - left <= 1000 and 0 < bottom - top <= 1000, "the font draws nothing, or far too much")
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), str(digit), fill=255, font=font)
    return np.asarray(image), top, bottom


def plain_digits(path: str | Path) -> Font | None:
    """The font of a file if its ten digits are upright, lining, closed and all distinct; None where they are not.

    >>> plain_digits("missing.ttf") is None
    True
    """
    path = str(path)
    try:
        font = _sized(path)
        drawn = [_draw(font, digit) for digit in range(10)]
    except (OSError, ValueError):
        return None
    family, style = font.getname()
    family, style = family or Path(path).stem, style or "Regular"
    words = f"{family} {style} {Path(path).stem}".lower().replace("-", " ")
    if UNWANTED.search(words):
        return None
    tops, bottoms = np.array([d[1] for d in drawn]), np.array([d[2] for d in drawn])
    tolerance = 0.07 * GLYPH_HEIGHT  # old-style figures hang below the line or stop at the x-height
    lining = np.ptp(tops) <= tolerance and np.ptp(bottoms) <= tolerance
    scales = 0.9 * GLYPH_HEIGHT < drawn[0][0].shape[0] < 1.1 * GLYPH_HEIGHT  # which a bitmap font does not
    masks = [d[0] > 127 for d in drawn]
    if not (lining and scales and all(_closed(mask, HOLES[digit]) for digit, mask in enumerate(masks))):
        return None
    stroke = float(np.median([_thickness(mask) for mask in masks]) / GLYPH_HEIGHT)
    looks = [_fingerprint(d[0]) for d in drawn]
    distinct = all(np.abs(a - b).mean() >= 0.05 for a, b in combinations(looks, 2))
    return Font(path, family, style, stroke) if 0.075 <= stroke <= 0.30 and distinct else None


def _closed(mask: np.ndarray, holes: set[int]) -> bool:
    """Whether the ink is one piece with so many holes, neither wide nor pale, and not the box of a missing glyph."""
    if mask.shape[1] > 1.05 * GLYPH_HEIGHT or mask.mean() < 0.08 or not (mask[:8].any() and mask[-8:].any()):
        return False
    one_piece = ndimage.label(mask, np.ones((3, 3)))[1] == 1
    return one_piece and ndimage.label(~np.pad(mask, 1))[1] - 1 in holes


def _thickness(mask: np.ndarray) -> float:
    """Twice the median distance from the middle of the strokes to their edge, in pixels."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))
    ridge = depth[(depth == ndimage.maximum_filter(depth, 3)) & (depth > 1)]
    return 2 * np.median(ridge) if ridge.size else 0


def _fingerprint(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize((12, 16), Image.Resampling.BOX), np.float32) / 255


def find_fonts(*folders: str | Path) -> list[Font]:
    """Every font with plain digits below the folders (default: the system's), one of each look, sorted by name.

    `ODD_FAMILIES` are left out; so are fonts whose ten digits look the same as those of an earlier one. Links are
    followed. Raises `UserError` where nothing fits, or one of these folders is missing or may not be read.

    >>> fonts = find_fonts("/usr/share/fonts/truetype/dejavu")   # doctest: +SKIP
    """
    system = [Path(os.path.expanduser(folder)) for folder in FOLDERS.split()]
    system += [Path(sys.prefix, "share", "fonts"), Path(matplotlib.get_data_path(), "fonts", "ttf")]
    roots = folders or [root for root in system if os.path.isdir(root)]
    advice = "give folders of fonts that can be read"
    files = {Path(root, name) for root in folders for name in files_below(root, advice)}
    files |= set() if folders else {path for root in roots for path in root.rglob("*")}  # readable or not
    paths = sorted(path for path in files if path.suffix.lower() in (".ttf", ".otf", ".ttc"))
    found = [font for font in map(plain_digits, paths) if font and not re.search(ODD_FAMILIES, font.family.lower())]
    fonts, looks = [], []
    for font in sorted(found, key=lambda font: (font.family, font.style, font.path)):
        look = np.stack([_fingerprint(font.glyph(digit)) for digit in range(10)])
        widths = np.array([font.glyph(digit).shape[1] for digit in range(10)]) / GLYPH_HEIGHT
        if any(np.abs(widths - w).mean() < 0.015 and np.abs(look - seen).mean() < 0.02 for w, seen in looks):
            continue
        looks.append((widths, look))
        fonts.append(font)
    check(fonts, f"no font with plain digits below {', '.join(map(str, roots))}; install some, or name a folder")
    return fonts
