"""Every kind of pixel that pictures have, written to real files and read back as the right 8 bits."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dlcv_diffusion import UserError
from dlcv_diffusion.images.pictures import open_picture, read_digits

RAMP = np.linspace(0, 65535, 28 * 28).round().astype(np.uint16).reshape(28, 28)
EIGHT = np.round(RAMP / 257).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)


def read(path, mode="RGB"):
    return np.asarray(open_picture(path, "give another", mode=mode)).astype(int)


def png_of_16_bits(path, pixels, colour_type, chunks=(), size=None):
    """A PNG of 16 bits a channel, which Pillow does not write in colour, with other chunks or a wrong size."""
    width, height = size or pixels.shape[1::-1]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_keeps_its_greys(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP).save(path)
    assert np.array_equal(read(path, "L"), EIGHT) and np.array_equal(read(path)[..., 2], EIGHT)


def test_16_bit_grey_of_either_byte_order(tmp_path):
    Image.frombytes("I;16B", (28, 28), RAMP.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert np.array_equal(read(tmp_path / "a.tif", "L"), EIGHT)


def test_16_bit_colours_and_alpha(tmp_path):
    deep = COLOURS.astype(np.uint16) * 257
    png_of_16_bits(tmp_path / "rgb.png", deep, 2)
    assert np.abs(read(tmp_path / "rgb.png") - COLOURS).max() <= 1
    opaque = np.full((28, 28, 1), 65535, np.uint16)
    png_of_16_bits(tmp_path / "rgba.png", np.concatenate([deep, opaque], -1), 6)
    assert np.abs(read(tmp_path / "rgba.png") - COLOURS).max() <= 1
    png_of_16_bits(tmp_path / "la.png", np.stack([RAMP, np.full_like(RAMP, 65535)], -1), 4)
    assert np.abs(read(tmp_path / "la.png", "L") - EIGHT).max() <= 1


def test_grey_palette_and_1_bit(tmp_path):
    Image.fromarray(EIGHT).save(tmp_path / "grey.png")
    assert np.array_equal(read(tmp_path / "grey.png"), np.repeat(EIGHT[..., None], 3, -1))
    few = Image.fromarray(COLOURS).quantize(16)
    for suffix in ("png", "gif", "bmp"):
        few.save(tmp_path / f"few.{suffix}")
        assert np.array_equal(read(tmp_path / f"few.{suffix}"), np.asarray(few.convert("RGB")))
    Image.fromarray(EIGHT > 100).save(tmp_path / "one.png")
    assert np.array_equal(read(tmp_path / "one.png", "L"), np.where(EIGHT > 100, 255, 0))


def test_what_is_transparent_shows_white(tmp_path):
    alpha = np.zeros((28, 28), np.uint8)
    alpha[:14], alpha[14:20] = 255, 51
    on_white = np.round(255 + (COLOURS.astype(float) - 255) * alpha[..., None] / 255)
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "rgba.png")
    assert np.abs(read(tmp_path / "rgba.png") - on_white).max() <= 1
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "rgba.webp", lossless=True, exact=True)
    assert np.abs(read(tmp_path / "rgba.webp") - on_white).max() <= 1
    Image.fromarray(np.dstack([EIGHT, alpha])).save(tmp_path / "la.png")
    assert np.abs(read(tmp_path / "la.png", "L") - np.round(255 + (EIGHT.astype(float) - 255) * alpha / 255)).max() <= 1


def test_palettes_and_colours_that_are_transparent(tmp_path):
    indices = (np.arange(28 * 28).reshape(28, 28) % 4).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.flatten().tolist())
    colours = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    image.putpalette(colours.tobytes())
    shown = colours.copy()
    shown[1] = 255
    for transparency in (1, bytes([255, 0, 255, 255])):
        image.save(tmp_path / "p.png", transparency=transparency)
        assert np.array_equal(read(tmp_path / "p.png"), shown[indices])
    Image.fromarray(colours[indices]).save(tmp_path / "rgb.png", transparency=(200, 0, 0))
    assert np.array_equal(read(tmp_path / "rgb.png"), shown[indices])


def test_cmyk_and_a_wrong_suffix(tmp_path):
    image = Image.new("RGB", (28, 28), (200, 100, 50))
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    assert np.abs(read(tmp_path / "cmyk.jpg") - (200, 100, 50)).max() <= 3
    image.save(tmp_path / "jpeg.png", "JPEG", quality=100, subsampling=0)
    assert np.abs(read(tmp_path / "jpeg.png") - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("pixels", [np.float32(EIGHT / 255), np.int32(EIGHT) * 70_000])
def test_numbers_without_a_known_white_are_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif' holds 32-bit or fractional numbers"):
        read(tmp_path / "a.tif")


def test_a_digit_of_16_bits_is_not_white(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "0.png")
    assert np.array_equal(read_digits(tmp_path, ["0.png"])[0, 1].numpy(), EIGHT)


@pytest.mark.parametrize("content", [b"", b"words", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_told(tmp_path, content, recwarn):
    (tmp_path / "數 字.png").write_bytes(content)
    with pytest.raises(UserError, match="數 字.png' is not a picture that can be read; give another"):
        read(tmp_path / "數 字.png")
    assert not len(recwarn)


def tiff_of_grey(path, rows, bits, photometric):
    """An uncompressed little-endian TIFF of 28×28 greys, whose packed rows are given."""
    tags = {256: 28, 257: 28, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 28, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + rows)


def packed(values):
    """12-bit numbers, two in three bytes."""
    a, b = values.reshape(-1, 2).astype(int).T
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], -1).astype(np.uint8).tobytes()


@pytest.mark.parametrize("upright", [False, True])
def test_a_tiff_says_which_number_is_white(tmp_path, upright):
    def grey(path):
        return np.asarray(open_picture(path, "give another", mode="L", upright=upright)).astype(int)

    tiff_of_grey(tmp_path / "black.tif", RAMP.tobytes(), 16, 1)
    tiff_of_grey(tmp_path / "white.tif", RAMP.tobytes(), 16, 0)
    assert np.array_equal(grey(tmp_path / "black.tif"), EIGHT)
    assert np.array_equal(grey(tmp_path / "white.tif"), 255 - EIGHT.astype(int))
    twelve = np.linspace(0, 4095, 784).round().reshape(28, 28)
    tiff_of_grey(tmp_path / "twelve.tif", packed(twelve), 12, 1)
    assert np.array_equal(grey(tmp_path / "twelve.tif"), np.round(twelve * 255 / 4095))


def test_a_16_bit_grey_that_is_transparent_shows_white(tmp_path):
    png_of_16_bits(tmp_path / "a.png", RAMP, 0, chunks=[(b"tRNS", struct.pack(">H", int(RAMP[3, 4])))])
    shown = EIGHT.copy()
    shown[3, 4] = 255
    assert np.array_equal(read(tmp_path / "a.png", "L"), shown)


def test_a_huge_picture_is_told_by_its_size(tmp_path):
    png_of_16_bits(tmp_path / "a.png", RAMP, 0, size=(20_000, 10_000))
    with pytest.raises(UserError, match=r"a\.png' has more than 178956970 pixels; make it smaller"):
        read(tmp_path / "a.png")
