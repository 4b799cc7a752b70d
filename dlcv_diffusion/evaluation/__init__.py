"""Measuring what was sampled: digits read by a judge, Fréchet distances, copies, and the course's grading."""

from .digits import (
    DigitsReport,
    HalfAccuracy,
    HalfReport,
    Nearest,
    evaluate_digits,
    frechet_distance,
    judge_accuracy,
    nearest_neighbours,
    nearest_training,
)
from .hw2 import Grade, grade_digits
from .hw2_faces import FacesGrade, grade_faces
from .judge import Judge, load_judge

__all__ = [
    "DigitsReport",
    "FacesGrade",
    "Grade",
    "HalfAccuracy",
    "HalfReport",
    "Judge",
    "Nearest",
    "evaluate_digits",
    "frechet_distance",
    "grade_digits",
    "grade_faces",
    "judge_accuracy",
    "load_judge",
    "nearest_neighbours",
    "nearest_training",
]
