"""Grading as the course does it: the folder that is handed in for Problem 1, read by a digit classifier for each half.

The course's own classifiers are a LeNet for MNIST-M, whose file `Classifier.pth` comes with the homework and can be
given here, and a ResNet-34 from a hub for SVHN; our judge reads SVHN in its place, and MNIST-M without that file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check
from ..evaluation.accuracy import Accuracy, accuracy_of
from ..evaluation.handed_in import first_of, read_picture
from ..images.folders import names_in
from ..images.pixels import to_x0
from ..models.registry import filled
from ..tensors import read_state_dict
from .course import HALF_FOLDERS
from .evaluation import table_line
from .judge import Judge, default_judge


class CourseLeNet(nn.Module):
    """The course's MNIST-M classifier: x (B, 3, 28, 28) in [-1, 1] to logits (B, 10). 44,674 parameters."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.conv1(x)), 2)
        h = F.max_pool2d(F.relu(self.conv2(h)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(h)))))


@dataclass(frozen=True)
class Grade:
    """The result of `grade_digits`: an `Accuracy` for "mnistm" and "svhn", and who read each half."""

    halves: dict[str, Accuracy]
    read_by: dict[str, str]

    @property
    def accuracy(self) -> float:
        """The course's score: the mean of both accuracies."""
        return sum(half.accuracy for half in self.halves.values()) / len(self.halves)

    def __str__(self) -> str:
        lines = [f"{'':8}{'images':>7}{'accuracy':>10}   {'a digit, 0 … 9 (%)':41}read by"]
        lines += [f"{table_line(name, half):69}{self.read_by[name]}" for name, half in self.halves.items()]
        said = "svhn is read by our judge, not by the course's classifier: no statement about the course's baselines"
        return "\n".join([*lines, f"{'mean':15}{100 * self.accuracy:9.1f}%", said])


def grade_digits(
    folder: str | Path, mnistm_classifier: str | Path | None = None, *, judge: Judge | None = None, per_digit: int = 50
) -> Grade:
    """Grade the folder that the course asks for: `mnistm/{digit}_{001..050}.png` and `svhn/…`, RGB pictures of 28×28.

    - mnistm_classifier: the course's `Classifier.pth`; it then reads the MNIST-M half instead of our judge.
    - judge: the package's own by default. per_digit: how many pictures of each digit there must be.

    Hidden files and what Windows leaves (`Thumbs.db`, `desktop.ini`) are ignored. Raises `UserError` for a missing
    folder, a file with another name, a picture that is missing, is none or has another size, and a classifier file
    that is not the course's.

    >>> print(grade_digits("hw2_output/digits"))   # doctest: +SKIP
             images  accuracy   a digit, 0 … 9 (%)                       read by
    mnistm      500     98.4%    98 100  98  96 100  98 100  98  96 100  our judge
    svhn        500     99.8%   100 100 100 100 100 100 100 100  98 100  our judge
    mean                99.1%
    svhn is read by our judge, not by the course's classifier: no statement about the course's baselines
    """
    check(os.path.isdir(folder), f"no such folder: '{folder}'; give the one that holds mnistm/ and svhn/")
    pictures = {name: read_half(Path(folder) / name, per_digit) for name in HALF_FOLDERS}
    judge = judge or default_judge()
    read = {name: judge.read(images, half)[0] for half, (name, (images, _)) in enumerate(pictures.items())}
    read_by = dict.fromkeys(HALF_FOLDERS, "our judge")
    if mnistm_classifier is not None:
        with torch.no_grad():
            read["mnistm"] = load_course_classifier(mnistm_classifier)(to_x0(pictures["mnistm"][0])).argmax(1)
        read_by["mnistm"] = f"the LeNet in {Path(mnistm_classifier).name}"
    return Grade({name: accuracy_of(read[name], digits, 10) for name, (_, digits) in pictures.items()}, read_by)


def read_half(folder: str | Path, per_digit: int = 50) -> tuple[Tensor, Tensor]:
    """Images (10 · per_digit, 3, 28, 28) uint8 and digits of one half. Raises `UserError` as `grade_digits` does.

    >>> images, digits = read_half("hw2_output/digits/mnistm")   # doctest: +SKIP
    """
    folder = Path(folder)
    check(1 <= per_digit <= 999, f"pictures are numbered from 001 to 999; there cannot be {per_digit} of each digit")
    wanted = {f"{digit}_{number:03d}.png": digit for digit in range(10) for number in range(1, per_digit + 1)}
    there = names_in(folder, f"give {10 * per_digit} pictures; the course asks for mnistm/ and svhn/")
    strange, missing = [name for name in there if name not in wanted], [name for name in wanted if name not in there]
    expected = f"there should be {len(wanted)} pictures, 0_001.png … 9_{per_digit:03d}.png"
    check(not strange, f"'{folder}' holds {first_of(strange)}, a name that does not belong there; {expected}")
    expected += "; for another number of each digit, give per_digit (--count)"
    check(not missing, f"'{folder}' lacks {first_of(missing)}: {len(there)} pictures there; {expected}")
    images = np.empty((len(wanted), 28, 28, 3), np.uint8)
    for row, name in enumerate(wanted):
        picture = read_picture(folder / name)
        height, width, _ = picture.shape
        check((height, width) == (28, 28), f"'{folder / name}' is {width}×{height}; the course asks for 28×28")
        images[row] = picture
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(list(wanted.values()))


def load_course_classifier(path: str | Path) -> CourseLeNet:
    """The course's LeNet from `Classifier.pth`, or any other file that `read_state_dict` reads; no code in it is run.

    Raises `UserError` for a file that is missing, or weights that are another network's or not finite.

    >>> load_course_classifier("Classifier.pth")(torch.zeros(1, 3, 28, 28)).shape   # doctest: +SKIP
    torch.Size([1, 10])
    """
    with torch.device("meta"):
        classifier = CourseLeNet()
    return filled(classifier, read_state_dict(path), path).eval()
