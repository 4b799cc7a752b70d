"""What a slider goes through, in plain numbers."""

import math
import operator
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import check
from .panel import Field


@dataclass
class Control:
    """One slider, with a box into which a number is typed; words are chosen from a list.

    - values: words, or numbers of any type, see `plain_number`. start: one of them, the first by default.
    - description: the words before it. label: how a value is written behind it.
    - live: draw while it is dragged, not only when it is let go.
    - play: a button that runs through the values. buttons: one for each value instead of a slider.
    - between: numbers between the values may be typed, too, whole ones where all values are. most: the largest that may
      be typed, by default the largest value. random: a button for any whole number below 10,000, such as of a seed.
    - symbol: its name in the still picture, by default the keyword.

    Raises `UserError` for a slider without values, or with a start that is none of them.
    """

    values: Iterable[Any]
    description: str
    label: Callable[[Any], str] = "{:g}".format
    start: Any = None
    live: bool = True
    play: bool = False
    buttons: bool = False
    between: bool = True
    most: float | None = None
    random: bool = False
    symbol: str = ""

    def __post_init__(self) -> None:
        self.values = [plain_number(value) for value in self.values]
        check(self.values, f"the slider '{self.description}' has no values to go through; give some")
        self.start = self.values[0] if self.start is None else self.find(self.start)
        fits = self.start in self.values
        check(fits, f"the slider '{self.description}' cannot start at {self.start}; choose one of its values")

    @property
    def numeric(self) -> bool:
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def field(self) -> Field:
        """What the panel draws of it."""
        slides = self.numeric and not self.buttons
        return Field(
            kind="range" if slides else "choice" if self.buttons or len(self.values) < 5 else "select",
            label=self.description,
            values=self.values,
            texts=[self.label(value) for value in self.values],
            most=self.most,
            between=self.between,
            whole=slides and all(isinstance(value, int) for value in self.values),
            live=self.live,
            play=self.play,
            random=self.random,
        )

    def find(self, wanted: Any) -> Any:
        """The slider's value that is meant, up to rounding; `wanted` as a plain number where there is none."""
        wanted = plain_number(wanted)
        for value in self.values:
            floats = isinstance(value, float) and isinstance(wanted, float)
            if value == wanted or (floats and math.isclose(value, wanted, rel_tol=1e-5)):
                return value
        return wanted


def plain_number(value: Any) -> Any:
    """A number of any type as Python's int or float, free of rounding errors; anything else as it is.

    >>> import numpy as np
    >>> [plain_number(value) for value in (np.arange(0, 1, 0.05)[3], np.float64(20), "slerp")]
    [0.15, 20, 'slerp']
    """
    if isinstance(value, bool | str):
        return value
    with suppress(TypeError):
        return operator.index(value)
    digits = {2: 3, 4: 6}.get(getattr(value, "itemsize", 8), 12)  # of half, single and double precision
    try:
        number = float(f"{float(value):.{digits}g}")
        number = 0.0 if abs(number) < 1e-7 and digits < 12 or abs(number) < 1e-15 else number  # what is left of 0
    except (TypeError, ValueError):
        return value
    return int(number) if number.is_integer() else number
