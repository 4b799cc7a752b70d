"""Training: the loop (`train`) and the recipes that use it."""

from .loop import TrainConfig, TrainState, train
from .recipes import DIGITS, FACES, Recipe, digits_recipe, faces_recipe

__all__ = ["DIGITS", "FACES", "Recipe", "TrainConfig", "TrainState", "digits_recipe", "faces_recipe", "train"]
