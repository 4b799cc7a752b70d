"""Data sources: each gives `ImageArrays`, images uint8 (N, C, H, W) with integer labels."""

from .arrays import ImageArrays
from .digits import load_digits
from .faces import load_faces
from .noises import read_noises, write_noises

__all__ = ["ImageArrays", "load_digits", "load_faces", "read_noises", "write_noises"]
