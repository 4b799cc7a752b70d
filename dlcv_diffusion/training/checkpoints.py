"""What a run keeps on disk: `checkpoint.safetensors`, from which it goes on to the bit, and `metrics.csv`."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from textwrap import shorten
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from ..declared import declared, validated
from ..errors import UserError, check
from ..files import atomic_write
from ..models.registry import read_tensors, renamed, short_hash, write_tensors
from ..reading import reading
from .config import RunConfig, learning_rate

AVERAGE = "ema.module."
Row = tuple[int, float, float, float]


@declared
class Progress:
    """The header of a checkpoint: steps done, their seconds, the run's facts, and its last rows of `metrics.csv`."""

    step: Annotated[int, Field(ge=1, strict=True)]
    seconds: Annotated[float, Field(ge=0)]
    facts: dict[str, Any]
    rows: list[Row] = Field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """The file at `path` that holds all that a run goes on from: what trains of the model, its average, Adam's moments.

    - facts: the run's settings, any JSON, among them `config` as "train": a run of other settings is not gone on with.

    Raises `UserError` for facts that are not JSON.

    >>> checkpoint = Checkpoint(path, model, average, adam, config, {"train": asdict(config)})   # doctest: +SKIP
    >>> checkpoint.save(step=500, seconds=60.0)                                                  # doctest: +SKIP
    """

    path: Path
    model: nn.Module
    average: nn.Module
    adam: torch.optim.Adam
    config: RunConfig
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        try:
            json.dumps(self.facts)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"the facts of a run are kept as JSON ({error}); give other metadata") from error

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the run by its name in the file, not copied; moments that do not exist yet begin as zeros."""
        frozen, tensors = frozen_state(self.model), {}
        for prefix, module in (("model.", self.model), (AVERAGE, self.average)):
            tensors |= {prefix + name: value for name, value in module.state_dict().items() if name not in frozen}
        for index, weight in enumerate(self.adam.param_groups[0]["params"]):
            moments = self.adam.state[weight]
            if not moments:  # in the weight's memory layout, with which Adam is quicker
                moments |= {"step": torch.tensor(0.0)}
                moments |= {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return tensors

    def check_finite(self, step: int) -> None:
        """Raise `UserError` if the model or its average is not finite after `step` steps."""
        weights = (value for name, value in self.tensors().items() if not name.startswith("optimizer."))
        finite, out = all(value.isfinite().all() for value in weights), self.path.parent
        check(finite, f"the weights are not finite after step {step}; '{out}' stays as it was; lower the learning rate")

    def save(self, step: int, seconds: float, rows: Sequence[Row] = ()) -> None:
        """Write the file whole or not at all. Raises `UserError` where it cannot be written, and for NaN."""
        self.check_finite(step)
        progress = {"step": step, "seconds": seconds, "facts": self.facts, "rows": rows}
        write_tensors(self.path, self.tensors(), {"checkpoint": progress})

    def restore(self) -> tuple[int, float, list[Row]]:
        """Put what the file holds into place; returns its step, its seconds, and its rows of the metrics.

        Raises `UserError` for a file that is no whole checkpoint of this model, or one of a run of other settings: the
        sentence names them. Then nothing has changed.
        """
        found, header = read_tensors(self.path)
        advice = "choose the folder of a run, or start without --resume"
        check("checkpoint" in header, f"'{self.path}' is not a training checkpoint; {advice}")
        saved = validated(Progress, header["checkpoint"], f"'{self.path}'")
        self._check_settings(saved)
        wanted = self.tensors()
        older = {prefix + name for prefix in ("model.", AVERAGE) for name in frozen_state(self.model)}
        foreign = found.keys() - wanted.keys() - older - {"ema.n_averaged"}  # which older versions kept
        foreign |= {name for name, value in wanted.items() if name not in found or not _fits(name, found[name], value)}
        what = f"this {type(self.model).__name__} and its Adam: see {shorten(ascii(min(foreign, default='')), 80)}"
        check(not foreign, f"the tensors in '{self.path}' are not those of {what}; choose another folder")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(found[name])
        return saved.step, saved.seconds, saved.rows

    def _check_settings(self, saved: Progress) -> None:
        where = f"the run in '{self.path.parent}'"
        old = validated(type(self.config), saved.facts.get("train", {}), f"'{self.path}'")
        old = replace(old, compile=self.config.compile)  # the same run, compiled or not
        if all(learning_rate(k, old) == learning_rate(k, self.config) for k in range(min(saved.step, old.steps))):
            old = replace(old, steps=self.config.steps)  # more steps are the same run while the rates so far are equal
        unknown = {key: value for key, value in self.facts.items() if key.endswith("_hash")}  # to older versions
        changed = shorten(differences({**unknown, **renamed(saved.facts), "train": asdict(old)}, self.facts), 300)
        check(not changed, f"{where} was started with other settings ({changed}); use the same to resume")
        check(saved.step <= self.config.steps, f"{where} has done {saved.step} steps, more than {self.config.steps}")


def frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """By name, the modules that have parameters, none of which requires a gradient."""
    named = model.named_modules(remove_duplicate=False)
    return {name: each for name, each in named if {weight.requires_grad for weight in each.parameters()} == {False}}


def frozen_state(model: nn.Module) -> dict[str, Tensor]:
    """What training leaves as it is: parameters that require no gradient, and all that `frozen_modules` hold."""
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    within = tuple(f"{name}." for name in frozen_modules(model))
    return {name: value for name, value in model.state_dict().items() if name in frozen or name.startswith(within)}


def frozen_facts(model: nn.Module) -> dict[str, str]:
    """What a checkpoint says of the weights that it leaves out."""
    frozen = frozen_state(model)
    return {"frozen_hash": short_hash(frozen.values())} if frozen else {}


def _fits(name: str, found: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor of a file can take the place of the run's own."""
    sound = found.shape == wanted.shape and found.dtype == wanted.dtype
    if name.startswith("optimizer."):  # a square may have overflowed, and weights that are sound go on from there
        return sound and not found.isnan().any() and (name.endswith(".exp_avg") or bool((found >= 0).all()))
    return sound and bool(found.isfinite().all())


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings that differ, in words; "" if none does. Both sides are compared as the JSON they become.

    >>> differences({"train": {"lr": 0.001, "steps": 5}}, {"train": {"lr": 0.002, "steps": 5}})
    'lr: 0.001 then, 0.002 now'
    """
    saved, wanted = (_flat(json.loads(json.dumps(side))) for side in (saved, wanted))
    keys = [key for key in {**saved, **wanted} if saved.get(key) != wanted.get(key)]
    return "; ".join(f"{key[-1]}: {saved.get(key)} then, {wanted.get(key)} now" for key in keys)


def _flat(facts: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat = {}
    for key, value in facts.items():
        flat |= _flat(value, (*above, key)) if isinstance(value, Mapping) else {(*above, key): value}
    return flat


class Metrics:
    """`metrics.csv` of a run, a row a step: collected and written whole, so that a kill leaves no half line.

    What the file holds already is read. Raises `UserError` where that is no table of ours, or cannot be read.
    """

    FIELDS = ("step", "loss", "lr", "images_per_second")

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.rows = self._read() if os.path.exists(path) else []

    def _read(self) -> list[Row]:
        what, advice = f"is damaged: no table of {', '.join(self.FIELDS)}", "move it away to resume without it"
        check(os.path.isfile(self.path), f"'{self.path}' is no file; {advice}")
        with reading(self.path, what, advice), open(self.path, newline="", encoding="utf-8-sig") as file:
            header, *lines = csv.reader(file)
            check(tuple(header) == self.FIELDS, f"'{self.path}' {what}; {advice}")
            return TypeAdapter(list[Row]).validate_python(lines)

    def keep(self, steps: int, last: Sequence[Row] = ()) -> None:
        """Drop the rows beyond so many steps, which a run makes again; put `last` in the place of the last of them."""
        self.rows = [*(row for row in self.rows if row[0] <= steps - len(last)), *last]

    def add(self, step: int, loss: float, lr: float, images_per_second: float) -> None:
        self.rows.append((step, round(loss, 6), lr, images_per_second))

    def write(self) -> None:
        lines = [(step, f"{loss:.6f}", f"{lr:.3e}", f"{rate:.1f}") for step, loss, lr, rate in self.rows]
        with atomic_write(self.path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([self.FIELDS, *lines])

    def mean_loss(self, last: int) -> float | None:
        """The mean of the last so many losses; None where there is none."""
        return round(fmean(row[1] for row in self.rows[-last:]), 5) if self.rows else None
