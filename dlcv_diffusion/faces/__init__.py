"""Problem 2: faces from noises by DDIM, from the data to the folder that is handed in."""

from .data import load_faces
from .noises import read_noises, write_noises
from .sampling import COURSE, PAPER, PRESETS, FaceSampling, draw, sample_faces, write_hw2_faces

__all__ = [
    "COURSE",
    "PAPER",
    "PRESETS",
    "FaceSampling",
    "draw",
    "load_faces",
    "read_noises",
    "sample_faces",
    "write_hw2_faces",
    "write_noises",
]
