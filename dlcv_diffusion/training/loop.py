"""The training loop: DDPM's algorithm 1 with label drop, as a generator that yields a named state every step.

Everything random in step k (which images, which timesteps, which noise, which labels are dropped) follows from
(seed, k) alone, drawn on the CPU for the whole batch. So a run that is killed goes on from its last checkpoint to the
same weights, to the bit on a CPU; and two processes, each of which takes its half of the batch, follow the path of one.
"""

import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data.arrays import ImageArrays
from ..errors import UserError
from ..files import atomic_write
from ..guidance import drop_labels
from ..models.registry import load_state, read_tensors, save_model, write_tensors
from ..schedule import NoiseSchedule


@dataclass(frozen=True)
class TrainConfig:
    """What a run is: change one of these and it is another run.

    steps: number of optimiser steps; batch_size: images a step over all processes.
    lr: peak learning rate of Adam; it warms up linearly over `warmup` steps and falls to 0 along a cosine, step by step.
    label_drop: probability p_uncond that a sample's label becomes ∅ (classifier-free guidance, arXiv 2207.12598).
    ema_decay: weights are averaged as θ' ← d·θ' + (1 − d)·θ; the average is what samples and ships.
    clip_grad: gradients are scaled down to this norm at most, or left alone (None).
    flip: horizontal mirror with probability ½ (never for digits).
    precision: "no" (float32), "bf16" or "fp16", as accelerate calls it.
    """

    steps: int
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-5
    warmup: int = 200
    label_drop: float = 0.1
    ema_decay: float = 0.999
    clip_grad: float | None = None
    flip: bool = False
    seed: int = 0
    precision: str = "no"


@dataclass(frozen=True)
class TrainState:
    """Where a run stands after a step: `step` of `steps`, `loss` of the whole batch, learning rate, images a second."""

    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds: float
    model: nn.Module
    ema: nn.Module


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up times half a cosine to zero (Loshchilov and Hutter 2017, eq. 5, without restarts).

    >>> round(learning_rate(500, TrainConfig(steps=1000, lr=1.0, warmup=0)), 3)
    0.5
    """
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return config.lr * warmup * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def batch_indices(step: int, size: int, config: TrainConfig) -> Tensor:
    """Rows of the data set that step `step` trains on, (batch_size,) int64: epoch after epoch of seeded permutations.

    >>> batch_indices(0, 10, TrainConfig(steps=5, batch_size=10)).sort().values.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    first = step * config.batch_size
    epochs = range(first // size, (first + config.batch_size - 1) // size + 1)
    order = torch.cat([_permutation(size, config.seed, epoch) for epoch in epochs])
    return order[first - epochs[0] * size :][: config.batch_size]


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=_generator(seed, 1, epoch))


def noised_batch(
    step: int, data: ImageArrays, schedule: NoiseSchedule, null: int, config: TrainConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(x0, labels, t, eps, dropped labels) of a step, all on the CPU: what (seed, step) alone decides."""
    generator = _generator(config.seed, 2, step)
    x0, labels = data.batch(batch_indices(step, len(data), config))
    t = torch.randint(schedule.T, (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    labels = drop_labels(labels, config.label_drop, null, generator) if null else labels
    if config.flip:
        mirrored = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
    return x0, labels, t, eps


def train(
    model: nn.Module,
    data: ImageArrays,
    schedule: NoiseSchedule,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    checkpoint_every: int = 500,
    preview: Callable[[nn.Module, Path], None] | None = None,
    preview_every: int = 1000,
    device: torch.device | str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[TrainState]:
    """Minimise E‖ε − ε_θ(√ᾱ_t x0 + √(1−ᾱ_t) ε, t, c)‖² (DDPM, eq. 14 and algorithm 1); yield a `TrainState` every step.

    In the folder `out` it keeps `checkpoint.safetensors` (weights, average, optimiser, step; every `checkpoint_every`
    steps), `metrics.csv` (step, loss, lr, images_per_second), `samples/` (what `preview(ema_model, path)` draws every
    `preview_every` steps) and, when it is done, `model.safetensors`: the averaged model, for `load_model`.

    accelerate underneath: CPU, CUDA, MPS, bf16, and several processes under `accelerate launch`.

    Raises `UserError` when `resume` finds a checkpoint of other settings, when the folder holds a run already and
    `resume` is off, when the data's size or labels do not fit the model, or when the loss is no longer finite (the last
    good checkpoint stays).

    >>> for state in train(model, data, NoiseSchedule.linear(350), TrainConfig(steps=1000), "runs/digits"):  # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    from accelerate import Accelerator

    out = Path(out)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise UserError(f"'{out}' holds a training run already; add --resume to go on with it, or choose another folder")
    accelerator = Accelerator(
        cpu=torch.device(device).type == "cpu" if device is not None else False, mixed_precision=config.precision
    )
    if config.batch_size % accelerator.num_processes:
        raise UserError(f"a batch of {config.batch_size} does not divide among {accelerator.num_processes} processes")
    null = getattr(model, "num_classes", 0)
    _check_fit(model, data, null)

    # channels-last weights are the quicker layout for convolutions on CPUs and on GPUs' tensor cores alike
    model = model.to(accelerator.device, memory_format=torch.channels_last)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    facts = {"train": asdict(config), "schedule": schedule.config, **(metadata or {})}
    start, elapsed = 0, 0.0
    if resume and checkpoint.exists():
        start, elapsed = _restore(checkpoint, model, ema, optimizer, facts)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    wrapped.train()
    metrics = Metrics(out / "metrics.csv", start) if accelerator.is_main_process else None
    mine = slice(accelerator.process_index, None, accelerator.num_processes)

    clock = time.perf_counter()
    recent: list[tuple[int, float]] = [(start, clock)]
    for step in range(start, config.steps):
        batch = noised_batch(step, data, schedule, null, config)
        x0, labels, t, eps = (part[mine].to(accelerator.device, non_blocking=True) for part in batch)
        x = schedule.add_noise(x0, eps, t).contiguous(memory_format=torch.channels_last)
        lr = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with accelerator.autocast():
            predicted = wrapped(x, t, labels) if null else wrapped(x, t)
        loss = F.mse_loss(predicted.float(), eps)
        accelerator.backward(loss)
        if config.clip_grad is not None:
            accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(model)
        loss_value = accelerator.reduce(loss.detach(), reduction="mean").item()
        if not math.isfinite(loss_value):
            kept = f"the last good checkpoint is '{checkpoint}'" if checkpoint.exists() else "no checkpoint was written yet"
            raise UserError(f"the loss became {loss_value} at step {step + 1}; {kept}; try a lower learning rate")

        now, done = time.perf_counter(), step + 1
        recent = [*recent[-50:], (done, now)]
        rate = (done - recent[0][0]) * config.batch_size / (now - recent[0][1])
        state = TrainState(done, config.steps, loss_value, lr, rate, elapsed + now - clock, model, ema.module)
        finished = done == config.steps
        if accelerator.is_main_process:
            metrics.add(state)
            if done % checkpoint_every == 0 or finished:
                metrics.flush()
                _save(checkpoint, model, ema, optimizer, facts, state)
            if preview is not None and (done % preview_every == 0 or finished):
                preview(ema.module, out / "samples" / f"step_{done:06d}.png")
            if finished:
                save_model(ema.module, out / "model.safetensors", {**facts, "final_loss": metrics.mean_of_last(500)})
        yield state
    accelerator.wait_for_everyone()


class Metrics:
    """`metrics.csv` of a run: rows are collected and written whole, so that a kill leaves no half line."""

    FIELDS = ("step", "loss", "lr", "images_per_second")

    def __init__(self, path: Path, start: int):
        self.path, self.rows = path, []
        if start and path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= start]

    def add(self, state: TrainState) -> None:
        rate = f"{state.images_per_second:.1f}"
        values = (state.step, f"{state.loss:.6f}", f"{state.lr:.3e}", rate)
        self.rows.append(dict(zip(self.FIELDS, values, strict=True)))

    def flush(self) -> None:
        with atomic_write(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def mean_of_last(self, n: int) -> float:
        losses = [float(row["loss"]) for row in self.rows[-n:]]
        return round(sum(losses) / len(losses), 5)


def _save(path: Path, model: nn.Module, ema: nn.Module, optimizer: Any, facts: Mapping, state: TrainState) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    write_tensors(path, tensors, {"checkpoint": {"step": state.step, "seconds": state.seconds, "facts": facts}})


def _restore(path: Path, model: nn.Module, ema: nn.Module, optimizer: Any, facts: Mapping) -> tuple[int, float]:
    tensors, header = read_tensors(path)
    saved = header.get("checkpoint")
    if saved is None:
        raise UserError(f"'{path}' is not a training checkpoint; choose the folder of a run, or start without --resume")
    changed = _differences(saved["facts"], facts)
    if changed:
        raise UserError(f"the run in '{path.parent}' was started with other settings ({changed}); use the same to resume")
    part = {name: {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")} for name in ("model", "ema")}
    load_state(model, part["model"], path)
    load_state(ema, part["ema"], path)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return saved["step"], saved["seconds"]


def _differences(saved: Mapping, wanted: Mapping) -> str:
    saved, wanted = (json.loads(json.dumps(side)) for side in (saved, wanted))
    flat = [
        f"{name}: {old.get(key)} then, {new.get(key)} now"
        for name, old, new in ((n, saved.get(n), wanted.get(n)) for n in {**saved, **wanted})
        if isinstance(old, dict) and isinstance(new, dict)
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    plain = [
        f"{n}: {saved.get(n)} then, {wanted.get(n)} now"
        for n in {**saved, **wanted}
        if not (isinstance(saved.get(n), dict) and isinstance(wanted.get(n), dict)) and saved.get(n) != wanted.get(n)
    ]
    return "; ".join(flat + plain)


def _check_fit(model: nn.Module, data: ImageArrays, null: int) -> None:
    if len(data) == 0:
        raise UserError("there are no images to train on")
    channels = data.images.shape[1]
    if channels != model.in_channels:
        raise UserError(f"the model takes {model.in_channels} channels, the images have {channels}")
    if null and int(data.labels.max()) >= null:
        raise UserError(f"label {int(data.labels.max())} is out of range; the model knows labels 0 to {null - 1}")


def _generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on every number of `key`, and on their order."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
