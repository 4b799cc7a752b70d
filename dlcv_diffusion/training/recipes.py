"""Recipes: which network, schedule and settings make which weights. Small and declarative."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..models.registry import build_model
from ..schedule import NoiseSchedule
from .loop import TrainConfig


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


REPORT_EPOCH = 678  # batches of 200 in an epoch of the report's 135,000 or so training images

DIGITS: Mapping[str, Recipe] = {
    # the report's network and settings, to the letter
    "report": Recipe(
        "ContextUnet",
        {"in_channels": 3, "height": 28, "width": 28, "n_feat": 128, "n_cfeat": 20, "n_downs": 2},
        350,
        TrainConfig(steps=50 * REPORT_EPOCH, batch_size=200, lr=1e-4, weight_decay=1e-5, warmup=0, ema_decay=0.999),
    ),
    # what ships: the DDPM paper's U-Net in a size that two CPU cores train in about an hour and a half
    "small": Recipe(
        "UNet",
        {"in_channels": 3, "channels": (64, 96), "blocks": (1, 2), "emb_channels": 128, "num_classes": 20},
        350,
        TrainConfig(steps=8_900, lr=1e-3, weight_decay=0.0, warmup=300, ema_decay=0.999, clip_grad=1.0),
    ),
    # a minute on a part of the embedded sample, for notebook 02 and for looking around: small batches make many steps,
    # and v asks for the digit where ε would ask for a copy of the input
    "tiny": Recipe(
        "UNet",
        {"in_channels": 3, "channels": (32, 48), "blocks": 1, "emb_channels": 64, "num_classes": 20},
        350,
        TrainConfig(
            steps=1_300,
            batch_size=16,
            lr=3e-3,
            weight_decay=0.0,
            warmup=50,
            ema_decay=0.99,
            clip_grad=1.0,
            prediction="v",
        ),
    ),
}


def digits_recipe(preset: str) -> Recipe:
    """The recipe "report", "small" or "tiny"; `UserError` for any other name.

    >>> digits_recipe("report").train.batch_size
    200
    """
    if preset not in DIGITS:
        raise UserError(f"unknown preset '{preset}'; choose one of: {', '.join(DIGITS)}")
    return DIGITS[preset]


FACES: Mapping[str, Recipe] = {
    # what ships: 4×4 pixels folded into channels, so that the work is done at 16×16 and below; 2½ hours on two cores
    "small": Recipe(
        "UNet",
        {
            "channels": (64, 96, 112),
            "blocks": (1, 2, 1),
            "attention": (False, True, True),
            "patch": 4,
            "emb_channels": 128,
        },
        1000,
        TrainConfig(
            steps=14_000,
            lr=1e-3,
            weight_decay=0.0,
            warmup=300,
            ema_decay=0.999,
            clip_grad=1.0,
            flip=True,
            decay=0.4,
            prediction="v",
            noise_levels=(
                -0.3,
                1.3,
            ),  # where a face takes its shape; uniform timesteps spend half their time above σ = 3
        ),
    ),
    # a few minutes, for looking around
    "tiny": Recipe(
        "UNet",
        {"channels": (32, 48), "blocks": 1, "patch": 4, "emb_channels": 64},
        1000,
        TrainConfig(
            steps=1_000, lr=2e-3, weight_decay=0.0, warmup=50, ema_decay=0.99, clip_grad=1.0, flip=True, prediction="v"
        ),
    ),
}


def faces_recipe(preset: str) -> Recipe:
    """The recipe "small" or "tiny" of the faces; `UserError` for any other name.

    >>> faces_recipe("small").timesteps
    1000
    """
    if preset not in FACES:
        raise UserError(f"unknown preset '{preset}'; choose one of: {', '.join(FACES)}")
    return FACES[preset]
