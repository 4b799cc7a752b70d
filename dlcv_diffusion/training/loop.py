"""The training loop: `run` optimises any objective, as a generator that yields a named state every step.

accelerate underneath: CPU, CUDA, MPS, bf16, and several processes under `accelerate launch` or `torchrun`, each of
which takes its share of the batch and follows the path of one (of a network without BatchNorm, which would see its own
share only). A run that is killed goes on from its last checkpoint to the same weights, to the bit on a CPU.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from ..files import remove_partials
from ..images.arrays import ImageArrays
from ..schedule import NoiseSchedule
from .checkpoints import Checkpoint, Metrics
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
    `preview_every` steps) and, when it is done, `model.safetensors`: the averaged model, with the objective's facts and
    `metadata`. The objective's model is trained in place, on `device`: the best there is by default, and its own for
    each of several processes.

    Raises `UserError` when `resume` finds a checkpoint of other settings or none where there was a run, when the folder
    holds a run already and `resume` is off, when it cannot be written, or when loss or weights are no longer finite
    (what was saved before stays). In several processes, every one of them raises.

    >>> for state in run(objective, RunConfig(steps=1000), "runs/new"):  # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    out = Path(out)
    check(checkpoint_every >= 1 and preview_every >= 1, "checkpoint_every and preview_every must be at least 1")
    accelerator, place, precision = _accelerator(device, config.precision)
    config = replace(config, precision=precision)
    training = Training(objective, config, accelerator, place)
    facts = {"train": asdict(config), **objective.facts, **(metadata or {})}
    path = out / "checkpoint.safetensors"
    checkpoint = Checkpoint(path, training.model, training.average, training.adam, config, facts)
    metrics = Metrics(out / "metrics.csv")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]  # deepest first
    _on_main(accelerator, partial(_check_folder, path, metrics, resume, checkpoint_every))
    start, elapsed = checkpoint.restore() if path.exists() else (0, 0.0)
    metrics.keep(start)

    def begin() -> None:
        metrics.write()  # a folder that cannot be written is found out now
        remove_partials(out)

    def keep(state: TrainState, saving: bool, showing: bool) -> None:
        """Put a step on disk; the checkpoint comes last, so that whatever a kill before it cost is made again."""
        checkpoint.check_finite(state.step)
        if showing:
            preview(state.ema, out / "samples" / f"step_{state.step:06d}.png")
        if saving:
            metrics.write()
            if state.step == state.steps:
                found = {**facts, "final_loss": metrics.mean_loss(500)}
                objective.save(state.ema, out / "model.safetensors", found)
            checkpoint.save(state.step, state.seconds)

    try:
        _on_main(accelerator, begin)
        for state in training.steps(start, elapsed):
            kept = f"the last good checkpoint is '{path}'" if path.exists() else "there is no checkpoint"
            finite = math.isfinite(state.loss)
            check(finite, f"the loss became {state.loss} at step {state.step}; {kept}; try a lower learning rate")
            metrics.add(state.step, state.loss, state.lr, state.images_per_second)
            last = state.step == state.steps
            saving, showing = last or state.step % checkpoint_every == 0, last or state.step % preview_every == 0
            if saving or (showing and preview):
                _on_main(accelerator, partial(keep, state, saving, showing and preview))
            yield state
    except BaseException:
        if start == 0 and accelerator.is_main_process:
            _abandon(out, made)
        raise


class Training:
    """A model in training: its average, its optimiser, and what a step does to them."""

    def __init__(self, objective: Objective, config: RunConfig, accelerator: Any, place: torch.device):
        shares = accelerator.num_processes
        batch = config.batch_size
        check(batch % shares == 0, f"a batch of {batch} does not divide among {shares} processes")
        self.objective, self.config, self.accelerator, self.place = objective, config, accelerator, place
        # channels-last weights are the quicker layout for convolutions on CPUs and on GPUs' tensor cores alike
        self.model = devices.prepare(objective.model, place)
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        check(self.trained, "no parameter of the model requires a gradient, so there is nothing to train")
        frozen = {id(weight): weight for weight in self.model.parameters() if not weight.requires_grad}
        self.average = deepcopy(self.model, frozen)  # what is frozen is shared, not copied
        self.averaged = [weight for weight in self.average.parameters() if weight.requires_grad]
        self.adam = torch.optim.Adam(self.trained, lr=config.lr, weight_decay=config.weight_decay)

        self.optimizer = accelerator.prepare(self.adam)
        self.wrapped = accelerator.prepare(self.model) if shares > 1 else self.model
        if config.compile:
            self.wrapped = _compiled(self.wrapped, place)
        self.wrapped.train()
        for module in self.model.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()

    def steps(self, start: int, elapsed: float) -> Iterator[TrainState]:
        """Take the steps from `start` on; the seconds count on from `elapsed`."""
        config, clock = self.config, time.perf_counter()
        recent = deque([(start, clock)], maxlen=51)
        batch = self.objective.batch(start)
        for step in range(start, config.steps):
            lr, done = learning_rate(step, config), step + 1
            loss = self.step(step, batch, lr)
            batch = self.objective.batch(done)  # before the wait for a GPU, which is still busy with this step
            value, now = loss.item(), time.perf_counter()
            recent.append((done, now))
            rate = (done - recent[0][0]) * config.batch_size / (now - recent[0][1])
            yield TrainState(done, config.steps, value, lr, rate, elapsed + now - clock, self.model, self.average)

    def step(self, step: int, batch: Sequence[Tensor], lr: float) -> Tensor:
        """One step of Adam, and of the average, on this process's share of a batch; returns the loss of the whole."""
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        for group in self.adam.param_groups:
            group["lr"] = lr
        loss = self.objective.loss(self.network, *(part[mine].to(self.place, non_blocking=True) for part in batch))
        self.accelerator.backward(loss)
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.trained, self.config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_average(self.config.ema_decay if step else 0.0)  # it begins with the weights after the first step
        return self.accelerator.reduce(loss.detach(), reduction="mean")

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


def _check_folder(checkpoint: Path, metrics: Metrics, resume: bool, checkpoint_every: int) -> None:
    """Raise `UserError` for a folder that a run would overwrite, or that it cannot go on from."""
    out, there = checkpoint.parent, checkpoint.exists()
    held, other = f"'{out}' holds a training run already", "choose another folder"
    check(there or not checkpoint.is_symlink(), f"'{checkpoint}' is a link to nothing; mend it, or {other}")
    check(resume or not there, f"{held}; add --resume to go on with it, or {other}")
    # a run that was killed before its first checkpoint was whole may have left the metrics up to there
    run = (out / "model.safetensors").exists() or metrics.last > (checkpoint_every if resume else 0)
    check(there or not run, f"{held}, without a checkpoint to go on from; {other}, or move it away")


def _abandon(out: Path, made: Sequence[Path]) -> None:
    """Remove what a run leaves that kept nothing to go on from: its metrics, and the folders that it made."""
    with suppress(OSError):
        if [path.name for path in out.iterdir()] == ["metrics.csv"]:
            (out / "metrics.csv").unlink()
        for folder in made:
            folder.rmdir()  # which fails, and ends this, where it is not empty


def _accelerator(device: torch.device | str | None, precision: str) -> tuple[Any, torch.device, str]:
    """accelerate's `Accelerator` of this process, where to compute, and the precision that "auto" stands for there."""
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    try:
        wanted = None if device is None else torch.device(device)
        # accelerate would keep the device and precision of this process's first run for all that follow
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        AcceleratorState._reset_state(reset_partial_state=not shared)
        cpu = wanted is not None and wanted.type == "cpu"
        if precision == "auto":
            precision = "bf16" if devices.has_fast_bf16(PartialState(cpu=cpu).device) else "no"
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision, device_placement=False)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot train on '{device or 'this machine'}' in '{precision}': {error}") from error
    place = accelerator.device
    fits = wanted is None or wanted.type == place.type
    check(fits, f"cannot train on '{device}': this machine has '{place.type}'")
    return accelerator, wanted if wanted is not None and accelerator.num_processes == 1 else place, precision


def _compiled(model: nn.Module, place: torch.device) -> nn.Module:
    """`torch.compile(model)`, after a small trial that finds out whether this machine can."""
    try:
        torch.compile(lambda x: x.exp() + 1)(torch.zeros(8, device=place))
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
