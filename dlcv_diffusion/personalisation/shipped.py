"""What ships of personalisation: concepts of the emoji world that were learnt in advance, and their measurement."""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from ..errors import check
from ..evaluation.measured import Row, read_rows
from ..models.registry import ASSETS

CONCEPTS = ASSETS / "emoji_concepts"
MEASURED = ASSETS / "emoji_concepts_measured.json"
Share = Annotated[float, Field(ge=0, le=1)]


class MeasuredConcepts(TypedDict):
    """A row of `tools/measure_personalisation.py`, see `measure.measure`."""

    __pydantic_config__ = ConfigDict(extra="allow", allow_inf_nan=False)

    wanted: str
    way: str
    model: str
    count: int
    seed: int
    scale: float
    steps: int
    scores: list[float]
    first: Share
    second: Share
    both: Share
    both_interval: tuple[float, float]
    image: float
    text: float
    distance: float
    distance_clip: float


def shipped_concept(name: str) -> Path:
    """The file of a concept that was learnt in advance on the emoji world's model, for `load_concepts`.

    - name: "owl" (<new1>), "guitar" or "woodcut" (<new2>), by textual inversion; "owl alone" or "guitar alone", by
      Custom Diffusion; "owl guitar" or "owl woodcut", both together by it, and with " merged" behind it learnt apart
      and merged.

    Raises `UserError` for another name.

    >>> load_concepts(sd, shipped_concept("owl"))   # doctest: +SKIP
    ['<new1>']
    """
    there = sorted(path.stem.replace("_", " ") for path in CONCEPTS.glob("*.safetensors"))
    known = ", ".join(there) or "none yet"
    check(name in there, f"no concept '{name}' ships; there are {known}; train it by `dlcv personalise train`")
    return CONCEPTS / f"{name.replace(' ', '_')}.safetensors"


def measured_concepts(path: str | Path = MEASURED) -> list[Row]:
    """The rows of the measurement. Raises `UserError` for a file that is missing or another.

    >>> measured_concepts()[0]["way"]   # doctest: +SKIP
    'the initialiser'
    """
    return read_rows(path, MeasuredConcepts, "tools/measure_personalisation.py")
