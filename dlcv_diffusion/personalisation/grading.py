"""Grading personalisation as the course does it: CLIP compares the best 5 of 25 with photographs and prompt."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..images.folders import picture_names
from ..images.pictures import REPLACE, open_picture
from ..models.clip import Clip
from .course import PER_PROMPT, handed_in_paths, read_input

BEST = 5
COURSES = ("ViT-B-32, openai", "hf-hub:openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32")
"""What `load_clip` calls the CLIP that the course grades with."""
AT_ONCE = 64
"""Pictures that CLIP reads at a time."""
TEXT_WEIGHT = 2.5
"""How much the text score counts beside the image score, of which a point is easier to gain."""


@dataclass(frozen=True)
class PromptGrade:
    """One prompt's result: means over the best five of 100 · cosine, with the concept's pictures and with the text.

    - image, text: the scores; baseline: what they have to reach, both; best: numbers of the five pictures.
    """

    concept: str
    prompt: str
    image: float
    text: float
    baseline: tuple[float, float]
    best: tuple[int, ...]

    @property
    def passed(self) -> bool:
        return self.image >= self.baseline[0] and self.text >= self.baseline[1]


@dataclass(frozen=True)
class PersonalisationGrade:
    """The result of `grade_personalisation`: a `PromptGrade` for each prompt, and which CLIP read them."""

    prompts: list[PromptGrade]
    clip: str

    @property
    def passed(self) -> bool:
        """Whether every prompt reached its baseline."""
        return all(each.passed for each in self.prompts)

    def __str__(self) -> str:
        lines = [f"{'':9}{'image':>7}{'needed':>8}{'text':>7}{'needed':>8}   prompt"]
        for each in self.prompts:
            image, text = each.baseline
            scores = f"{each.image:7.1f}{image:8.1f}{each.text:7.1f}{text:8.1f}"
            lines.append(f"{'PASS' if each.passed else 'FAIL':4}{each.concept:>4} {scores}   {each.prompt}")
        right = sum(each.passed for each in self.prompts)
        lines.append(f"{right} of {len(self.prompts)} prompts pass, read by {self.clip}")
        ours = "the course's baselines are those of open_clip's ViT-B-32, openai; another CLIP gives other scores"
        return "\n".join(lines if self.clip in COURSES else [*lines, ours])


def grade_personalisation(
    source: str | Path, photographs: str | Path, out: str | Path, clip: Clip, *, count: int = PER_PROMPT
) -> PersonalisationGrade:
    """Grade the folder that the course asks for, see `write_hw2_personalisation`.

    - source: the course's `input.json`. photographs: the folder with a folder of pictures for each concept, "0", "1".
    - clip: the course's is `load_clip("ViT-B-32", "openai")`. count: pictures a prompt.

    Of each picture, image = 100 · mean cosine with the concept's pictures, text = 100 · cosine with the prompt for
    CLIP; those five count whose image + 2.5 · text is highest, and their means have to reach the baseline, both.

    Raises `UserError` for files that are missing or damaged.

    >>> print(grade_personalisation("input.json", "textual_inversion", "out", clip))   # doctest: +SKIP
    """
    asked, grades = read_input(source, graded=True), []
    paths = handed_in_paths(out, asked, count)
    references = {concept: _features(clip, _below(Path(photographs, concept))) for concept in asked}
    for (concept, number), drawn in paths.items():
        each = asked[concept]
        features = _features(clip, drawn)
        image = 100 * (features @ references[concept].T).mean(1)
        text = 100 * features @ clip.encode_texts([each.prompt_4_clip_eval[number]])[0].cpu()
        best = (image + TEXT_WEIGHT * text).topk(min(BEST, count)).indices
        scores = image[best].mean().item(), text[best].mean().item()
        grades.append(PromptGrade(concept, each.prompt[number], *scores, each.baseline[number], tuple(best.tolist())))
    return PersonalisationGrade(grades, clip.name)


def _below(folder: Path) -> list[Path]:
    advice = "give the course's folder textual_inversion, with 0/ and 1/ in it"
    return [folder / name for name in picture_names(folder, advice=advice)]


def _features(clip: Clip, paths: list[Path]) -> Tensor:
    parts = (paths[first : first + AT_ONCE] for first in range(0, len(paths), AT_ONCE))
    opened = ([open_picture(path, REPLACE, upright=True) for path in part] for part in parts)
    return torch.cat([clip.encode_images(pictures).cpu() for pictures in opened])
