"""What a run keeps on disk: `checkpoint.safetensors`, from which it goes on to the bit, and `metrics.csv`."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..files import atomic_write
from ..models.registry import load_state, read_tensors, write_tensors


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    ema: nn.Module,
    optimizer: Any,
    facts: Mapping[str, Any],
    *,
    step: int,
    seconds: float,
) -> None:
    """Write weights, their average and the optimiser's moments after `step` steps; atomic.

    - facts: the run's settings, any JSON, which `restore_checkpoint` compares.

    Raises `UserError` where the file cannot be written, or the weights are not finite; what is there stays.

    >>> save_checkpoint("runs/digits/checkpoint.safetensors", model, ema, adam, facts, step=500, seconds=60.0)
    ... # doctest: +SKIP
    """
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(
            f"the weights are not finite after step {step}; '{path}' is kept as it was; lower the learning rate"
        )
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    write_tensors(path, tensors, {"checkpoint": {"step": step, "seconds": seconds, "facts": facts}})


def restore_checkpoint(
    path: str | Path, model: nn.Module, ema: nn.Module, optimizer: Any, facts: Mapping[str, Any]
) -> tuple[int, float]:
    """Put a checkpoint's weights, average and moments into place; returns its step and its seconds.

    Raises `UserError` for a file that is not a checkpoint, or that belongs to a run of other settings: the sentence
    names them.

    >>> step, seconds = restore_checkpoint(path, model, ema, adam, facts)   # doctest: +SKIP
    """
    tensors, header = read_tensors(path)
    saved = header.get("checkpoint")
    if saved is None:
        raise UserError(f"'{path}' is not a training checkpoint; choose the folder of a run, or start without --resume")
    if changed := differences(saved["facts"], facts):
        folder = Path(path).parent
        raise UserError(f"the run in '{folder}' was started with other settings ({changed}); use the same to resume")
    load_state(model, _below("model.", tensors), path)
    load_state(ema, _below("ema.", tensors), path)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _below("optimizer.", tensors).items():
        index, name = key.split(".")
        # the layout of the weights, which a file does not keep: Adam is quicker when all it touches lies alike
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        moments.setdefault(int(index), {})[name] = value.contiguous(memory_format=layout)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return saved["step"], saved["seconds"]


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings that differ, in words; "" if none does. Both sides are compared as the JSON they become.

    >>> differences({"train": {"lr": 0.001, "steps": 5}}, {"train": {"lr": 0.002, "steps": 5}})
    'lr: 0.001 then, 0.002 now'
    """
    saved, wanted = (_flat(json.loads(json.dumps(side))) for side in (saved, wanted))
    keys = [key for key in {**saved, **wanted} if saved.get(key) != wanted.get(key)]
    return "; ".join(f"{key[-1]}: {saved.get(key)} then, {wanted.get(key)} now" for key in keys)


class Metrics:
    """`metrics.csv` of a run, a row a step: collected and written whole, so that a kill leaves no half line.

    A run that goes on after `start` steps keeps the rows up to there. Raises `UserError` where they cannot be read.
    """

    FIELDS = ("step", "loss", "lr", "images_per_second")

    def __init__(self, path: str | Path, start: int = 0):
        self.path, self.rows = Path(path), []
        if start and self.path.exists():
            self.rows = [row for row in self._read() if int(row["step"]) <= start]

    def _read(self) -> list[dict[str, str]]:
        try:
            with open(self.path, newline="") as file:
                rows = [{name: row[name] for name in self.FIELDS} for row in csv.DictReader(file)]
            _ = [(int(row["step"]), *map(float, row.values())) for row in rows]  # numbers, or this raises
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(
                f"'{self.path}' is damaged: no table of {', '.join(self.FIELDS)}; move it away to resume without it"
            ) from error
        return rows

    def add(self, step: int, loss: float, lr: float, images_per_second: float) -> None:
        values = (step, f"{loss:.6f}", f"{lr:.3e}", f"{images_per_second:.1f}")
        self.rows.append(dict(zip(self.FIELDS, values, strict=True)))

    def write(self) -> None:
        with atomic_write(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def mean_loss(self, last: int) -> float | None:
        """The mean of the last so many losses; None where there is none."""
        losses = [float(row["loss"]) for row in self.rows[-last:]]
        return round(sum(losses) / len(losses), 5) if losses else None


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _flat(facts: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat = {}
    for key, value in facts.items():
        flat |= _flat(value, (*above, key)) if isinstance(value, Mapping) else {(*above, key): value}
    return flat
