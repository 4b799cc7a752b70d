"""Styles that fill areas: pixel art, watercolour, pop art, stained glass, embroidery, old photograph.

Each paints (picture (64, 64, 3) on white in [0, 1], cover (64, 64) in [0, 1], rng) as (64, 64, 3) in [0, 1].
"""

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import ndimage

from .drawings import COLUMN, FINE_COLUMN, FINE_ROW, ROW
from .ink import LUMA, blend, enlarged, flat, noise, outlines, reduced, saturated
from .sprites import SIDE

BLOCK, RIM = 3, (0.30, 0.27, 0.36)
"""Pixels a side of a pixel-art pixel, and the colour of its rim."""


def pixel_art(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Large pixels in few colours, with hard edges and a dark rim, as games had it.

    >>> len(np.unique(pixel_art(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0))))
    1
    """
    blocks = -(-SIDE // BLOCK)
    edge = ((0, blocks * BLOCK - SIDE), (0, blocks * BLOCK - SIDE), (0, 0))
    thing = np.pad(np.dstack([picture - 1 + cover[..., None], cover]), edge)  # without the white that shows through
    thing = thing.reshape(blocks, BLOCK, blocks, BLOCK, 4).mean((1, 3))
    colours = np.clip(thing[..., :3] / np.maximum(thing[..., 3:], 1e-3), 0, 1)
    image = Image.fromarray(np.uint8(colours * 255 + 0.5))
    few = np.asarray(image.quantize(12, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")) / 255
    solid = thing[..., 3] > 0.45
    rim = ndimage.binary_dilation(solid) & ~solid
    few = np.where(solid[..., None], saturated(few, 1.15), np.where(rim[..., None], RIM, 1.0))
    return few.repeat(BLOCK, 0).repeat(BLOCK, 1)[:SIDE, :SIDE]


def watercolour(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Thin colours that ran on rough paper, out of the pencil lines in places: uneven, darker along their rims.

    >>> bool(watercolour(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).mean() > 0.9)
    True
    """
    move = 0.7 * np.stack([noise(rng, 12), noise(rng, 12)])
    place = np.stack([ROW, COLUMN]) + move
    ran = np.dstack([ndimage.map_coordinates(picture[..., c], place, order=1, mode="nearest") for c in range(3)])
    body = ndimage.map_coordinates(cover, place, order=1, mode="nearest")
    wet = ndimage.gaussian_filter(ran, (0.7, 0.7, 0))
    rim = np.clip(body - ndimage.gaussian_filter(body, 2.2), 0, 1) + 0.5 * np.abs(wet - ran).mean(-1)
    pigment = -np.log(np.clip(saturated(wet, 1.3), 0.06, 1))
    flow = np.clip(0.72 + 0.22 * noise(rng, 5) + 0.12 * noise(rng, 14) + 1.5 * rim, 0.25, 1.8)
    halo = ndimage.gaussian_filter(pigment, (3.5, 3.5, 0))
    paper = np.array([0.985, 0.975, 0.95]) + 0.014 * (noise(rng, 40) + rng.standard_normal((SIDE, SIDE)))[..., None]
    page = np.clip(paper * np.exp(-0.85 * flow[..., None] * pigment - 0.16 * halo), 0, 1)
    return blend(page, np.array([0.35, 0.33, 0.36]), 0.4 * reduced(outlines(picture, cover, 0.8)))


def pop_art(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Comics print: loud flat colours, thick black lines, and a ground of dots.

    >>> pop_art(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).shape
    (64, 64, 3)
    """
    inks = ((0.98, 0.85, 0.12), (0.98, 0.36, 0.60), (0.16, 0.72, 0.93), (0.45, 0.83, 0.30))
    ink = np.array(inks[rng.integers(len(inks))])
    turn = np.stack([FINE_ROW + FINE_COLUMN, FINE_ROW - FINE_COLUMN]) / np.sqrt(2)
    from_centre = np.hypot(*((turn + rng.uniform(0, 5, (2, 1, 1))) % 5 - 2.5))
    dots = reduced(np.clip((2.0 - from_centre) * 2, 0, 1))
    page = blend(np.full((SIDE, SIDE, 3), 0.99), ink, dots)
    loud = np.round(saturated(flat(picture), 1.7) * 3) / 3
    page = blend(page, loud, cover)
    return blend(page, 0.04, reduced(outlines(picture, cover, 1.4)))


def stained_glass(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Glowing glass between lines of lead; the ground is a window of large pale panes.

    >>> stained_glass(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).shape
    (64, 64, 3)
    """
    centres = (np.stack(np.mgrid[:4, :4], -1).reshape(-1, 2) + rng.uniform(0.1, 0.9, (16, 2))) * SIDE / 4
    away = np.hypot(ROW[..., None] - centres[:, 0], COLUMN[..., None] - centres[:, 1])
    first, second = np.partition(away, 1, axis=-1)[..., :2].transpose(2, 0, 1)
    lead = np.clip(1.3 - enlarged(second - first), 0, 1)
    tints = np.array([[0.62, 0.80, 0.95], [0.75, 0.90, 0.98], [0.55, 0.72, 0.90], [0.82, 0.90, 0.80]])
    panes = tints[rng.integers(4, size=16)][away.argmin(-1)].repeat(2, 0).repeat(2, 1)
    glass = np.dstack([enlarged(plane) for plane in np.moveaxis(saturated(picture, 1.6), -1, 0)])
    inside = enlarged(cover).clip(0, 1)
    window = blend(panes, np.array([0.24, 0.28, 0.34]), lead * (1 - inside))
    window = blend(window, glass, inside)
    light = 1.08 - 0.30 * np.hypot(FINE_ROW - 26, FINE_COLUMN - 26)[..., None] / 45
    window = reduced(blend(window * light, 0.06, outlines(picture, cover, 1.3)))
    return np.clip(window + 0.02 * noise(rng, 24)[..., None], 0, 1)


def embroidery(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Satin stitches on linen: each colour's threads lie in a direction of their own.

    >>> embroidery(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).shape
    (64, 64, 3)
    """
    weave = 0.5 + 0.5 * np.sin(ROW * np.pi / 1.5) * np.sin(COLUMN * np.pi / 1.5)
    linen = np.array([0.90, 0.85, 0.75]) - 0.10 * weave[..., None] + 0.015 * noise(rng, 30)[..., None]
    silk = flat(picture)
    angle = np.round((silk @ np.array([1.0, 2.0, 4.0])) * 2.2) * 0.9 + 0.5
    along = ROW * np.cos(angle) + COLUMN * np.sin(angle)
    thread = 0.5 + 0.5 * np.sin(along * 2 * np.pi / 2.6)
    sheen = (0.70 + 0.42 * thread)[..., None]
    stitched = np.clip(silk * sheen + 0.05 * thread[..., None], 0, 1)
    shadow = np.clip(ndimage.shift(cover, (1, 1), order=0) - cover, 0, 1)
    page = blend(linen * (1 - 0.4 * shadow[..., None]), stitched, cover)
    seam = reduced(outlines(picture, cover, 1.2))
    return np.clip(blend(page, 0.35 * silk * sheen, 0.75 * seam * cover), 0, 1)


def old_photograph(picture: np.ndarray, cover: np.ndarray, rng: Generator) -> np.ndarray:
    """Brown and faded, with grain, dark corners and a scratch or two.

    >>> bool(old_photograph(np.ones((64, 64, 3)), np.zeros((64, 64)), np.random.default_rng(0)).mean() < 0.9)
    True
    """
    grey = ndimage.gaussian_filter(picture @ LUMA, 0.5)
    shade = ndimage.gaussian_filter(ndimage.shift(cover, (3, 2), order=0), 2.5)
    tone = 0.04 + 0.80 * grey**1.4 - 0.14 * shade * (1 - cover)
    tone += 0.035 * rng.standard_normal((SIDE, SIDE)) + 0.02 * noise(rng, 4)
    tone -= 0.5 * np.clip(np.hypot(ROW - 31.5, COLUMN - 31.5) / 45 - 0.45, 0, 1) ** 1.5
    for _ in range(rng.integers(1, 3)):
        at, slope = rng.uniform(4, 60), rng.uniform(-0.08, 0.08)
        tone += 0.22 * (np.abs(COLUMN - at - slope * ROW) < 0.5) * (rng.random((SIDE, 1)) < 0.8)
    dark, light = np.array([0.16, 0.09, 0.05]), np.array([0.98, 0.90, 0.74])
    return np.clip(dark + np.clip(tone, 0, 1)[..., None] * (light - dark), 0, 1)
