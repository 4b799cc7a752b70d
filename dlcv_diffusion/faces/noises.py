"""Noises in files, as the course gives them: `00.pt, 01.pt, …`, each a float tensor (1, C, H, W) from N(0, I)."""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import check
from ..files import staging_folder
from ..images.folders import names_in
from ..noise import seeded_noise
from ..tensors import load_tensors, stored

COURSE_SHAPE = (1, 3, 256, 256)


def write_noises(out: str | Path, seeds: Iterable[int], shape: Sequence[int] = COURSE_SHAPE) -> list[Path]:
    """Write a noise for each seed, named after it: `00.pt` is `seeded_noise(shape, [0])`. Returns the paths.

    - shape: (1, C, H, W); the course's by default.

    The files appear when all of them are written; files of the same names are replaced. Raises `UserError` for another
    shape, seeds that are out of range, twice the same or none, and where `out` cannot be written.

    >>> write_noises("noise", seeds=range(10))   # doctest: +SKIP
    """
    seeds, shape = list(seeds), tuple(shape)
    fits = len(shape) == 4 and shape[0] == 1 and min(shape) >= 1
    check(fits, f"a noise has the shape (1, C, H, W), such as {COURSE_SHAPE}, not {shape}")
    check(seeds, "there are no seeds to make noises from; give some, such as 0-9")
    seed, count = Counter(seeds).most_common(1)[0]
    check(count == 1, f"seed {seed} is given more than once; each noise has a file named after its seed")
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
    names = names_in(folder, "give a folder with noises, 00.pt …, or make one with `dlcv noise`")
    paths = [Path(folder) / name for name in names if name.lower().endswith(".pt")]
    check(paths, f"'{folder}' holds no noises (00.pt, 01.pt, …); make some with `dlcv noise`")
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
    sizes = ["×".join(map(str, noise.shape[1:])) for noise in noises]
    for path, size in zip(paths, sizes, strict=True):
        same = size == sizes[0]
        check(same, f"'{path}' is {size}, but '{paths[0].name}' is {sizes[0]}; a folder holds noises of one size")
    return torch.cat(noises)


def _read_noise(path: Path) -> Tensor:
    noise, wanted = load_tensors(path, "a plain tensor"), "a noise is a float tensor (1, C, H, W)"
    check(isinstance(noise, Tensor), f"'{path}' holds no tensor by itself; {wanted}")
    plain = stored(noise) and not noise.is_nested
    check(plain, f"'{path}' holds a sparse, nested, empty (meta) or expanded tensor; {wanted}, a number for each pixel")
    check(noise.is_floating_point(), f"'{path}' holds a tensor of {noise.dtype}; {wanted}")
    fits = noise.ndim == 4 and len(noise) == 1 and noise.numel() > 0
    check(fits, f"'{path}' holds a tensor of the shape {tuple(noise.shape)}; a noise has (1, C, H, W)")
    noise = noise.detach().float()
    check(noise.isfinite().all(), f"'{path}' holds numbers that are not finite (NaN or infinite); make it again")
    return noise
