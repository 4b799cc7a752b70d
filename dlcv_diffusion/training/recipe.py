"""Recipes: which network, schedule and settings make which weights. Small and declarative."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..models.registry import build_model
from ..schedule import NoiseSchedule
from .config import TrainConfig


@dataclass(frozen=True)
class Recipe:
    """A network (`model`, `config`), the timesteps of its linear schedule, and how it is trained.

    >>> recipe = DIGITS["tiny"]
    >>> model, schedule = recipe.build(seed=0), recipe.schedule()
    """

    model: str
    config: Mapping[str, Any]
    timesteps: int
    train: TrainConfig

    def build(self, seed: int = 0, **config: Any) -> nn.Module:
        """A new network whose initial weights follow from `seed` alone; torch's own seed stays as it was.

        `config` is set otherwise than in the recipe, such as in_channels=1.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_model(self.model, {**self.config, "timesteps": self.timesteps, **config})

    def schedule(self) -> NoiseSchedule:
        """Linear betas 1e-4 → 2e-2 over `timesteps`."""
        return NoiseSchedule.linear(self.timesteps)
