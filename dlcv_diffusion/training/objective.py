"""What a run optimises: a model, a batch for every step, and the loss of that batch. Diffusion's is DDPM's eq. 14.

Everything random in step k (which samples, which timesteps, which noise, which labels are dropped) follows from
(seed, k) alone, drawn on the CPU for the whole batch. So a run that is killed goes on to the same weights, and several
processes, each of which takes its share of the batch, follow the path of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..denoiser import training_target
from ..errors import check
from ..guidance import drop_labels
from ..images.arrays import ImageArrays
from ..models.registry import save_model, short_hash
from ..schedule import NoiseSchedule
from .config import RunConfig, TrainConfig


class Objective(Protocol):
    """What `run` optimises; a subclass says how.

    - model: all that the loss computes with, in one module. Its parameters that require a gradient train and are
      averaged; the others, and modules that have no others, stay as they are, in eval mode, and out of the checkpoint.
    - facts: plain JSON that makes the run what it is, kept in the checkpoint and with the weights.
    """

    model: nn.Module
    facts: Mapping[str, Any]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """What step `step` trains on, (batch_size, …) each, on the CPU: a function of the seed and `step` alone."""

    def loss(self, network: Callable[..., Any], *batch: Tensor) -> Tensor:
        """The mean loss, (), of a batch on the device; `network` is the model, in the run's precision.

        It is called once, as the model is, and nothing else of the model is used: it may be compiled or shared. With
        `accumulate`, the batch is a part of the step's.
        """

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        """Write what a finished run leaves, the averaged model, with its facts."""
        save_model(average, path, facts)


@dataclass(frozen=True)
class DiffusionObjective(Objective):
    """E‖ε − ε_θ(√ᾱ_t x0 + √(1−ᾱ_t) ε, t, c)‖² (DDPM, eq. 14) with label drop; v or x0 for ε, as `config` says.

    Raises `UserError` for data whose size or labels do not fit the model, or a model without in_channels.

    >>> objective = DiffusionObjective(model, data, NoiseSchedule.linear(350), TrainConfig(steps=9))  # doctest: +SKIP
    >>> loss = objective.loss(model, *objective.batch(0))                                             # doctest: +SKIP
    """

    model: nn.Module
    data: ImageArrays
    schedule: NoiseSchedule
    config: TrainConfig

    def __post_init__(self) -> None:
        images, model = self.data.images, self.model
        check(len(images), "there are no images to train on")
        drawn = getattr(model, "shape", None) or (getattr(model, "in_channels", None), *images.shape[2:])
        check(drawn[0], f"a {type(model).__name__} does not say what it takes; give it an attribute in_channels")
        made, wanted = ("×".join(map(str, shape)) for shape in (images.shape[1:], drawn))
        check(made == wanted, f"the model takes images of {wanted} (channels, height, width), not {made}")
        for label in map(int, self.data.labels.aminmax()):
            known = 0 <= label < self.null or not self.null
            check(known, f"label {label} is out of range; the model knows labels 0 to {self.null - 1}")

    @property
    def null(self) -> int:
        """The label that stands for none; 0 where the model takes no labels."""
        return getattr(self.model, "num_classes", 0)

    @cached_property
    def facts(self) -> dict[str, Any]:
        return {"schedule": self.schedule.config, "data_hash": short_hash([self.data.images, self.data.labels])}

    def batch(self, step: int) -> tuple[Tensor, ...]:
        return noised_batch(step, self.data, self.schedule, self.null, self.config)

    def loss(self, network: Callable[..., Tensor], *batch: Tensor) -> Tensor:
        x0, labels, t, eps = batch
        x = self.schedule.add_noise(x0, eps, t).contiguous(memory_format=torch.channels_last)
        predicted = network(x, t, labels) if self.null else network(x, t)
        return F.mse_loss(predicted.float(), self.target(x, x0, labels, t, eps))

    def target(self, x: Tensor, x0: Tensor, labels: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should have given for x_t, (B, C, H, W), as the prediction of `config`."""
        return training_target(x0, eps, t, self.schedule, self.config.prediction)


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
    generator = generator_of(config.seed, 2, step)
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


def batch_indices(step: int, size: int, config: RunConfig) -> Tensor:
    """Rows of the data set that step `step` trains on, (batch_size,) int64: epoch after epoch of seeded permutations.

    >>> batch_indices(0, 10, RunConfig(steps=5, batch_size=10)).sort().values.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    first = step * config.batch_size
    epochs = range(first // size, (first + config.batch_size - 1) // size + 1)
    order = torch.cat([_permutation(size, config.seed, epoch) for epoch in epochs])
    return order[first - epochs[0] * size :][: config.batch_size]


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=generator_of(seed, 1, epoch))


def generator_of(*key: int) -> torch.Generator:
    """A CPU generator whose stream depends on every number of `key`, and on their order: (seed, purpose, step).

    >>> torch.equal(torch.rand(2, generator=generator_of(0, 1)), torch.rand(2, generator=generator_of(1, 0)))
    False
    """
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
