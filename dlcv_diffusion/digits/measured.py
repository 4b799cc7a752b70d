"""What was measured of the shipped digits, and what they drew while they were trained, for notebooks to show.

`tools/measure_digits.py` and `tools/make_milestones.py` write the files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, Field
from torch import Tensor
from typing_extensions import TypedDict

from ..declared import validated
from ..errors import UserError, check
from ..evaluation.measured import Row, read_rows
from ..models.registry import ASSETS
from .course import HALF_FOLDERS

MEASURED = ASSETS / "digits_measured.json"
MILESTONES = ASSETS / "digits_milestones.png"


class MeasuredHalf(TypedDict):
    """What a `HalfReport` holds; null where too few images were measured."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)
    accuracy: Annotated[float, Field(ge=0, le=1)]
    frechet_ratio: float | None


class MeasuredDigits(TypedDict):
    """A row of measurements: its settings, and what was found, by half ("mnistm", "svhn")."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)
    sampler: str
    steps: int
    w: float
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    halves: dict[str, MeasuredHalf]
    names: NotRequired[dict[str, str]]
    signal_leak: NotRequired[bool]


def measured_digits(path: str | Path = MEASURED, **settings: Any) -> list[Row]:
    """The rows of measurements, each with `sampler`, `steps`, `w`, `interval` (noise levels, or None), `signal_leak`,
    `per_class`, `seconds`, `halves`: "mnistm" and "svhn", each what a `HalfReport` holds, as plain JSON; and `names`,
    what the halves are called after the data that the weights were trained on.

    - settings: only rows with these values, such as sampler="dpm_solver", steps=20, w=2.0, interval=None.

    Raises `UserError` where the file is missing or holds something else.

    >>> max(row["halves"]["mnistm"]["accuracy"] for row in measured_digits()) > 0.9
    True
    """
    rows = [{"signal_leak": True, **row} for row in read_rows(path, MeasuredDigits, "tools/measure_digits.py")]
    return [row for row in rows if all(row.get(name) == value for name, value in settings.items())]


def both_halves(rows: Sequence[Row], what: str, form: str = "") -> list[str]:
    """A number of both halves of each row, "first | second", in a format such as ".1%"; "–" where it is missing.

    >>> both_halves([{"halves": {"mnistm": {"recall": 0.5}, "svhn": {"recall": None}}}], "recall", ".2f")
    ['0.50 | –']
    """
    found = [[row["halves"].get(half, {}).get(what) for half in HALF_FOLDERS] for row in rows]
    return [" | ".join("–" if value is None else format(value, form) for value in values) for values in found]


def guidance_sweep(
    rows: Sequence[Row],
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
    *,
    sampler: str = "dpm_solver",
    steps: int = 20,
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
    wanted = {name: levels and list(levels) for name, levels in (intervals or {"": None}).items()}
    rows = [row for row in rows if (row["sampler"], row["steps"]) == (sampler, steps) and row.get("signal_leak", True)]
    found = {
        (row["w"], name): row["halves"]
        for name, levels in wanted.items()
        for row in rows
        if row["interval"] == (levels if row["w"] else None)
    }
    settings = f"sampler '{sampler}' in {steps} steps and guidance in {list(wanted.values())}"
    check(found, f"nothing was measured with {settings}")
    called = rows[0].get("names", {})
    weights = sorted({w for w, _ in found})
    accuracy, distance = {}, {}
    for name in wanted:
        for half in HALF_FOLDERS:
            values, label = [found.get((w, name), {}).get(half, {}) for w in weights], called.get(half, half) + name
            # as floats, what is None, or not there, is NaN
            accuracy[label] = np.array([value.get("accuracy") for value in values], float).tolist()
            distance[label] = np.array([value.get("frechet_ratio") for value in values], float).tolist()
    return {"w": weights, "accuracy": accuracy, "distance": distance}


def milestones(path: str | Path = MILESTONES) -> tuple[list[int], list[int], Tensor]:
    """Steps, labels, and images uint8 (steps, labels, 3, 28, 28): what the shipped weights drew as they were trained.

    12 steps of DPM-Solver++, w = 2, by the averaged weights; each label has its own noise, the same throughout a run.
    `tools/make_milestones.py` makes the file from the previews of a training run.

    Raises `UserError` where the file is missing or is none of ours.

    >>> steps, labels, images = milestones()
    >>> images.shape[:2] == (len(steps), len(labels))
    True
    """
    try:
        with Image.open(path) as image:
            facts = validated(dict[str, list[int]], json.loads(image.info["Facts"]), f"'{path}'")
            sheet = np.array(image.convert("RGB"))
        tiles = sheet.reshape(len(facts["steps"]), 28, len(facts["labels"]), 28, 3)
    except (OSError, KeyError, TypeError, ValueError, RecursionError, SyntaxError) as error:
        raise UserError(f"no milestones at '{path}'; make them with tools/make_milestones.py") from error
    return facts["steps"], facts["labels"], torch.from_numpy(tiles).permute(0, 2, 4, 1, 3).contiguous()
