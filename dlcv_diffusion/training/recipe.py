"""Recipes: which network, schedule and settings make which weights. Small and declarative."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ..denoiser import Denoiser
from ..errors import check
from ..files import atomic_write
from ..images.arrays import ImageArrays
from ..models.loading import own_denoiser
from ..models.registry import build_model
from ..noise import seeded_weights
from ..schedule import NoiseSchedule
from .config import TrainConfig, with_options
from .distillation import Distillation, student_of
from .loop import TrainState, run
from .objective import DiffusionObjective

OURS: Mapping[str, Any] = {"warmup": 300, "weight_decay": 0.0, "clip_grad": 1.0}
"""Settings of the weights that ship."""
QUICK: Mapping[str, Any] = {**OURS, "warmup": 50, "ema_decay": 0.99}
"""Settings of a run of minutes, whose average must not look back for long."""


@dataclass(frozen=True)
class Recipe:
    """A network (`model`, `config`), the timesteps of its linear schedule, and how it is trained.

    >>> from dlcv_diffusion.digits.recipes import DIGITS
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
        with seeded_weights(seed):
            return build_model(self.model, {**self.config, "timesteps": self.timesteps, **config})

    def schedule(self) -> NoiseSchedule:
        """Linear betas 1e-4 → 2e-2 over `timesteps`."""
        return NoiseSchedule.linear(self.timesteps)

    def run(
        self,
        data: ImageArrays,
        out: str | Path,
        facts: Mapping[str, Any],
        preview: Callable[[Denoiser, Path], None],
        options: Mapping[str, Any],
        teacher: Denoiser | None = None,
    ) -> Iterator[TrainState]:
        """Train a new network on data; with a teacher a copy of its network, which learns to answer as the teacher.

        - facts: kept with the weights; preview: draws with the denoiser that they make of the network so far.
        - options: those of `training.run`, and fields of `TrainConfig` to set otherwise than the recipe.
        """
        rest = dict(options)
        config = with_options(self.train, rest)
        if teacher:
            objective = Distillation(student_of(teacher), data, teacher.schedule, config, teacher)
        else:
            model = self.build(config.seed, in_channels=data.images.shape[1])
            objective = DiffusionObjective(model, data, self.schedule(), config)
        facts = {"images": len(data), **facts}
        drawn = {**facts, "schedule": objective.schedule.config, "train": asdict(config)}

        rest["preview"] = lambda network, path: preview(own_denoiser(network, drawn), path)
        return run(objective, config, out, metadata=facts, **rest)


AnyRecipe = TypeVar("AnyRecipe")


def recipe_of(recipes: Mapping[str, AnyRecipe], preset: str) -> AnyRecipe:
    """The recipe of this name; `UserError` for any other."""
    check(preset in recipes, f"unknown preset '{preset}'; choose one of: {', '.join(recipes)}")
    return recipes[preset]


def write_sheet(images: Tensor, path: str | Path, columns: int) -> None:
    """Write uint8 images (N, C, H, W) as one picture; of channels that are neither grey nor RGB the first, or three.

    >>> write_sheet(images, "runs/digits/samples/step_001000.png", columns=12)   # doctest: +SKIP
    """
    from torchvision.utils import save_image

    shown = images[:, : 3 if images.shape[1] >= 3 else 1]
    with atomic_write(path) as temporary:
        save_image(shown / 255, temporary, nrow=columns, padding=1)
