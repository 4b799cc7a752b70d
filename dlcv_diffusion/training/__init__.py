"""Training: the loop (`train`), and what a recipe is. The recipes themselves stand with their problems."""

from .loop import TrainConfig, TrainState, train
from .recipe import Recipe

__all__ = ["Recipe", "TrainConfig", "TrainState", "train"]
