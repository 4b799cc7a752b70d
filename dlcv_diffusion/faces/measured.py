"""What was measured of the shipped faces, for notebooks to show. `tools/measure_faces.py` writes the file."""

from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from ..evaluation.measured import Row, read_rows
from ..models.registry import ASSETS

MEASURED = ASSETS / "faces_measured.json"


class MeasuredFaces(TypedDict):
    """A row of measurements: its settings, and what was found."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)
    sampler: str
    steps: Annotated[int, Field(ge=1)]
    eta: Annotated[float, Field(ge=0, le=1)]
    frechet_ratio: float
    spacing: NotRequired[str]


def measured_faces(path: str | Path = MEASURED, *, spacing: str | None = "uniform") -> list[Row]:
    """The rows of measurements, each with `sampler`, `steps`, `eta`, `spacing`, `seconds`, and what a `FacesReport`
    holds: `count`, `frechet`, `frechet_ratio`, `recall` and `nearest`, as plain JSON.

    - spacing: of the timesteps, "uniform" (the DDIM paper's) or "trailing"; None for the rows of both.

    Raises `UserError` where the file is missing or holds something else.

    >>> measured_faces()[0]["frechet_ratio"] > 1
    True
    """
    rows = [{"spacing": "uniform", **row} for row in read_rows(path, MeasuredFaces, "tools/measure_faces.py")]
    return [row for row in rows if spacing in (None, row["spacing"])]
