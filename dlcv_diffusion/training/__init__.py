"""Training: the loop (`train`) and the recipes that use it."""

from .loop import TrainConfig, TrainState, train
from .recipes import DIGITS, Recipe, digits_recipe

__all__ = ["DIGITS", "Recipe", "TrainConfig", "TrainState", "digits_recipe", "train"]
