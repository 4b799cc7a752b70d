"""The training loop: DDPM's algorithm 1 with label drop, as a generator that yields a named state every step.

Everything random in step k (which images, which timesteps, which noise, which labels are dropped) follows from
(seed, k) alone, drawn on the CPU for the whole batch. So a run that is killed goes on from its last checkpoint to the
same weights, to the bit on a CPU; and two processes, each of which takes its half of the batch, follow the path of one
(of a network without BatchNorm, which would see its own half only).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .. import device as devices
from ..denoiser import PREDICTIONS, training_target
from ..errors import UserError
from ..files import remove_partials
from ..guidance import drop_labels
from ..images.arrays import ImageArrays
from ..models.registry import save_model
from ..schedule import NoiseSchedule
from .checkpoints import Metrics, restore_checkpoint, save_checkpoint

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """What a run is: change one of these and it is another run.

    steps: number of optimiser steps; batch_size: images a step over all processes.
    lr: peak learning rate of Adam; it warms up linearly over `warmup` steps and falls to 0 along half a cosine, over
        the last `decay` share of the steps: all of them by default.
    noise_levels: (mean, standard deviation) of ln σ, from which each image's noise level σ = √((1 − ᾱ_t)/ᾱ_t) is drawn
        (Karras et al., arXiv 2206.00364, table 1: (−1.2, 1.2)); None: every timestep alike, as in DDPM's algorithm 1.
    prediction: what the network's output stands for, "eps", "v" or "x0", see `prediction`; the loss is its MSE.
    label_drop: probability p_uncond that a sample's label becomes ∅ (classifier-free guidance, arXiv 2207.12598).
    ema_decay: weights are averaged as θ' ← d·θ' + (1 − d)·θ; the average is what samples and ships.
    clip_grad: gradients are scaled down to this norm at most, or left alone (None).
    flip: horizontal mirror with probability ½ (never for digits).
    precision: "no" (float32), "bf16" or "fp16", as accelerate calls it.

    Raises `UserError` for numbers that make no run, such as a batch of 0 images.

    >>> TrainConfig(steps=1000, lr=2e-3).batch_size
    64
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
    decay: float = 1.0
    prediction: str = "eps"
    noise_levels: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "batch_size": 1, "weight_decay": 0, "warmup": 0, "seed": 0}.items():
            if not getattr(self, name) >= least:  # said this way round, NaN is refused too
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("lr", "clip_grad"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} is {value}; it must be a positive number")
        for name in ("label_drop", "ema_decay", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")
        if self.precision not in PRECISIONS:
            raise UserError(f"unknown precision '{self.precision}'; choose one of {', '.join(PRECISIONS)}")
        if self.prediction not in PREDICTIONS:
            raise UserError(f"unknown prediction '{self.prediction}'; choose one of {', '.join(PREDICTIONS)}")
        levels = self.noise_levels
        if levels is not None and not (len(levels) == 2 and math.isfinite(levels[0]) and 0 < levels[1] < math.inf):
            raise UserError(f"noise_levels is {self.noise_levels}; give mean and standard deviation (above 0) of ln σ")


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

    With `decay` below 1 it stays at its peak until the cosine begins: then the number of steps can be changed while a
    run is under way, and what is behind stays as it would have been.

    >>> round(learning_rate(500, TrainConfig(steps=1000, lr=1.0, warmup=0)), 3)
    0.5
    >>> [round(learning_rate(k, TrainConfig(steps=1000, lr=1.0, warmup=0, decay=0.4)), 3) for k in (500, 800)]
    [1.0, 0.5]
    """
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    falling = config.decay * config.steps
    fallen = max(0.0, step - (config.steps - falling)) / falling if falling else 0.0
    return config.lr * warmup * 0.5 * (1 + math.cos(math.pi * fallen))


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x0, labels, t, eps) of a step, on the CPU: what (seed, step) alone decides. Some labels are `null` already.

    x0, eps (B, C, H, W) float32; labels, t (B,) int64. With `null` = 0, the model has no labels and none is dropped.

    >>> data = ImageArrays(torch.zeros(8, 3, 28, 28, dtype=torch.uint8), torch.arange(8))
    >>> x0, labels, t, eps = noised_batch(0, data, NoiseSchedule.linear(350), 20, TrainConfig(steps=9, batch_size=4))
    >>> x0.shape, labels.shape, t.shape
    (torch.Size([4, 3, 28, 28]), torch.Size([4]), torch.Size([4]))
    """
    generator = _generator(config.seed, 2, step)
    x0, labels = data.batch(batch_indices(step, len(data), config))
    t = random_timesteps(len(x0), schedule, config, generator)
    eps = torch.randn(x0.shape, generator=generator)
    labels = drop_labels(labels, config.label_drop, null, generator) if null else labels
    if config.flip:
        mirrored = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
    return x0, labels, t, eps


def random_timesteps(count: int, schedule: NoiseSchedule, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """t, (count,) int64: uniform on 0 … T − 1, or with `noise_levels` the timesteps whose σ is nearest above the drawn.

    >>> random_timesteps(3, NoiseSchedule.linear(350), TrainConfig(steps=1), torch.Generator()).shape
    torch.Size([3])
    """
    if config.noise_levels is None:
        return torch.randint(schedule.T, (count,), generator=generator)
    mean, std = config.noise_levels
    ln_sigma = mean + std * torch.randn(count, generator=generator, dtype=torch.float64)
    return torch.searchsorted(schedule.sigmas.log(), ln_sigma).clamp(max=schedule.T - 1)


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

    With `config.prediction` "v" or "x0" the network is trained to give these instead of ε (see `prediction`).

    In the folder `out` it keeps `checkpoint.safetensors` (weights, average, optimiser, step; every `checkpoint_every`
    steps), `metrics.csv` (step, loss, lr, images_per_second), `samples/` (what `preview(ema_model, path)` draws every
    `preview_every` steps) and, when it is done, `model.safetensors`: the averaged model, for `load_denoiser`.

    accelerate underneath: CPU, CUDA, MPS, bf16, and several processes under `accelerate launch` or `torchrun`. `model`
    is trained in place, on `device`: the best there is by default, and its own for each of several processes.

    Raises `UserError` when `resume` finds a checkpoint of other settings, when the folder holds a run already and
    `resume` is off, when the folder cannot be written, when the data's size or labels do not fit the model, or when the
    loss is no longer finite (the last good checkpoint stays). In several processes, every one of them raises.

    >>> config = TrainConfig(steps=1000)
    >>> for state in train(model, data, NoiseSchedule.linear(350), config, "runs/digits"):  # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    out = Path(out)
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise UserError(
            f"'{out}' holds a training run already; add --resume to go on with it, or choose another folder"
        )
    null = getattr(model, "num_classes", 0)
    _check_fit(model, data, null)
    accelerator, place = _accelerator(device, config.precision)
    if config.batch_size % accelerator.num_processes:
        raise UserError(f"a batch of {config.batch_size} does not divide among {accelerator.num_processes} processes")

    # channels-last weights are the quicker layout for convolutions on CPUs and on GPUs' tensor cores alike
    model = devices.prepare(model, place, channels_last=True)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    facts = {"train": asdict(config), "schedule": schedule.config, **(metadata or {})}
    start, elapsed, new = 0, 0.0, not out.exists()
    if resume and checkpoint.exists():
        start, elapsed = restore_checkpoint(checkpoint, model, ema, optimizer, facts)
    metrics = Metrics(out / "metrics.csv", start)

    def begin() -> None:
        metrics.write()  # a folder that cannot be written is found out now
        remove_partials(out)

    def keep(state: TrainState, saving: bool, showing: bool) -> None:
        """Put a step on disk; the checkpoint comes last, so that whatever a kill before it cost is made again."""
        if showing:
            preview(ema.module, out / "samples" / f"step_{state.step:06d}.png")
        if saving:
            metrics.write()
            if state.step == state.steps:
                save_model(ema.module, out / "model.safetensors", {**facts, "final_loss": metrics.mean_loss(500)})
            save_checkpoint(checkpoint, model, ema, optimizer, facts, step=state.step, seconds=state.seconds)

    _on_main(accelerator, begin)
    optimizer = accelerator.prepare(optimizer)
    wrapped = accelerator.prepare(model) if accelerator.num_processes > 1 else model
    wrapped.train()
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    draw = partial(noised_batch, data=data, schedule=schedule, null=null, config=config)

    clock = time.perf_counter()
    recent = deque([(start, clock)], maxlen=51)
    batch = draw(start)
    for step in range(start, config.steps):
        x0, labels, t, eps = (part[mine].to(place, non_blocking=True) for part in batch)
        x = schedule.add_noise(x0, eps, t).contiguous(memory_format=torch.channels_last)
        lr = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with accelerator.autocast():
            predicted = wrapped(x, t, labels) if null else wrapped(x, t)
        loss = F.mse_loss(predicted.float(), training_target(x0, eps, t, schedule, config.prediction))
        accelerator.backward(loss)
        if config.clip_grad is not None:
            accelerator.clip_grad_norm_(wrapped.parameters(), config.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(model)
        mean_loss = accelerator.reduce(loss.detach(), reduction="mean")
        batch = draw(step + 1)  # before the wait for a GPU, which is still busy with this step
        loss_value = mean_loss.item()
        if not math.isfinite(loss_value):
            if new and accelerator.is_main_process and not checkpoint.exists():
                _remove_empty_run(out)
            kept = f"the last good checkpoint is '{checkpoint}'" if checkpoint.exists() else "there is no checkpoint"
            raise UserError(f"the loss became {loss_value} at step {step + 1}; {kept}; try a lower learning rate")

        now, done = time.perf_counter(), step + 1
        recent.append((done, now))
        rate = (done - recent[0][0]) * config.batch_size / (now - recent[0][1])
        state = TrainState(done, config.steps, loss_value, lr, rate, elapsed + now - clock, model, ema.module)
        metrics.add(done, loss_value, lr, rate)
        saving, showing = (done % every == 0 or done == config.steps for every in (checkpoint_every, preview_every))
        showing = showing and preview is not None
        if saving or showing:
            _on_main(accelerator, partial(keep, state, saving, showing))
        yield state


def _accelerator(device: torch.device | str | None, precision: str) -> tuple[Any, torch.device]:
    """accelerate's `Accelerator` of this process, and where to compute."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    try:
        wanted = None if device is None else torch.device(device)
        # accelerate would keep the device and precision of this process's first run for all that follow
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        AcceleratorState._reset_state(reset_partial_state=not shared)
        accelerator = Accelerator(
            cpu=wanted is not None and wanted.type == "cpu", mixed_precision=precision, device_placement=False
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot train on '{device or 'this machine'}' in '{precision}': {error}") from error
    place = accelerator.device
    if wanted is not None and wanted.type != place.type:
        raise UserError(f"cannot train on '{device}': this machine has '{place.type}'")
    single = accelerator.num_processes == 1
    return accelerator, wanted if wanted is not None and single else place


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
    if failure[0] is not None:
        raise UserError(failure[0])


def _remove_empty_run(out: Path) -> None:
    """Remove the folder of a run that kept nothing but the header of its metrics."""
    with suppress(OSError):
        if [path.name for path in out.iterdir()] == ["metrics.csv"]:
            (out / "metrics.csv").unlink()
            out.rmdir()


def _check_fit(model: nn.Module, data: ImageArrays, null: int) -> None:
    if len(data) == 0:
        raise UserError("there are no images to train on")
    channels = data.images.shape[1]
    if channels != model.in_channels:
        raise UserError(f"the model takes {model.in_channels} channels, the images have {channels}")
    height, width = data.images.shape[2:]
    config = getattr(model, "config", {})
    wanted = config.get("height", height), config.get("width", width)
    if (height, width) != wanted:
        raise UserError(f"the model takes images of {wanted[0]}×{wanted[1]}, not {height}×{width}")
    if null and int(data.labels.max()) >= null:
        raise UserError(f"label {int(data.labels.max())} is out of range; the model knows labels 0 to {null - 1}")


def _generator(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on every number of `key`, and on their order."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
