"""Two thousand damaged files through every reader: each is read, or refused in one line. Always the same files."""

import io
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from small_faces import write_own

from dlcv_diffusion import UserError, load_denoiser
from dlcv_diffusion.digits.course import read_list
from dlcv_diffusion.digits.data import load_digits
from dlcv_diffusion.digits.mnist_m import load_photos
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.faces.noises import read_noises
from dlcv_diffusion.images.pictures import open_picture
from dlcv_diffusion.models.registry import read_header
from dlcv_diffusion.tensors import read_state_dict

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (28, 28, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(PIXELS).resize((7, 7)).resize((28, 28))


def encoded(format_, image=SMOOTH, **options):
    content = io.BytesIO()
    image.save(content, format_, **options)
    return content.getvalue()


def saved(write, *arguments, **options):
    content = io.BytesIO()
    write(content, *arguments, **options)
    return content.getvalue()


def zipped(compression):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for number in range(3):
            archive.writestr(f"7/{number}.png", encoded("PNG"))
    return content.getvalue()


def folder_of(load):
    """A reader of folders, for a file that lies in one."""
    return lambda path: load(path.parent)


def whole(path):
    return open_picture(path, "give another", upright=True)


def faces(path):
    return load_faces(path, "all", size=8)


IMAGES, LABELS = np.stack([PIXELS.transpose(2, 0, 1)] * 4), np.arange(4)
NOISE = torch.from_numpy(RNG.standard_normal((1, 3, 8, 8), np.float32))
LIST = b"\xef\xbb\xbf,image_name,label\r\n" + b"".join(b'%d,"%d.png",%d.0\r\n' % (i, i, i % 10) for i in range(20))
EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """What a whole file holds, by its name, and what reads it."""
    own = write_own(tmp_path_factory.mktemp("own") / "a.safetensors").read_bytes()
    pictures = (whole, folder_of(load_digits), folder_of(faces))
    deep = Image.fromarray(np.arange(784, dtype=np.uint16).reshape(28, 28) * 80)
    return {
        "a.npz": ([saved(np.savez, images=IMAGES, labels=LABELS)], (load_digits,)),
        "b.npz": ([saved(np.savez_compressed, images=IMAGES, labels=LABELS)], (load_digits,)),
        "7_a.png": ([encoded("PNG"), encoded("PNG", SMOOTH.quantize(8)), encoded("PNG", deep)], pictures),
        "7_b.jpg": ([encoded("JPEG", exif=EXIF), encoded("JPEG", SMOOTH.convert("CMYK"), progressive=True)], pictures),
        "7_c.webp": ([encoded("WEBP"), encoded("WEBP", SMOOTH.convert("RGBA"), lossless=True)], pictures),
        "7_d.tif": ([encoded("TIFF"), encoded("TIFF", deep, compression="tiff_lzw")], pictures),
        "7_e.gif": ([encoded("GIF"), encoded("BMP"), encoded("PPM")], pictures),
        "a.zip": ([zipped(zipfile.ZIP_STORED), zipped(zipfile.ZIP_DEFLATED)], (faces, load_photos, load_digits)),
        "b.zip": ([zipped(zipfile.ZIP_LZMA), zipped(zipfile.ZIP_BZIP2)], (faces, load_photos, load_digits)),
        "train.csv": ([LIST], (read_list,)),
        "00.pt": ([saved(lambda file: torch.save(NOISE, file))], (folder_of(read_noises), read_state_dict)),
        "01.pt": (
            [saved(lambda file: torch.save({"a": NOISE}, file, _use_new_zipfile_serialization=False))],
            (folder_of(read_noises), read_state_dict, load_denoiser),
        ),
        "a.safetensors": ([own, save({"a": NOISE})], (read_header, load_denoiser)),
    }


def damaged(rng, content, other):
    """The content truncated, with bits flipped, zeros or random bytes in it, or a piece of another file."""
    data = bytearray(content)
    # headers, where the sizes stand, are as likely to be hit as all the rest
    start = int(rng.integers(min(len(data), 100) if rng.random() < 0.5 else len(data)))
    length = int(rng.integers(1, 40))
    match rng.integers(6):
        case 0:
            return bytes(data[:start])
        case 1:
            for place in (start, *rng.integers(len(data), size=3)):
                data[place] ^= 1 << int(rng.integers(8))
        case 2:
            data[start : start + length] = bytes(length)
        case 3:
            data[start : start + length] = rng.bytes(length)
        case 4:
            data[start : start + length] = b"\xff" * length
        case 5:
            data[start:] = other[start:]
    return bytes(data)


@pytest.mark.parametrize("batch", range(4))
def test_each_is_read_or_refused_in_one_line(kinds, tmp_path, capfd, batch):
    rng = np.random.default_rng(batch)
    everything = [content for contents, _ in kinds.values() for content in contents]
    outcomes = {"read": 0, "refused": 0}
    for number in range(500):
        name = list(kinds)[number % len(kinds)]
        contents, readers = kinds[name]
        content = contents[number // len(kinds) % len(contents)]
        path = tmp_path / name.replace(".", "_") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged(rng, content, everything[rng.integers(len(everything))]))
        for reader in readers:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                warnings.filterwarnings("ignore", "Detected pickle protocol")
                try:
                    reader(path)
                    outcomes["read"] += 1
                except UserError as error:
                    said = str(error)
                    assert "\n" not in said and "Traceback" not in said and len(said) < 600, (path, said)
                    outcomes["refused"] += 1
            assert not warned, (path, [str(warning.message) for warning in warned])
    printed = capfd.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err and "Warning" not in printed.err  # libtiff writes, in C
    assert min(outcomes.values()) > 50, outcomes
