"""The training loop: `run` optimises any objective, as a generator that yields a named state every step.

accelerate underneath: CPU, CUDA, MPS, bf16, and several processes under `accelerate launch` or `torchrun`, each of
which takes its share of the batch and follows the path of one (of a network without BatchNorm, which would see its own
share only). A run that is killed goes on from its last checkpoint to the same weights, to the bit on a CPU.
"""

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .. import device as devices
from ..errors import UserError, check
from ..files import remove_partials, staging_folder
from ..images.arrays import ImageArrays
from ..schedule import NoiseSchedule
from .checkpoints import Checkpoint, Metrics, frozen_facts, frozen_modules
from .config import RunConfig, TrainConfig, learning_rate
from .objective import DiffusionObjective, Objective


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


def train(
    model: nn.Module, data: ImageArrays, schedule: NoiseSchedule, config: TrainConfig, out: str | Path, **options: Any
) -> Iterator[TrainState]:
    """Train a diffusion model, see `DiffusionObjective`; `out` and `options` are those of `run`.

    >>> config = TrainConfig(steps=1000)
    >>> for state in train(model, data, NoiseSchedule.linear(350), config, "runs/digits"):  # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    yield from run(DiffusionObjective(model, data, schedule, config), config, out, **options)


def run(
    objective: Objective,
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    checkpoint_every: int = 500,
    preview: Callable[[nn.Module, Path], None] | None = None,
    preview_every: int = 1000,
    device: torch.device | str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[TrainState]:
    """Minimise an objective by Adam; yield a `TrainState` every step.

    In the folder `out` it keeps `checkpoint.safetensors` (weights, average, optimiser, step; every `checkpoint_every`
    steps), `metrics.csv` (step, loss, lr, images_per_second), `samples/` (what `preview(average, path)` draws every
    `preview_every` steps) and, when it is done, `model.safetensors` or what else the objective saves, such as a folder
    `model`: the averaged model, with the objective's facts and `metadata`. A single process also keeps a checkpoint
    after its first minute, and from the first checkpoint on writes the metrics every ten seconds. The objective's model
    is trained in place, on `device`: the best there is by default, and its own for each of several processes. Whoever
    throws a `KeyboardInterrupt` into the generator gets it back when the last step is in a checkpoint.

    Raises `UserError` when `resume` finds a checkpoint of other settings, data or frozen weights, or none where there
    was a run; when the folder holds a run already and `resume` is off; when the run cannot be saved, which a trial
    finds out before the first step; or when loss or weights are no longer finite (what was saved before stays). In
    several processes, every one of them raises.

    >>> for state in run(objective, RunConfig(steps=1000), "runs/new"):  # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    out = Path(out)
    rhythm = Rhythm(checkpoint_every, preview_every)
    accelerator, device, config = _accelerator(device, config)
    _on_main(accelerator, partial(check_start, out, resume))
    training = Training(objective, config, accelerator, device)
    facts = {"train": asdict(config), **objective.facts, **frozen_facts(training.model), **(metadata or {})}
    path = out / "checkpoint.safetensors"
    checkpoint = Checkpoint(path, training.model, training.average, training.adam, config, facts)
    metrics = Metrics(out / "metrics.csv")
    start, elapsed, rows = checkpoint.restore() if os.path.exists(path) else (0, 0.0, [])
    metrics.keep(start, rows)

    def finish(folder: Path) -> None:
        objective.save(training.average, folder / "model.safetensors", facts | {"final_loss": metrics.mean_loss(500)})

    def begin() -> None:
        with staging_folder(out) as staging:  # what cannot be saved is found out before the first step
            finish(staging)
            if start < config.steps:  # else the model stays: a kill after the last checkpoint may have cost it
                shutil.rmtree(staging)
        for folder in (out, out / "samples"):
            remove_partials(folder)
        if start:
            metrics.write()

    def keep(state: TrainState, saving: bool, showing: bool) -> None:
        """Put a step on disk: what comes before the checkpoint is made again, what comes after is made from it."""
        checkpoint.check_finite(state.step)
        if showing:
            preview(state.ema, out / "samples" / f"step_{state.step:06d}.png")
        if saving:
            checkpoint.save(state.step, state.seconds, metrics.rows[-checkpoint_every:])
            metrics.write()
        if state.step == state.steps:
            finish(out)

    _on_main(accelerator, begin)
    rhythm.begin(alone=accelerator.num_processes == 1)
    for state in training.steps(start, elapsed):
        _check_loss(state, path)
        metrics.add(state.step, state.loss, state.lr, state.images_per_second)
        saving, showing, writing = rhythm.due(state, kept=os.path.exists(path))
        if saving or (showing and preview):
            _on_main(accelerator, partial(keep, state, saving, showing and preview))
        elif writing:
            metrics.write()
        with _interrupted(partial(_on_main, accelerator, partial(keep, state, not saving, False))):
            yield state


class Rhythm:
    """When a run saves and shows itself: every so many steps, and, of a single process, by the clock.

    Raises `UserError` for fewer steps than one.
    """

    FIRST, METRICS = 60.0, 10.0  # seconds until a checkpoint that comes before its step, and between two `metrics.csv`

    def __init__(self, checkpoint_every: int, preview_every: int):
        self.checkpoint_every, self.preview_every = checkpoint_every, preview_every
        check(min(checkpoint_every, preview_every) >= 1, "checkpoint_every and preview_every must be at least 1")

    def begin(self, alone: bool) -> None:
        """Start the clock. Several processes have several clocks and must do the same, so they go by steps."""
        self.alone = alone
        self.began = self.wrote = time.monotonic()

    def due(self, state: TrainState, kept: bool) -> tuple[bool, bool, bool]:
        """Whether a checkpoint, a preview and the metrics are due; `kept`: whether there is a checkpoint.

        Without one, metrics would be of no run, and in the way of the next.
        """
        every, now = (self.checkpoint_every, self.preview_every), time.monotonic()
        saving, showing = (state.step == state.steps or state.step % count == 0 for count in every)
        saving = saving or (self.alone and not kept and now - self.began >= self.FIRST)
        writing = self.alone and kept and now - self.wrote >= self.METRICS
        self.wrote = now if saving or writing else self.wrote
        return saving, showing, writing


@contextmanager
def _interrupted(keep: Callable[[], None]) -> Iterator[None]:
    """Let `keep` do its work before a `KeyboardInterrupt` goes on."""
    try:
        yield
    except KeyboardInterrupt:
        keep()
        raise


class Training:
    """A model in training: its average, its optimiser, and what a step does to them."""

    def __init__(self, objective: Objective, config: RunConfig, accelerator: Any, device: torch.device):
        batch, processes = config.batch_size, accelerator.num_processes
        check(batch % processes == 0, f"a batch of {batch} does not divide among {processes} processes")
        self.objective, self.config, self.accelerator, self.device = objective, config, accelerator, device
        self.model = devices.prepare(objective.model, device)
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        check(self.trained, "no parameter of the model requires a gradient, so there is nothing to train")
        frozen = {id(weight): weight for weight in self.model.parameters() if not weight.requires_grad}
        self.average = deepcopy(self.model, frozen)  # what is frozen is shared, not copied
        self.averaged = [weight for weight in self.average.parameters() if weight.requires_grad]
        self.adam = torch.optim.Adam(self.trained, lr=config.lr, weight_decay=config.weight_decay)

        self.optimizer = accelerator.prepare(self.adam)
        self.wrapped = accelerator.prepare(self.model) if processes > 1 else self.model
        if config.compile:
            self.wrapped = _compiled(self.wrapped, device)
        self.wrapped.train()
        for module in frozen_modules(self.model).values():
            module.eval()

    def steps(self, start: int, elapsed: float) -> Iterator[TrainState]:
        """Take the steps from `start` on; the seconds count on from `elapsed`."""
        config, clock = self.config, time.perf_counter()
        recent = deque([(start, clock)], maxlen=51)
        batches = map(self.objective.batch, range(start, config.steps))
        batch = next(batches, ())
        for step in range(start, config.steps):
            lr, done = learning_rate(step, config), step + 1
            loss = self.step(step, batch, lr)
            batch = next(batches, ())  # before the wait for a GPU, which is still busy with this step
            value, now = loss.item(), time.perf_counter()
            recent.append((done, now))
            rate = (done - recent[0][0]) * config.batch_size / (now - recent[0][1])
            yield TrainState(done, config.steps, value, lr, rate, elapsed + now - clock, self.model, self.average)

    def step(self, step: int, batch: Sequence[Tensor], lr: float) -> Tensor:
        """One step of Adam, and of the average, on this process's share of a batch; returns the loss of the whole."""
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        for group in self.adam.param_groups:
            group["lr"] = lr
        batch = [part[mine].to(self.device, non_blocking=True) for part in batch]
        loss, count = torch.zeros((), device=self.device), len(batch[0])
        for rows in torch.arange(count).chunk(self.config.accumulate):  # the gradient of the mean is their sum
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            share = self.objective.loss(self.network, *(each[part] for each in batch)) * (len(rows) / count)
            self.accelerator.backward(share)
            loss = loss + share.detach()
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.trained, self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_average(self.config.ema_decay if step else 0.0)  # it begins with the weights after the first step
        return self.accelerator.reduce(loss, reduction="mean")

    def network(self, *inputs: Any) -> Any:
        """What the model gives, computed in the run's precision."""
        with self.accelerator.autocast():
            return self.wrapped(*inputs)

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """θ' ← d·θ' + (1 − d)·θ for what trains; buffers, such as BatchNorm's statistics, are the model's own."""
        get_ema_multi_avg_fn(decay)(self.averaged, self.trained, None)
        for mine, models in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(models)


def check_start(out: str | Path, resume: bool = False, device: Any = None, **options: Any) -> None:
    """Raise `UserError` for a folder or a device with which `run` could not begin; other options of it are ignored.

    >>> check_start("runs/new", device="cpu")
    """
    devices.named_device(device)
    checkpoint = Path(out) / "checkpoint.safetensors"
    there, rows = os.path.exists(checkpoint), Metrics(Path(out) / "metrics.csv").rows
    held, other = f"'{out}' holds a training run already", "choose another folder"
    check(there or not os.path.islink(checkpoint), f"'{checkpoint}' is a link to nothing; remove it, or {other}")
    check(resume or not there, f"{held}; add --resume to go on with it, or {other}")
    run = rows or any(os.path.exists(Path(out) / name) for name in ("model.safetensors", "model"))
    check(there or not run, f"{held}, without a checkpoint to go on from; {other}, or move it away")


def _check_loss(state: TrainState, path: Path) -> None:
    kept = f"the last good checkpoint is '{path}'" if os.path.exists(path) else "there is no checkpoint"
    became = f"the loss became {state.loss} at step {state.step}"
    check(math.isfinite(state.loss), f"{became}; {kept}; try a lower learning rate")


def _accelerator(device: torch.device | str | None, config: RunConfig) -> tuple[Any, torch.device, RunConfig]:
    """accelerate's `Accelerator` of this process, where to compute, and the settings without the precision "auto"."""
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    wanted, precision = devices.named_device(device), config.precision
    try:
        # accelerate would keep the device and precision of this process's first run for all that follow
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        AcceleratorState._reset_state(reset_partial_state=not shared)
        cpu = device is not None and wanted.type == "cpu"
        if precision == "auto":
            precision = "bf16" if devices.has_fast_bf16(PartialState(cpu=cpu).device) else "no"
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision, device_placement=False)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot train on '{wanted}' in '{precision}': {error}") from error
    own = device is None or accelerator.num_processes > 1
    return accelerator, accelerator.device if own else wanted, replace(config, precision=precision)


def _compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """`torch.compile(model)`, after a small trial that finds out whether this machine can."""
    try:
        torch.compile(lambda x: x.exp() + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot compile here ({reason}); install a C++ compiler, or train without compile") from error
    return torch.compile(model)


def _on_main(accelerator: Any, work: Callable[[], None]) -> None:
    """Let the main process do `work`; where it fails, every process raises the same `UserError`."""
    from accelerate.utils import broadcast_object_list

    failure: list[str | None] = [None]
    if accelerator.is_main_process:
        try:
            work()
        except UserError as error:
            failure = [str(error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(failure)
    check(failure[0] is None, failure[0] or "")
