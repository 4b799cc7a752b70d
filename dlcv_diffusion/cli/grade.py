"""`dlcv grade …`"""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from . import options
from .options import examples, group

app = group(
    "Grade a folder of images as the course does.",
    "dlcv grade digits out",
    "dlcv grade faces out hw2_data/face/GT",
    "dlcv grade personalisation textual_inversion/input.json textual_inversion out",
)


@app.command(
    "digits", epilog=examples("dlcv grade digits out", "dlcv grade digits out --mnistm-classifier Classifier.pth")
)
def digits(
    folder: Annotated[Path, Argument(metavar="OUT_DIR", help="with mnistm/ and svhn/ in it")],
    mnistm_classifier: Annotated[Path | None, Option(help="the course's LeNet file, instead of our judge")] = None,
    count: Annotated[int, Option(help="images of each class; the course asks for 50", min=1, max=999)] = 50,
) -> None:
    """Accuracy of a digit classifier on both halves."""
    from ..digits.grading import grade_digits

    print(grade_digits(folder, mnistm_classifier=mnistm_classifier, per_digit=count))


@app.command("faces", epilog=examples("dlcv grade faces out hw2_data/face/GT"))
def faces(
    out: Annotated[Path, Argument(metavar="OUT_DIR", help="with your 00.png …")],
    gt: Annotated[Path, Argument(metavar="GT_DIR", help="the course's, with files of the same names")],
) -> None:
    """Mean squared error of each image, and their mean.

    Below 20 it passes; else the exit code is 1.
    """
    from ..faces.grading import grade_faces

    grade = grade_faces(out, gt)
    print(grade)
    raise typer.Exit(0 if grade.passed else 1)


@app.command(
    "personalisation",
    epilog=examples(
        "dlcv grade personalisation input.json textual_inversion out --clip ViT-B-32 --pretrained openai",
        "dlcv grade personalisation input.json pictures out     (by the CLIP that ships)",
    ),
)
def personalisation(
    source: Annotated[Path, Argument(metavar="INPUT_JSON", help="the course's input.json")],
    photographs: Annotated[Path, Argument(metavar="INPUT_DIR", help="with 0/, 1/ …, each concept's pictures")],
    out: Annotated[Path, Argument(metavar="OUT_DIR", help="with your 0/0/source0_prompt0_0.png …")],
    clip: options.Clip = "emoji",
    pretrained: options.Pretrained = None,
    quick_gelu: options.QuickGelu = None,
    count: Annotated[int, Option(help="pictures a prompt; the course asks for 25", min=1, max=999)] = 25,
    device: options.Device = None,
) -> None:
    """CLIP scores of the best 5 of 25 pictures a prompt.

    Both have to reach the baseline of the prompt; where one fails, the exit code is 1.
    """
    from ..models.clip import load_clip
    from ..personalisation.course import handed_in_paths, read_input
    from ..personalisation.grading import grade_personalisation

    handed_in_paths(out, read_input(source, graded=True), count)  # before weights are read
    read_by = load_clip(clip, pretrained, device, quick_gelu=quick_gelu)
    grade = grade_personalisation(source, photographs, out, read_by, count=count)
    print(grade)
    raise typer.Exit(0 if grade.passed else 1)
