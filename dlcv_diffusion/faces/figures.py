"""Problem 2's figures: noises × η, slerp and lerp between two noises, a grid between four, and lengths between.

Each takes a face denoiser and noises, the course's files or seeds, and says below what it was made with.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..denoiser import Denoiser
from ..errors import check
from ..figures import image_grid, line_plot, save_figure
from ..files import staging_folder
from ..interpolation import corner_grid, lerp, slerp
from ..noise import seeded_noise
from .sampling import PAPER, FaceSampling, check_noises, sample_faces, seeds_of

ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ALPHAS = tuple(step / 10 for step in range(11))


def noises_of(denoise: Denoiser, seeds: Sequence[int]) -> Tensor:
    """x_T, (B, C, H, W) on the CPU, of the denoiser's image size: the noises that stand in for the course's files.

    Raises `UserError` where the denoiser has no image size of its own.

    >>> noises_of(load_denoiser("faces"), seeds=range(4)).shape   # doctest: +SKIP
    torch.Size([4, 1, 64, 64])
    """
    check(denoise.shape, "this denoiser takes images of any size; give noises of the size you want")
    return seeded_noise((len(seeds), *denoise.shape), seeds)


def eta_figure(
    denoise: Denoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    etas: Sequence[float] = ETAS,
    seeds: Sequence[int] | None = None,
    config: FaceSampling = PAPER,
):
    """The report's grid: a column for each noise, a row for each η (DDIM, arXiv 2010.02502, eq. 12 and 16).

    - noises: x_T (N, C, H, W), such as the course's 00.pt … 03.pt; by default drawn from `seeds`.
    - names: what the noises are called, such as their files' names; by default after their seeds.
    - etas: one for each row, in [0, 1].
    - seeds: one for each noise, 0 … 3 by default, also of its fresh noise z, which is the same in every row: only η
      makes the difference. Given noises take z after their names, as `faces.write_hw2_faces` does.
    - config: steps and conventions, such as `PRESETS["course"]`; its eta gives way to `etas`.
    - Returns a matplotlib `Figure`, its facts below it.

    Raises `UserError` for noises of another size than the denoiser's, another number of names, or as `ddim` does.

    >>> eta_figure(load_denoiser("faces")).savefig("eta.png")   # doctest: +SKIP
    """
    x_T, names, seeds, facts = _noises(denoise, noises, names, range(4) if noises is None and seeds is None else seeds)
    rows = torch.stack([sample_faces(denoise, x_T, replace(config, eta=eta), seeds=seeds) for eta in etas])
    return image_grid(
        rows,
        [f"η = {eta:g}" for eta in etas],
        [f"noise {name}" for name in names],
        "DDIM: what η does",
        "A column is one noise $x_T$, and the same fresh noise z in all its rows",
        facts={**config.facts(), **facts, "eta": list(etas), **({} if noises is None else {"seeds_of_z": list(seeds)})},
    )


def interpolation_figure(
    denoise: Denoiser,
    between: Callable[[Tensor, Tensor, Any], Tensor] = slerp,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    alphas: Sequence[float] = ALPHAS,
    seeds: Sequence[int] = (0, 1),
    config: FaceSampling = PAPER,
):
    """The report's row: faces from noises between two, α = 0 … 1, at η = 0.

    - between: `slerp` or `lerp`.
    - noises: x_T (2, C, H, W), such as the course's 00.pt and 01.pt; by default drawn from the two `seeds`.
    - alphas: one for each face; beyond [0, 1] is allowed.
    - config: steps and conventions; its eta gives way to 0.
    - names, Returns, Raises: as `eta_figure`, and as `between`.

    >>> interpolation_figure(load_denoiser("faces"), lerp).savefig("lerp.png")   # doctest: +SKIP
    """
    x_T, _, _, facts = _noises(denoise, noises, names, seeds, count=2)
    name, config = between.__name__, replace(config, eta=0.0)
    return image_grid(
        sample_faces(denoise, between(x_T[:1], x_T[1:], alphas), config),
        column_labels=[f"{alpha:g}" for alpha in alphas],
        title={"slerp": "slerp: along the sphere", "lerp": "lerp: along the straight line"}.get(name, name),
        caption="Columns: α",
        facts={**config.facts(), **facts, "interpolation": name},
    )


def corner_figure(
    denoise: Denoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    seeds: Sequence[int] = range(4),
    rows: int = 5,
    columns: int = 7,
    config: FaceSampling = PAPER,
):
    """Faces between four: slerp down the left and right edges of a grid, then across every row, at η = 0.

    - noises: x_T (4, C, H, W): top left, top right, bottom left, bottom right; by default drawn from the four `seeds`.
    - rows, columns: faces down and across, at least 2.
    - config: steps and conventions; its eta gives way to 0.
    - names, Returns, Raises: as `eta_figure`, and as `corner_grid`.

    >>> corner_figure(load_denoiser("faces"), seeds=[0, 1, 2, 3]).savefig("corners.png")   # doctest: +SKIP
    """
    x_T, _, _, facts = _noises(denoise, noises, names, seeds, count=4)
    config = replace(config, eta=0.0)
    faces = sample_faces(denoise, corner_grid(x_T, rows, columns).flatten(0, 1), config)
    return image_grid(
        faces.unflatten(0, (rows, columns)),
        title="Between four faces",
        caption="The corners are the four noises, row by row; slerp down the edges, then across the rows",
        facts={**config.facts(), **facts, "interpolation": "slerp"},
    )


def norm_figure(
    denoise: Denoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    alphas: Sequence[float] | None = None,
    seeds: Sequence[int] = (0, 1),
):
    """The length of the interpolated noise over √D against α: measured on the noises themselves, for both.

    - noises: x_T (2, C, H, W); by default drawn from the two `seeds`. alphas: 51 from 0 to 1 by default.
    - The band is the shortest and the longest of 1,000 other noises of that size. Nothing is drawn by the model.
    - names, Returns, Raises: as `eta_figure`, and as `lerp` and `slerp`.

    >>> norm_figure(load_denoiser("faces")).savefig("norms.png")   # doctest: +SKIP
    """
    x_T, _, _, facts = _noises(denoise, noises, names, seeds, count=2)
    alphas = [step / 50 for step in range(51)] if alphas is None else list(alphas)
    size = x_T[0].numel()
    lengths = {
        between.__name__: (between(x_T[:1], x_T[1:], alphas).flatten(1).norm(dim=1) / size**0.5).tolist()
        for between in (slerp, lerp)
    }
    others = torch.cat([seeded_noise((1, size), [seed]).norm(dim=1) for seed in range(10**6, 10**6 + 1000)]) / size**0.5
    return line_plot(
        alphas,
        lengths,
        "α",
        "length of the noise / √D",
        "How long is the noise between two noises?",
        f"Measured; D = {size:,}. Band: the shortest and the longest of 1,000 other noises",
        band=(others.min().item(), others.max().item()),
        band_label="1,000 noises",
        facts=facts,
    )


def write_face_figures(
    out: str | Path,
    denoise: Denoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    config: FaceSampling = PAPER,
    progress: bool = False,
) -> list[Path]:
    """All the report's figures for Problem 2 as PNG files in `out`; returns their paths.

    - noises: x_T (N, C, H, W), N ≥ 4, such as the course's, of which the first four are taken; by default drawn from
      the seeds `seed` and the next three.
    - names: what the noises are called, such as their files' names.
    - seed: for the z of η > 0 a given noise takes `seed` plus its number, as in `faces.write_hw2_faces`.
    - config: steps and conventions, such as `PRESETS["course"]`; the figures have η of their own.

    The files appear when all of them are drawn. Raises `UserError` where `out` cannot be written, or for fewer noises.

    >>> write_face_figures("figures", load_denoiser("faces"))   # doctest: +SKIP
    """
    if noises is not None:
        check_noises(denoise, noises)
        check(len(noises) >= 4, f"Problem 2's figures need four noises, not {len(noises)}; give 00.pt … 03.pt")
        names = [f"{number:02d}" for number in range(len(noises))] if names is None else names
    seeds = list(range(seed, seed + 4)) if noises is None else seeds_of(names, seed)[:4]
    four, two = ({"noises": None if noises is None else noises[:n], "seeds": seeds[:n]} for n in (4, 2))
    if names is not None:
        four["names"], two["names"] = names[:4], names[:2]

    def figures() -> Iterator[tuple[str, Any]]:
        yield "faces_eta_grid.png", eta_figure(denoise, **four, config=config)
        for between in (slerp, lerp):
            yield f"faces_{between.__name__}.png", interpolation_figure(denoise, between, **two, config=config)
        yield "faces_norms.png", norm_figure(denoise, **two)
        yield "faces_corners.png", corner_figure(denoise, **four, config=config)

    written = []
    with staging_folder(out) as staging:
        for name, figure in tqdm(figures(), total=5, unit="figure", disable=None if progress else True):
            written.append(save_figure(figure, staging / name))
    return [Path(out) / path.name for path in written]


def _noises(
    denoise: Denoiser,
    noises: Tensor | None,
    names: Sequence[str] | None,
    seeds: Sequence[int] | None,
    count: int | None = None,
) -> tuple[Tensor, Sequence[str], Sequence[int], dict[str, Any]]:
    """The noises, what each is called, a seed of z for each, and the facts that stand below a figure of them."""
    given = len(seeds if noises is None else noises)
    fits = count in (None, given)
    check(fits, f"this figure is drawn between {count} noises, not {given}; give {count} of them, or of seeds")
    if noises is None:
        noises, which = noises_of(denoise, seeds), {"seeds": list(seeds)}
        names = [f"{seed:02d}" for seed in seeds]
    else:
        check_noises(denoise, noises)
        names = [f"{number:02d}" for number in range(len(noises))] if names is None else list(names)
        check(len(names) == len(noises), f"{len(names)} names for {len(noises)} noises; give one for each")
        seeds, which = seeds_of(names) if seeds is None else seeds, {"noises": names}
    return noises, names, seeds, {**which, "weights": denoise.name or type(denoise.model).__name__}
