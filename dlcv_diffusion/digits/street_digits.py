"""Street digits: rendered house-number crops that stand in for SVHN where SVHN cannot be had.

They follow the idea of the Synthetic Digits that Ganin and Lempitsky (2015, "Unsupervised Domain Adaptation by
Backpropagation") made to resemble SVHN, with the format of SVHN's cropped digits (Netzer et al. 2011): a square cut
around one digit of a number, its neighbours cut off at the sides, 32×32, blurred as a distant photograph is. They are
not SVHN; everything that shows them says so.
"""

import io
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy import ndimage

from ..errors import check
from .fonts import GLYPH_HEIGHT, Font
from .walls import SMALLEST_CROP, colour, field, luminance, wall

CANVAS = 96
"""Side of the square that is painted before it is made small: three times SVHN's 32."""

SVHN_SIZE = 32


def street_digit(
    index: int, seed: int, fonts: Sequence[Font], photos: Sequence[np.ndarray] = (), size: int = 28
) -> tuple[np.ndarray, int]:
    """Street digit number `index` of a seed: an image (size, size, 3) uint8 and its digit, `index % 10`.

    It depends on (seed, index, fonts, photos) alone, so any part of a set can be made again by itself.
    `photos` are (H, W, 3) uint8 pictures from which some backgrounds are cut.

    >>> image, digit = street_digit(7, seed=0, fonts=find_fonts())   # doctest: +SKIP
    >>> image.shape, digit                                           # doctest: +SKIP
    ((28, 28, 3), 7)
    """
    rng = np.random.default_rng([seed, index])
    digit = index % 10
    ink, neighbours = number(rng, digit, _font(rng, fonts))
    picture = _paint(rng, ink, np.maximum(ink, neighbours), photos)
    return _photograph(rng, picture, size), digit


def _font(rng: np.random.Generator, fonts: Sequence[Font]) -> Font:
    """A font drawn by family first, so that a family of ten weights counts no more than a family of one."""
    families: dict[str, list[Font]] = {}
    for font in fonts:
        families.setdefault(font.family, []).append(font)
    names = sorted(families)
    styles = families[names[rng.integers(len(names))]]
    # House numbers are seldom thin: a style's chance grows with its stroke up to bold.
    weights = np.array([np.clip(font.stroke, 0.08, 0.17) - 0.05 for font in styles])
    return styles[rng.choice(len(styles), p=weights / weights.sum())]


def number(rng: np.random.Generator, digit: int, font: Font) -> tuple[np.ndarray, np.ndarray]:
    """Masks (CANVAS, CANVAS) float32 in [0, 1] of the centred digit, and of what is seen of its neighbours.

    About half show a neighbour; none shows more than 75 % of its width, so that the centre is never in doubt.
    """
    glyph = font.glyph(digit)
    stretch = np.clip(rng.normal(0.97, 0.08), 0.80, 1.2)
    angle, shear = np.radians(np.clip(rng.normal(0, 4.5), -11, 11)), np.clip(rng.normal(0, 0.07), -0.18, 0.18)
    height = rng.uniform(0.70, 0.96) * CANVAS
    width = glyph.shape[1] / glyph.shape[0] * height * stretch
    if width > 0.86 * CANVAS:  # a wide digit fills the crop from side to side
        height, width = height * 0.86 * CANVAS / width, 0.86 * CANVAS
    scale = height / glyph.shape[0]

    # Glyphs on one line, x measured in glyph pixels from the middle of the digit.
    gap = rng.uniform(0.04, 0.17) * GLYPH_HEIGHT
    edge = CANVAS / 2 / (scale * stretch)
    pieces = [(glyph, -glyph.shape[1] / 2, 0.0)]
    for side in (-1, 1):
        if rng.random() < 0.45:
            other = font.glyph(int(rng.integers(10)))
            shown = rng.uniform(0.30, 0.75) * other.shape[1]
            near = max(glyph.shape[1] / 2 + gap, edge - shown)
            rise = rng.normal(0, 0.02) * GLYPH_HEIGHT
            pieces.append((other, near if side > 0 else -near - other.shape[1], rise))

    half = 3 * GLYPH_HEIGHT
    layers = []
    for group in (pieces[:1], pieces[1:]):
        layer = np.zeros((2 * GLYPH_HEIGHT, 2 * half), np.uint8)
        for mask, left, rise in group:
            top, start = int(GLYPH_HEIGHT - mask.shape[0] / 2 + rise), int(half + left)
            start = min(max(start, 0), 2 * half - mask.shape[1])
            layer[top : top + mask.shape[0], start : start + mask.shape[1]] = mask
        layers.append(Image.fromarray(layer))

    # From the canvas back to the line: shift · perspective · rotation · shear · scale, inverted.
    forward = np.array([[scale * stretch, 0, 0], [0, scale, 0], [0, 0, 1.0]])
    forward = np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1.0]]) @ forward
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]]) @ forward
    tilt = np.clip(rng.normal(0, 0.12, 2), -0.3, 0.3) / CANVAS
    forward = np.array([[1, 0, 0], [0, 1, 0], [tilt[0], tilt[1], 1.0]]) @ forward
    middle = CANVAS / 2 + np.clip(rng.normal(0, 0.02, 2), -0.05, 0.05) * CANVAS
    forward = np.array([[1, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1.0]]) @ forward
    inverse = np.linalg.inv(forward @ np.array([[1, 0, -half], [0, 1, -GLYPH_HEIGHT], [0, 0, 1.0]]))
    inverse = (inverse / inverse[2, 2]).ravel()[:8]
    ink, neighbours = (
        np.asarray(layer.transform((CANVAS, CANVAS), Image.Transform.PERSPECTIVE, inverse, Image.Resampling.BILINEAR))
        for layer in layers
    )
    return ink.astype(np.float32) / 255, neighbours.astype(np.float32) / 255


def _paint(rng: np.random.Generator, ink: np.ndarray, text: np.ndarray, photos: Sequence[np.ndarray]) -> np.ndarray:
    """The wall with the number on it, lit: (CANVAS, CANVAS, 3) float32, mostly within [0, 1]."""
    # Two lumas a contrast apart; which of them is the wall decides the polarity.
    contrast = rng.uniform(0.22, 0.32) if rng.random() < 0.12 else rng.uniform(0.32, 0.80)
    low = rng.uniform(0.06, 0.94 - contrast)
    ground, front = (low, low + contrast) if rng.random() < 0.5 else (low + contrast, low)
    picture = wall(rng, CANVAS, ground, photos)
    picture = _settle(picture, ground, contrast)
    if rng.random() < 0.20:
        picture = _plate(rng, picture, ground)

    paint = colour(rng, front, greys=0.6)
    shift = rng.integers(2, 5, 2) * rng.choice([-1, 1], 2)
    if rng.random() < 0.25:  # a shadow thrown on the wall
        shadow = ndimage.gaussian_filter(ndimage.shift(text, shift, order=0), rng.uniform(1, 3))
        picture = picture * (1 - rng.uniform(0.2, 0.5) * shadow[..., None])
    if rng.random() < 0.08:  # a rim around the digits
        rim = ndimage.maximum_filter(text, 5)
        picture = picture + rim[..., None] * (colour(rng, float(np.clip(2 * ground - front, 0.05, 0.95))) - picture)
    surface = paint * (1 + rng.uniform(0, 0.06) * field(rng, CANVAS, 6, 6)[..., None])
    if rng.random() < 0.20:  # raised digits: one flank catches the light
        soft = ndimage.gaussian_filter(text, 1.5)
        flank = ndimage.shift(soft, shift / 2, order=1) - ndimage.shift(soft, -shift / 2, order=1)
        surface = surface + rng.uniform(0.1, 0.3) * flank[..., None]
    mask = np.clip(text, 0, 1)[..., None]
    picture = picture * (1 - mask) + surface * mask

    # Light: a gradient over everything, sometimes the edge of a soft shadow, then the camera's colour cast.
    y, x = (np.mgrid[:CANVAS, :CANVAS].astype(np.float32) / CANVAS) - 0.5
    direction = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(direction) * x + np.sin(direction) * y
    light = 1 + rng.normal(0, 0.22) * ramp
    if rng.random() < 0.08:
        light = light * (1 - rng.uniform(0.1, 0.3) / (1 + np.exp(-(ramp - rng.uniform(-0.3, 0.3)) * 25)))
    cast = 1 + rng.normal(0, 0.06, 3).astype(np.float32) * [1, 0.4, 1]
    return (picture * light[..., None] * cast).astype(np.float32)


def _settle(picture: np.ndarray, luma: float, contrast: float) -> np.ndarray:
    """The wall at its luma, its texture held to a fraction of the contrast that the digit will have."""
    shade = luminance(picture)
    spread = min(1.0, 0.22 * contrast / max(float(shade.std()), 1e-4))
    mean = picture.mean((0, 1))
    return mean + spread * (picture - mean) + (luma - float(shade.mean()))


def _plate(rng: np.random.Generator, picture: np.ndarray, luma: float) -> np.ndarray:
    """A plate of the same luma behind the number, with a rim; the old wall shows above and below it."""
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    slope = rng.normal(0, 0.05)
    middle, half = CANVAS / 2 + slope * (x - CANVAS / 2), rng.uniform(0.44, 0.55) * CANVAS
    inside = half - np.abs(y - middle)
    if rng.random() < 0.3:  # the plate's end is in view
        reach = rng.uniform(0.42, 0.5) * CANVAS
        inside = np.minimum(inside, reach - rng.choice([-1, 1]) * (x - CANVAS / 2))
    plate = colour(rng, luma) * (1 + 0.03 * field(rng, CANVAS, 5, 5)[..., None])
    outer = colour(rng, float(np.clip(luma + rng.choice([-1, 1]) * rng.uniform(0.1, 0.3), 0.05, 0.95)))
    cover = np.clip(inside, 0, 1)[..., None]
    rim = (np.clip(inside, 0, 1) * np.clip(rng.uniform(1.5, 4) - inside, 0, 1))[..., None]
    picture = (picture + 0.5 * (outer - luminance(picture).mean())) * (1 - cover) + plate * cover
    return picture * (1 - rim) + outer * rim


def _photograph(rng: np.random.Generator, picture: np.ndarray, size: int) -> np.ndarray:
    """What a distant camera makes of it: blur, few pixels, noise, JPEG; SVHN's 32×32, then (size, size, 3) uint8."""
    blur = rng.uniform(0.35, 1.2) * CANVAS / SVHN_SIZE
    stretch = rng.uniform(0.8, 1.25)  # a little camera shake along one axis
    picture = ndimage.gaussian_filter(picture, (blur * stretch, blur / stretch, 0))
    seen = int(rng.integers(18, 56))  # the resolution the number was photographed at; below 32 it was enlarged
    pixels = np.stack([_resize(picture[..., channel], seen) for channel in range(3)], -1)
    noise = rng.uniform(0.0, 0.035) * rng.standard_normal(pixels.shape)
    if rng.random() < 0.5:  # luma noise rather than three colours of it
        noise = np.repeat(noise[..., :1], 3, -1)
    image = Image.fromarray(np.uint8(np.clip(pixels + noise, 0, 1) * 255 + 0.5))
    if rng.random() < 0.8:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(50, 96)))
        image = Image.open(buffer)
    image = image.resize((SVHN_SIZE, SVHN_SIZE), Image.Resampling.BILINEAR)
    if size != SVHN_SIZE:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _resize(channel: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(channel).resize((side, side), Image.Resampling.BILINEAR))


def street_digits(
    count: int,
    seed: int,
    fonts: Sequence[Font],
    photos: Sequence[np.ndarray] = (),
    *,
    start: int = 0,
    size: int = 28,
    processes: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Street digits `start … start + count - 1` of a seed: images (count, 3, size, size) uint8, digits (count,) int64.

    The classes are balanced whenever count is a multiple of ten. The number of processes changes nothing but the time
    (about 4 ms an image and process). Raises `UserError` for a photograph that is smaller than 32×32.

    >>> images, digits = street_digits(100, seed=0, fonts=find_fonts())   # doctest: +SKIP
    """
    large = all(min(photo.shape[:2]) >= SMALLEST_CROP for photo in photos)
    check(large, f"a photograph is smaller than {SMALLEST_CROP}×{SMALLEST_CROP} pixels; leave it out")
    if processes > 1:
        cuts = np.linspace(start, start + count, processes + 1).astype(int).tolist()
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            share = partial(pool.submit, street_digits, seed=seed, fonts=fonts, photos=photos, size=size)
            parts = [share(last - first, start=first) for first, last in pairwise(cuts)]
            return tuple(np.concatenate(arrays) for arrays in zip(*(part.result() for part in parts), strict=True))
    images, digits = np.empty((count, 3, size, size), np.uint8), np.empty(count, np.int64)
    for row in range(count):
        image, digits[row] = street_digit(start + row, seed, fonts, photos, size)
        images[row] = image.transpose(2, 0, 1)
    return images, digits
