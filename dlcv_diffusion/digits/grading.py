"""Grading as the course does it: the folder that is handed in for Problem 1, read by a digit classifier for each half.

The course's own classifiers are a LeNet for MNIST-M, whose file `Classifier.pth` comes with the homework and is read
here on request, and a ResNet-34 from a hub for SVHN; our judge stands in where they are not at hand.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..images.arrays import to_x0
from ..images.pictures import read_rgb
from .course import HALVES
from .evaluation import HALF_NAMES, HalfAccuracy, accuracy_of_reading
from .judge import Judge, default_judge

PER_DIGIT = 50
OUR_JUDGE = "our judge"
LITTER = ("thumbs.db", "desktop.ini")
"""What Windows leaves in folders, ignored as dotfiles are."""
BASELINES = {"simple": 0.90, "strong": 0.95}
"""The course's thresholds for the mean of both accuracies (2023)."""


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
    """The result of `grade_digits`: a `HalfAccuracy` for "mnistm" and "svhn", and who read each half."""

    halves: dict[str, HalfAccuracy]
    read_by: dict[str, str]

    @property
    def accuracy(self) -> float:
        """The course's score: the mean of both accuracies."""
        return sum(half.accuracy for half in self.halves.values()) / len(self.halves)

    @property
    def passed(self) -> list[str]:
        """The names of the course's baselines that the score reaches: "simple" (90 %), "strong" (95 %)."""
        return [name for name, least in BASELINES.items() if self.accuracy >= least]

    def __str__(self) -> str:
        lines = [f"{'':15}{'images':>7}{'accuracy':>10}   {'a digit, 0 … 9 (%)':41}read by"]
        for name, half in self.halves.items():
            digits = " ".join(f"{100 * share:3.0f}" for share in half.per_digit)
            lines.append(
                f"{HALF_NAMES[name]:15}{half.count:7}{100 * half.accuracy:9.1f}%   {digits:41}{self.read_by[name]}"
            )
        mean = f"{'mean':22}{100 * self.accuracy:9.1f}%"
        if OUR_JUDGE in self.read_by.values():
            about = "read by our judge, not by the course's classifiers: no statement about the course's baselines"
            return "\n".join([*lines, mean, about])
        reached = ", ".join(
            f"{'reaches' if name in self.passed else 'misses'} the {name} baseline ({100 * least:.0f} %)"
            for name, least in BASELINES.items()
        )
        return "\n".join([*lines, f"{mean}   {reached}"])


def grade_digits(
    folder: str | Path,
    mnistm_classifier: str | Path | None = None,
    *,
    judge: Judge | None = None,
    per_digit: int = PER_DIGIT,
) -> Grade:
    """Grade the folder that the course asks for: `mnistm/{digit}_{001..050}.png` and `svhn/…`, RGB pictures of 28×28.

    - mnistm_classifier: the course's `Classifier.pth`; it then reads the MNIST-M half instead of our judge.
    - judge: the package's own by default. per_digit: how many pictures of each digit there must be.

    Raises `UserError` for a missing folder, a file with another name, a picture that is missing, is none or has
    another size, and a classifier file that is not the course's.

    >>> print(grade_digits("hw2_output/digits"))   # doctest: +SKIP
                    images  accuracy   a digit, 0 … 9 (%)                       read by
    MNIST-M            500     98.4%    98 100  98  96 100  98 100  98  96 100  our judge
    street digits      500     99.8%   100 100 100 100 100 100 100 100  98 100  our judge
    mean                       99.1%
    read by our judge, not by the course's classifiers: no statement about the course's baselines
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder: '{folder}'; give the one that holds mnistm/ and svhn/")
    lenet = load_course_classifier(mnistm_classifier) if mnistm_classifier is not None else None
    halves, read_by = {}, {}
    pictures = {name: read_half(folder / name, per_digit) for name in HALVES}
    judge = judge or default_judge()
    for half, (name, (images, digits)) in enumerate(pictures.items()):
        if name == "mnistm" and lenet is not None:
            with torch.no_grad():
                read = lenet(to_x0(images)).argmax(1)
            read_by[name] = Path(mnistm_classifier).name
        else:
            read, _ = judge.read(images, half)
            read_by[name] = OUR_JUDGE
        halves[name] = accuracy_of_reading(read, digits)
    return Grade(halves, read_by)


def read_half(folder: str | Path, per_digit: int = PER_DIGIT) -> tuple[Tensor, Tensor]:
    """Images (10 · per_digit, 3, 28, 28) uint8 and digits of one half. Raises `UserError` as `grade_digits` does.

    >>> images, digits = read_half("hw2_output/digits/mnistm")   # doctest: +SKIP
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder '{folder.name}' in '{folder.parent}'; the course asks for mnistm/ and svhn/")
    names = [f"{digit}_{number:03d}.png" for digit in range(10) for number in range(1, per_digit + 1)]
    listed = [path.name for path in folder.iterdir()]
    there = {name for name in listed if not name.startswith(".") and name.lower() not in LITTER}
    strange = sorted(there.difference(names))
    missing = [name for name in names if name not in there]
    wanted = f"{len(names)} pictures, 0_001.png … 9_{per_digit:03d}.png"
    expected = f"the course asks for {wanted}" if per_digit == PER_DIGIT else f"there should be {wanted}"
    if strange:
        why = "" if re.fullmatch(r"\d_\d{3}\.png", strange[0]) else " (digit, underline, three figures, .png)"
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise UserError(f"'{folder}' holds '{strange[0]}'{more}, a name that does not belong there; {expected}{why}")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"'{folder}' lacks '{missing[0]}'{more}: {len(there)} pictures there; {expected}; "
            "for another number of each digit, give per_digit (--count)"
        )
    images = np.stack([_read_picture(folder / name) for name in names])
    digits = torch.arange(10).repeat_interleave(per_digit)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), digits


def load_course_classifier(path: str | Path) -> CourseLeNet:
    """The course's LeNet from `Classifier.pth`, a dictionary with the weights under "state_dict"; no code in it is run.

    Raises `UserError` for a file that is missing, or anything else.

    >>> load_course_classifier("Classifier.pth")(torch.zeros(1, 3, 28, 28)).shape   # doctest: +SKIP
    torch.Size([1, 10])
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"no classifier at '{path}'; give the course's Classifier.pth, or leave it out to use our judge"
        )
    wrong = f"'{path}' is not the course's MNIST-M classifier (a LeNet's weights under the key 'state_dict')"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can fail in any way: zipfile, pickle, Unicode, memory
        raise UserError(f"{wrong}: it cannot be read as a PyTorch file of plain weights") from error
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{wrong}: it holds something else")
    classifier = CourseLeNet()
    try:
        classifier.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{wrong}: it holds the weights of another network") from error
    return classifier.eval()


def _read_picture(path: Path) -> np.ndarray:
    picture = read_rgb(path, "write it again as PNG")
    height, width, _ = picture.shape
    if (height, width) != (28, 28):
        raise UserError(f"'{path}' is {width}×{height}; the course asks for 28×28")
    return picture
