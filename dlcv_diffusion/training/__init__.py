"""Training: the loop for any objective (`run`), diffusion's (`train`), and what a recipe is.

The recipes themselves stand with their problems.
"""

from .config import RunConfig, TrainConfig
from .loop import TrainState, run, train
from .objective import DiffusionObjective, Objective
from .recipe import Recipe

__all__ = ["DiffusionObjective", "Objective", "Recipe", "RunConfig", "TrainConfig", "TrainState", "run", "train"]
