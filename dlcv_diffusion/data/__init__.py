"""Data sources: each gives `ImageArrays`, images uint8 (N, C, H, W) with integer labels."""

from .arrays import ImageArrays
from .digits import load_digits

__all__ = ["ImageArrays", "load_digits"]
