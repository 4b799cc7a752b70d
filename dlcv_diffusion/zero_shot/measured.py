"""What was measured of the shipped CLIP, for notebooks to show. `tools/measure_clip.py` writes the file."""

from pathlib import Path

from pydantic import ConfigDict
from typing_extensions import TypedDict

from ..evaluation.measured import Row, read_rows
from ..models.registry import ASSETS

MEASURED = ASSETS / "emoji_clip_measured.json"


class Answer(TypedDict):
    accuracy: float
    calibration_error: float


class MeasuredClip(TypedDict):
    """A row of measurements: what was asked, of a CLIP that was trained on these artists, and the answer."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)
    question: str
    trained: list[str]
    ways: int
    chance: float
    count: int
    single: Answer
    ensemble: Answer


def measured_clip(path: str | Path = MEASURED) -> list[Row]:
    """The rows of measurements, as `measure.ask` gives them, with `trained`: the artists that were trained on.

    Rows of a question about an artist are those of a run that left this artist out; its weights do not ship.

    Raises `UserError` where the file is missing or holds something else.

    >>> measured_clip()[0]["question"]   # doctest: +SKIP
    'unseen scenes, all things'
    """
    return read_rows(path, MeasuredClip, "tools/measure_clip.py")
