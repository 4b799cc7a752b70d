"""Problem 2's figures: noises × η, slerp and lerp between two noises, a grid between four, and lengths between.

Each takes a face denoiser and noises, the course's files or seeds, and says below what it was made with.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .faces import check_noises, device_of
from .files import staging_folder
from .interpolation import corner_grid, lerp, slerp
from .noise import seeded_noise
from .prediction import EpsDenoiser
from .samplers import ddim, last

ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
ALPHAS = tuple(step / 10 for step in range(11))
BATCH = 16  # faces at a time: of 256×256 pixels in colour these fill a gigabyte or two


def noises_of(denoise: EpsDenoiser, seeds: Sequence[int]) -> Tensor:
    """x_T, (B, C, H, W) on the CPU, of the denoiser's image size: the noises that stand in for the course's files.

    Raises `UserError` where the denoiser has no image size of its own.

    >>> noises_of(face_denoiser("faces"), seeds=range(4)).shape   # doctest: +SKIP
    torch.Size([4, 1, 64, 64])
    """
    if denoise.image_size is None:
        raise UserError("this denoiser takes images of any size; give noises of the size you want")
    return seeded_noise((len(seeds), *denoise.image_size), seeds)


def draw(
    denoise: EpsDenoiser, x_T: Tensor, *, steps: int = 50, eta: float = 0.0, seeds: Sequence[int] | None = None
) -> Tensor:
    """Faces (B, C, H, W) on the CPU from noises of that shape, by DDIM, a few at a time on the model's device.

    - x_T: (B, C, H, W) from N(0, I). steps: of the schedule's timesteps. eta: η in [0, 1].
    - seeds: one for each noise, for the z of η > 0; 0, 1, 2, … by default.
    - Returns x as the sampler leaves it, mostly in [−1, 1]: `to_uint8` or `.clamp(-1, 1)` cuts off what is outside.

    Raises `UserError` as `ddim` does, for steps or η out of range.

    >>> draw(denoise, noises_of(denoise, range(4)), steps=20).shape   # doctest: +SKIP
    torch.Size([4, 1, 64, 64])
    """
    seeds = range(len(x_T)) if seeds is None else seeds
    device = device_of(denoise)
    parts = []
    for first in range(0, len(x_T), BATCH):
        part = slice(first, first + BATCH)
        walk = ddim(denoise, x_T[part].to(device), denoise.schedule, steps=steps, eta=eta, seeds=seeds[part])
        parts.append(last(walk).x.cpu())
    return torch.cat(parts)


def eta_figure(
    denoise: EpsDenoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    etas: Sequence[float] = ETAS,
    seeds: Sequence[int] = range(4),
    steps: int = 50,
):
    """The report's grid: a column for each noise, a row for each η (DDIM, arXiv 2010.02502, eq. 12 and 16).

    - noises: x_T (N, C, H, W), such as the course's 00.pt … 03.pt; by default drawn from `seeds`.
    - names: what the noises are called, such as their files' names; by default after their seeds.
    - etas: one for each row, in [0, 1].
    - seeds: N of them, also for the fresh noise z, the same in every row: only η makes the difference.
    - Returns a matplotlib `Figure`, its facts below it.

    Raises `UserError` for noises of another size than the denoiser's, another number of names, or as `ddim` does.

    >>> eta_figure(face_denoiser("faces")).savefig("eta.png")   # doctest: +SKIP
    """
    from .figures import image_grid

    x_T, names, seeds, facts = _noises(denoise, noises, names, seeds, steps)
    rows = torch.stack([draw(denoise, x_T, steps=steps, eta=eta, seeds=seeds) for eta in etas])
    return image_grid(
        rows,
        [f"η = {eta:g}" for eta in etas],
        [f"noise {name}" for name in names],
        "DDIM: what η does",
        "A column is one noise $x_T$, and the same fresh noise z in all its rows",
        facts={**facts, "eta": list(etas)},
    )


def interpolation_figure(
    denoise: EpsDenoiser,
    between: Callable[[Tensor, Tensor, Any], Tensor] = slerp,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    alphas: Sequence[float] = ALPHAS,
    seeds: Sequence[int] = (0, 1),
    steps: int = 50,
):
    """The report's row: faces from noises between two, α = 0 … 1, at η = 0.

    - between: `slerp` or `lerp`.
    - noises: x_T (2, C, H, W), such as the course's 00.pt and 01.pt; by default drawn from the two `seeds`.
    - alphas: one for each face; beyond [0, 1] is allowed.
    - names, Returns, Raises: as `eta_figure`, and as `between`.

    >>> interpolation_figure(face_denoiser("faces"), lerp).savefig("lerp.png")   # doctest: +SKIP
    """
    from .figures import image_grid

    x_T, _, _, facts = _noises(denoise, noises, names, seeds, steps)
    name = between.__name__
    return image_grid(
        draw(denoise, between(x_T[:1], x_T[1:2], alphas), steps=steps),
        column_labels=[f"{alpha:g}" for alpha in alphas],
        title={"slerp": "slerp: along the sphere", "lerp": "lerp: along the straight line"}.get(name, name),
        caption="Columns: α",
        facts={**facts, "eta": 0.0, "interpolation": name},
    )


def corner_figure(
    denoise: EpsDenoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    seeds: Sequence[int] = range(4),
    rows: int = 5,
    columns: int = 7,
    steps: int = 50,
):
    """Faces between four: slerp down the left and right edges of a grid, then across every row, at η = 0.

    - noises: x_T (4, C, H, W): top left, top right, bottom left, bottom right; by default drawn from the four `seeds`.
    - rows, columns: faces down and across, at least 2.
    - names, Returns, Raises: as `eta_figure`, and as `corner_grid`.

    >>> corner_figure(face_denoiser("faces"), seeds=[0, 1, 2, 3]).savefig("corners.png")   # doctest: +SKIP
    """
    from .figures import image_grid

    x_T, _, _, facts = _noises(denoise, noises, names, seeds, steps)
    faces = draw(denoise, corner_grid(x_T, rows, columns).flatten(0, 1), steps=steps)
    return image_grid(
        faces.unflatten(0, (rows, columns)),
        title="Between four faces",
        caption="The corners are the four noises; slerp down the edges, then across the rows",
        facts={**facts, "eta": 0.0, "interpolation": "slerp"},
    )


def norm_figure(
    denoise: EpsDenoiser,
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

    >>> norm_figure(face_denoiser("faces")).savefig("norms.png")   # doctest: +SKIP
    """
    from .figures import line_plot

    x_T, _, _, facts = _noises(denoise, noises, names, seeds, None)
    alphas = [step / 50 for step in range(51)] if alphas is None else list(alphas)
    size = x_T[0].numel()
    lengths = {
        between.__name__: (between(x_T[:1], x_T[1:2], alphas).flatten(1).norm(dim=1) / size**0.5).tolist()
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
    denoise: EpsDenoiser,
    noises: Tensor | None = None,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    steps: int = 50,
    progress: bool = False,
) -> list[Path]:
    """All the report's figures for Problem 2 as PNG files in `out`; returns their paths.

    - noises: x_T (N, C, H, W), N ≥ 4, such as the course's; by default drawn from the seeds `seed` and the next three.
    - names: what the noises are called, such as their files' names.

    The files appear when all of them are drawn. Raises `UserError` where `out` cannot be written, or for fewer noises.

    >>> write_face_figures("figures", face_denoiser("faces"))   # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    from .figures import save_figure

    if noises is not None and len(noises) < 4:
        raise UserError(f"Problem 2's figures need four noises, not {len(noises)}; give 00.pt … 03.pt")
    if noises is not None:
        check_noises(denoise, noises)
    seeds = range(seed, seed + 4)
    four, two = (None, None) if noises is None else (noises[:4], noises[:2])
    four_names, two_names = (None, None) if names is None else (names[:4], names[:2])

    def figures() -> Iterator[tuple[str, Any]]:
        yield "faces_eta_grid.png", eta_figure(denoise, four, names=four_names, seeds=seeds, steps=steps)
        for between in (slerp, lerp):
            figure = interpolation_figure(denoise, between, two, names=two_names, seeds=seeds[:2], steps=steps)
            yield f"faces_{between.__name__}.png", figure
        yield "faces_norms.png", norm_figure(denoise, two, names=two_names, seeds=seeds[:2])
        yield "faces_corners.png", corner_figure(denoise, four, names=four_names, seeds=seeds, steps=steps)

    names = []
    with staging_folder(out) as staging:
        for name, figure in tqdm(figures(), total=5, unit="figure", disable=None if progress else True):
            save_figure(figure, staging / name)
            names.append(name)
    return [Path(out) / name for name in names]


def _noises(
    denoise: EpsDenoiser,
    noises: Tensor | None,
    names: Sequence[str] | None,
    seeds: Sequence[int],
    steps: int | None,
) -> tuple[Tensor, Sequence[str], Sequence[int], dict[str, Any]]:
    """The noises, what each is called, a seed for each, and the facts that stand below a figure of them."""
    if noises is None:
        noises, which = noises_of(denoise, seeds), {"seeds": list(seeds)}
        names = [f"{seed:02d}" for seed in seeds]
    else:
        check_noises(denoise, noises)
        names = [f"{number:02d}" for number in range(len(noises))] if names is None else list(names)
        if len(names) != len(noises):
            raise UserError(f"{len(names)} names for {len(noises)} noises; give one for each")
        seeds, which = range(len(noises)), {"noises": names}
    sampler = {} if steps is None else {"sampler": "ddim", "steps": steps}
    return noises, names, seeds, {**sampler, **which, "weights": denoise.name or type(denoise.model).__name__}
