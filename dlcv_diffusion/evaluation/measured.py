"""What was measured of the shipped weights on whole sets of samples, and what they drew while they were trained, so
that a notebook can show it without the hours.

`tools/measure_digits.py` and `tools/measure_faces.py` write the files: one row for each setting.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..digits.evaluation import HALF_NAMES
from ..errors import UserError
from ..models.registry import ASSETS

MEASURED = ASSETS / "digits_measured.json"
FACES_MEASURED = ASSETS / "faces_measured.json"
MILESTONES = ASSETS / "digits_milestones.png"

Row = Mapping[str, Any]


def measured_digits(path: str | Path = MEASURED) -> list[Row]:
    """The rows of measurements, each with `sampler`, `steps`, `w`, `interval` (noise levels, or None), `signal_leak`,
    `per_class`, `seconds` and `halves`: "mnistm" and "svhn", each what a `HalfReport` holds, as plain JSON.

    Raises `UserError` where the file is missing or is none of ours.

    >>> measured_digits()[0]["halves"]["mnistm"]["accuracy"]   # doctest: +SKIP
    0.984
    """
    return _rows(path, {"sampler", "steps", "w", "interval", "halves"}, "digits")


def measured_faces(path: str | Path = FACES_MEASURED) -> list[Row]:
    """The rows of measurements, each with `sampler`, `steps`, `eta`, `seconds`, and what a `FacesReport` holds:
    `count`, `frechet`, `frechet_ratio` and `nearest`, as plain JSON.

    Raises `UserError` where the file is missing or is none of ours.

    >>> measured_faces()[0]["frechet_ratio"]   # doctest: +SKIP
    3.2
    """
    return _rows(path, {"sampler", "steps", "eta", "frechet_ratio"}, "faces")


def _rows(path: str | Path, wanted: set[str], what: str) -> list[Row]:
    path = Path(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        whole = bool(rows) and all(wanted <= set(row) for row in rows)
    except OSError as error:
        raise UserError(
            f"no measurements at '{path}'; make them with `tools/measure_{what}.py --out {path}`"
        ) from error
    except (ValueError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"'{path}' holds no measurements of {what}; make them with tools/measure_{what}.py")
    return rows


def guidance_sweep(
    rows: Sequence[Row],
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
    *,
    sampler: str = "dpm_solver",
) -> dict[str, Any]:
    """Accuracy and Fréchet ratio of both halves against w: the arguments of `figures.trade_off_plot`.

    - intervals: the noise levels within which guidance acts, None for all of them, by the name that is put behind the
      half's; all of them alone by default. w = 0 has no guidance to limit, and is the same in each.
    - Rows of samples that were started from N(0, I), without the signal leak, are left out.
    - Returns `w`, ascending; `accuracy` and `distance` by name, one value for each w, NaN where nothing was measured.
      The distance is a multiple of the one between two sets of real images.

    Raises `UserError` where no row fits.

    >>> trade_off_plot(**guidance_sweep(measured_digits()), chosen=2.0)   # doctest: +SKIP
    """
    intervals = {"": None} if intervals is None else intervals
    wanted = {name: None if levels is None else list(levels) for name, levels in intervals.items()}
    found = {
        (row["w"], None if row["w"] == 0 else name): row["halves"]
        for row in rows
        for name, levels in wanted.items()
        if row["sampler"] == sampler
        and row.get("signal_leak", True)
        and row["interval"] == (levels if row["w"] else None)
    }
    if not found:
        raise UserError(f"nothing was measured with sampler '{sampler}' and guidance in {list(wanted.values())}")
    weights = sorted({w for w, _ in found})
    accuracy, distance = {}, {}
    for name in wanted:
        halves = [found.get((w, name if w else None), {}) for w in weights]
        for half, half_name in HALF_NAMES.items():
            accuracy[half_name + name] = [_value(there, half, "accuracy") for there in halves]
            distance[half_name + name] = [_value(there, half, "frechet_ratio") for there in halves]
    return {"w": weights, "accuracy": accuracy, "distance": distance}


def milestones(path: str | Path = MILESTONES) -> tuple[list[int], list[int], Tensor]:
    """Steps, labels, and images uint8 (steps, labels, 3, 28, 28): what the shipped weights drew as they were trained.

    Each label has its own noise, the same at every step: 12 steps of DPM-Solver++, w = 2, by the averaged weights.
    `tools/make_milestones.py` makes the file from the previews of a training run.

    Raises `UserError` where the file is missing or is none of ours.

    >>> steps, labels, images = milestones()
    >>> images.shape[:2] == (len(steps), len(labels))
    True
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            facts = json.loads(image.info["Facts"])
            sheet = np.array(image.convert("RGB"))
        size = (len(facts["steps"]), 28, len(facts["labels"]), 28, 3)
        tiles = torch.from_numpy(sheet.reshape(size)).permute(0, 2, 4, 1, 3)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"no milestones at '{path}'; make them with tools/make_milestones.py") from error
    return facts["steps"], facts["labels"], tiles.contiguous()


def _value(halves: Mapping[str, Mapping[str, Any]], half: str, name: str) -> float:
    value = halves.get(half, {}).get(name)
    return math.nan if value is None else value
