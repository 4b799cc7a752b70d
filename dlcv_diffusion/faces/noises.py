"""Noises in files, as the course gives them: `00.pt, 01.pt, …`, each a float tensor (1, C, H, W) from N(0, I)."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..files import staging_folder
from ..noise import seeded_noise

COURSE_SHAPE = (1, 3, 256, 256)


def write_noises(out: str | Path, seeds: Iterable[int], shape: Sequence[int] = COURSE_SHAPE) -> list[Path]:
    """Write a noise for each seed, named after it: `00.pt` is `seeded_noise(shape, [0])`. Returns the paths.

    - shape: (1, C, H, W); the course's by default.

    The files appear when all of them are written; files of the same names are replaced. Raises `UserError` for another
    shape, seeds that are out of range, twice the same or none, and where `out` cannot be written.

    >>> write_noises("noise", seeds=range(10))   # doctest: +SKIP
    """
    seeds, shape = list(seeds), tuple(shape)
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
        raise UserError(f"a noise has the shape (1, C, H, W), such as {COURSE_SHAPE}, not {shape}")
    if not seeds:
        raise UserError("there are no seeds to make noises from; give some, such as 0-9")
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise UserError(f"seed {twice[0]} is given more than once; each noise has a file named after its seed")
    names = [f"{seed:02d}.pt" for seed in seeds]
    with staging_folder(out) as staging:
        for seed, name in zip(seeds, names, strict=True):
            content = io.BytesIO()  # torch.save tells of a full disk in a RuntimeError without its reason
            torch.save(seeded_noise(shape, [seed]), content)
            (staging / name).write_bytes(content.getvalue())
    return [Path(out) / name for name in names]


def noise_files(folder: str | Path) -> list[Path]:
    """The `.pt` files of a folder, sorted by name. Raises `UserError` where the folder is missing or has none.

    >>> noise_files("hw2_data/face/noise")[0].name   # doctest: +SKIP
    '00.pt'
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder: '{folder}'; give one with noises, 00.pt …, or make one with `dlcv noise`")
    try:
        paths = sorted(path for path in folder.glob("[!.]*.pt") if path.is_file())
    except OSError as error:
        raise UserError(f"you may not read '{folder}'; change its permissions") from error
    if not paths:
        raise UserError(f"'{folder}' holds no noises (00.pt, 01.pt, …); make some with `dlcv noise`")
    return paths


def read_noises(folder: str | Path) -> Tensor:
    """All the noises of a folder, (N, C, H, W) float32 on the CPU, in the order of `noise_files`.

    The files are read with `weights_only=True`, so that nothing in them can run. Raises `UserError` as `noise_files`
    does, and for a file that is damaged, holds anything else than a finite float tensor (1, C, H, W), or one of another
    size than the first.

    >>> read_noises("hw2_data/face/noise").shape   # doctest: +SKIP
    torch.Size([10, 3, 256, 256])
    """
    paths = noise_files(folder)
    noises = [_read_noise(path) for path in paths]
    for path, noise in zip(paths, noises, strict=True):
        if noise.shape != noises[0].shape:
            first, other = ("×".join(map(str, x.shape[1:])) for x in (noises[0], noise))
            raise UserError(f"'{path}' is {other}, but '{paths[0].name}' is {first}; a folder holds noises of one size")
    return torch.cat(noises)


def _read_noise(path: Path) -> Tensor:
    if not os.access(path, os.R_OK):
        raise UserError(f"you may not read '{path}'; change its permissions")
    try:
        noise = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from IndexError to struct.error in torch's reader
        raise UserError(
            f"'{path}' is not a whole .pt file of a plain tensor; write it again with torch.save"
        ) from error
    if not isinstance(noise, Tensor):
        raise UserError(f"'{path}' holds a {type(noise).__name__}; a noise is a float tensor (1, C, H, W)")
    if noise.layout != torch.strided or not noise.is_floating_point():
        raise UserError(f"'{path}' holds a tensor of {noise.dtype}; a noise is a float tensor (1, C, H, W)")
    if noise.ndim != 4 or len(noise) != 1 or noise.numel() == 0:
        raise UserError(f"'{path}' holds a tensor of the shape {tuple(noise.shape)}; a noise has (1, C, H, W)")
    noise = noise.detach().float()
    if not noise.isfinite().all():
        raise UserError(f"'{path}' holds numbers that are not finite (NaN or infinite); make it again")
    return noise
