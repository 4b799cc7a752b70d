"""Grading faces as the course does it: the mean squared error of 8-bit images against the course's own."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import check
from ..evaluation.handed_in import first_of, read_picture
from ..images.folders import names_in

PASS_BELOW = 20.0
"""The course's threshold for the mean over all images."""


@dataclass(frozen=True)
class FacesGrade:
    """The result of `grade_faces`: the mean squared error of each image, by its name, in squared levels of 255."""

    mse: dict[str, float]

    @property
    def mean(self) -> float:
        """The course's score: the mean over all images."""
        return sum(self.mse.values()) / len(self.mse)

    @property
    def passed(self) -> bool:
        """Whether the mean is below the course's 20."""
        return self.mean < PASS_BELOW

    def __str__(self) -> str:
        width = max(4, *map(len, self.mse))
        lines = [f"{'':{width}}{'MSE':>10}", *(f"{name:{width}}{mse:10.2f}" for name, mse in self.mse.items())]
        verdict = f"PASS: below {PASS_BELOW:g}" if self.passed else f"FAIL: not below {PASS_BELOW:g}"
        return "\n".join([*lines, f"{'mean':{width}}{self.mean:10.2f}   {verdict}"])


def grade_faces(out: str | Path, gt: str | Path) -> FacesGrade:
    """Compare each picture `00.png …` of the folder `gt` with the one of the same name in `out`.

    The differences are taken in floating point: in 8 bits, 0 − 1 would be 255. Other files in `out` are ignored, and
    hidden ones in both.

    Raises `UserError` for a folder that is missing or has no pictures, a picture that is missing in `out`, is none, or
    has another size.

    >>> print(grade_faces("out", "hw2_data/face/GT"))   # doctest: +SKIP
                 MSE
    00.png      1.41
    01.png      1.27
    mean        1.34   PASS: below 20
    """
    out, gt = Path(out), Path(gt)
    there = names_in(out, "give the one that holds your images, 00.png …")
    names = [name for name in names_in(gt, "give the course's images, face/GT") if name.lower().endswith(".png")]
    check(names, f"'{gt}' holds no pictures (00.png, 01.png, …); give the course's folder face/GT")
    missing = [name for name in names if name not in there]
    check(not missing, f"'{out}' lacks {first_of(missing)}; there must be a picture for each of the {len(names)}")
    return FacesGrade({name: _mse(out / name, gt / name) for name in names})


def _mse(out: Path, gt: Path) -> float:
    ours, theirs = (read_picture(path).astype(np.float64) for path in (out, gt))
    size, wanted = (f"{pixels.shape[1]}×{pixels.shape[0]}" for pixels in (ours, theirs))
    check(size == wanted, f"'{out}' is {size}, but '{gt}' is {wanted}; images are compared at the same size")
    return float(np.mean((ours - theirs) ** 2))
