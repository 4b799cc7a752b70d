"""What a zero-shot classification found: numbers, cases for a report, and a table of every picture."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import check
from ..evaluation.accuracy import Accuracy
from ..evaluation.calibration import expected_calibration_error
from ..figures import text_table
from ..files import atomic_write
from ..training.objective import generator_of

MOST_CLASSES, SOME_CLASSES = 60, 20
"""So many classes are all listed; of more, the lowest few."""


@dataclass(frozen=True)
class Case:
    """One picture: its file, the class that was read, the true one, and the most probable ones, the first first."""

    file: str
    predicted: str
    true: str
    top: tuple[tuple[str, float], ...]

    @property
    def right(self) -> bool:
        return self.predicted == self.true


@dataclass(frozen=True, kw_only=True)
class ZeroShotResult(Accuracy):
    """`Accuracy`, and what it was counted from.

    - classes: their names; files, labels (N,) int64, predictions (N,) int64, probabilities (N, K) float32: by picture.
    - unreadable: files that could not be read, and why; they are in none of the others, nor in `count`.
    - model, templates, source, seconds: how it was made; notes: what a reader should know of the model.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    predictions: Tensor = field(repr=False)
    probabilities: Tensor = field(repr=False)
    templates: tuple[str, ...]
    unreadable: dict[str, str] = field(default_factory=dict)
    model: str = ""
    source: str = ""
    notes: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def chance(self) -> float:
        """The accuracy of guessing."""
        return 1 / len(self.classes)

    @property
    def calibration_error(self) -> float:
        """ECE, see `evaluation.calibration`."""
        return expected_calibration_error(self.probabilities, self.labels)

    def top_k(self, k: int = 5) -> float:
        """The share of pictures whose class is among the k most probable.

        >>> found.top_k(5)   # doctest: +SKIP
        0.84
        """
        check(1 <= k <= len(self.classes), f"k is {k}; of {len(self.classes)} classes it is 1 to {len(self.classes)}")
        return (self.probabilities.topk(k).indices == self.labels[:, None]).any(1).double().mean().item()

    def case(self, row: int, top: int = 5) -> Case:
        """The picture of a row, with its `top` most probable classes."""
        probabilities, places = self.probabilities[row].topk(min(top, len(self.classes)))
        named = zip(places.tolist(), probabilities.tolist(), strict=True)
        read, true = (self.classes[int(each[row])] for each in (self.predictions, self.labels))
        return Case(self.files[row], read, true, tuple((self.classes[place], value) for place, value in named))

    def cases(self, right: int = 5, wrong: int = 5, seed: int = 0, top: int = 5) -> list[Case]:
        """Some pictures that were read right, then some that were not, chosen at random by `seed`; fewer where there
        are fewer.

        >>> [(case.file, case.predicted, case.true) for case in found.cases(right=5, wrong=5)]   # doctest: +SKIP
        """
        hit, chosen = self.predictions == self.labels, []
        for among, count, key in ((hit, right, 0), (~hit, wrong, 1)):
            rows = among.nonzero().flatten()
            order = torch.randperm(len(rows), generator=generator_of(seed, key))
            chosen += rows[order[:count]].tolist()
        return [self.case(row, top) for row in chosen]

    def most_confused(self, count: int = 10) -> list[tuple[str, str, int]]:
        """The pairs (true class, class read, how often), the most frequent first.

        >>> found.most_confused(1)   # doctest: +SKIP
        [('maple tree', 'oak tree', 21)]
        """
        table = torch.tensor(self.confusion).fill_diagonal_(0).flatten()
        order = torch.argsort(table, descending=True, stable=True)[:count].tolist()
        pairs = [(*divmod(place, len(self.classes)), int(table[place])) for place in order if table[place]]
        return [(self.classes[true], self.classes[read], times) for true, read, times in pairs]

    def write_csv(self, path: str | Path) -> None:
        """Every picture, a row each: file, class read, true class, right, and the probabilities of both; atomic.

        Raises `UserError` where it cannot be written.

        >>> found.write_csv("predictions.csv")   # doctest: +SKIP
        """
        rows = [["file", "predicted", "true", "right", "probability", "probability_of_true"]]
        for row, (read, true) in enumerate(zip(self.predictions.tolist(), self.labels.tolist(), strict=True)):
            found = [f"{self.probabilities[row, place].item():.6f}" for place in (read, true)]
            rows.append([self.files[row], self.classes[read], self.classes[true], int(read == true), *found])
        _write_rows(path, [*rows, *([name, "", "", "", "", ""] for name in self.unreadable)])

    def write_cases(self, path: str | Path, right: int = 5, wrong: int = 5, seed: int = 0) -> None:
        """The table of `report_table` as CSV; atomic. Raises `UserError` where it cannot be written.

        >>> found.write_cases("cases.csv")   # doctest: +SKIP
        """
        rows = [[case.file, case.predicted, case.true, int(case.right)] for case in self.cases(right, wrong, seed)]
        _write_rows(path, [["file", "predicted", "true", "right"], *rows])

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON, without what is kept for each picture."""
        per_class = {name: None if x != x else x for name, x in zip(self.classes, self.per_class, strict=True)}
        found = {"accuracy": self.accuracy, "top_5": self.top_k(min(5, len(self.classes))), "chance": self.chance}
        found |= {"calibration_error": self.calibration_error, "count": self.count, "classes": len(self.classes)}
        return {**found, "model": self.model, "templates": list(self.templates), "per_class": per_class}

    def report_table(self, right: int = 5, wrong: int = 5, seed: int = 0) -> str:
        """The table that the homework asks for: file name, predicted, true, of `cases`."""
        cases = self.cases(right, wrong, seed)
        columns = {"file": [case.file for case in cases], "predicted": [case.predicted for case in cases]}
        return text_table({**columns, "true": [case.true for case in cases], "": [_mark(case) for case in cases]})

    def __str__(self) -> str:
        """Accuracy, classes and confusions as a page of text."""
        how = f"{len(self.templates)} templates" if len(self.templates) > 1 else repr(self.templates[0])
        lines = [f"{self.model} on {self.source}: {self.count:,} pictures, {len(self.classes)} classes, {how}"]
        found = (
            f"accuracy {self.accuracy:.2%} (chance {self.chance:.1%}), calibration error {self.calibration_error:.3f}"
        )
        lines += [found, *(f"note: {note}" for note in self.notes)]
        if self.unreadable:
            name, said = next(iter(self.unreadable.items()))
            count = f"{len(self.unreadable)} picture{'s' if len(self.unreadable) > 1 else ''}"
            lines.append(f"not read: {count}, such as '{name}': {said}")
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        found = sorted(zip(self.per_class, counts, self.classes, strict=True), key=lambda row: (row[0] != row[0], *row))
        by_class = [row for row in found if row[1]]
        few = by_class if len(by_class) <= MOST_CLASSES else by_class[:SOME_CLASSES]
        table = {"class": [name for *_, name in few], "accuracy": [f"{share:.1%}" for share, *_ in few]}
        lines += ["", text_table({**table, "pictures": [count for _, count, _ in few]})]
        more = f"… and {len(by_class) - len(few)} classes with more" if len(few) < len(by_class) else ""
        none = f"{len(found) - len(by_class)} classes have no picture" if len(by_class) < len(found) else ""
        lines += [line for line in (more, none) if line]
        confused = self.most_confused()
        if confused:
            true, read, times = zip(*confused, strict=True)
            lines += ["", "most confused:", text_table({"true": true, "read as": read, "times": times})]
        return "\n".join(lines)


def _write_rows(path: str | Path, rows: Sequence[Sequence[Any]]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _mark(case: Case) -> str:
    return "right" if case.right else "wrong"
