"""The report's figures and table for Problem 3's first half."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..figures.page import ReportFigure, save_figure
from ..files import staging_folder
from ..models.clip import Clip
from ..training.objective import generator_of
from .classify import class_embeddings, classify
from .figures import CASES_CAPTION, cases_figure, similarity_figure
from .pictures import Pictures
from .result import ZeroShotResult
from .search import picture_features
from .templates import template_list


def one_of_each(pictures: Pictures, count: int = 24, seed: int = 0) -> list[int]:
    """Rows of one picture each of `count` classes, or of all where there are fewer, chosen at random by `seed`.

    >>> pictures = Pictures.of(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 1, 1], ["fox", "owl"])
    >>> [pictures.labels[row].item() for row in one_of_each(pictures)]
    [0, 1]
    """
    order = torch.randperm(len(pictures), generator=generator_of(seed))
    rows = {int(pictures.labels[row]): int(row) for row in order}
    chosen = torch.tensor(sorted(rows))[torch.randperm(len(rows), generator=generator_of(seed, 1))[:count]]
    return [rows[label] for label in chosen.sort().values.tolist()]


def classes_figure(
    clip: Clip, pictures: Pictures, templates: str | Sequence[str] = "single", *, count: int = 24, seed: int = 0
) -> ReportFigure:
    """The similarity, cosines (K, K), of one picture of each of K classes to the names of these classes.

    - templates: see `class_embeddings`. count: K at most. seed: of the choice of classes and pictures.

    Raises `UserError` where none of the pictures can be read.

    >>> fig = classes_figure(load_clip("emoji"), load_pictures("emoji"))   # doctest: +SKIP
    """
    rows = one_of_each(pictures, count, seed)
    read, features = picture_features(clip, pictures.subset(rows))
    labels = [int(pictures.labels[rows[row]]) for row in read]
    texts = class_embeddings(clip, pictures.classes, templates).cpu()[labels]
    nearest = (features @ texts.T).argmax(1) == torch.arange(len(labels))
    caption = f"Rows: a picture of each of {len(labels)} classes; columns: their names, in the same order. "
    caption += f"The nearest of these names is the right one for {int(nearest.sum())}"
    lost = len(rows) - len(read)
    caption += f". {lost} of the pictures could not be read" if lost else ""
    facts = {"model": clip.name, "pictures": pictures.source, "template": _how(template_list(templates, clip))}
    facts["seed"] = seed
    return similarity_figure({"pictures and names": features @ texts.T}, "", caption, facts=facts)


def result_figure(
    found: ZeroShotResult, pictures: Pictures, right: int = 5, wrong: int = 5, seed: int = 0
) -> ReportFigure:
    """`cases_figure` of some cases of a result, chosen by `seed`, with the accuracy above them, and below them what a
    reader must know: the result's notes, and how many pictures could not be read.

    - found: what `classify` gave for these pictures. right, wrong: how many cases of each.

    Raises `UserError` as `cases_figure` does.

    >>> fig = result_figure(found, pictures)   # doctest: +SKIP
    """
    title = f"{found.accuracy:.2%} of {found.count:,} pictures classified correctly, {len(found.classes)} classes"
    facts = {"model": found.model, "pictures": found.source, "template": _how(found.templates), "seed": seed}
    told = [CASES_CAPTION, *found.notes, *([f"Not read: {len(found.unreadable)}"] if found.unreadable else [])]
    cases = found.cases(right, wrong, seed)
    hits = sum(case.right for case in cases)
    if not 0 < hits < len(cases) or len(cases) - hits > hits:  # one kind only, or more wrong ones than fit beside
        return cases_figure(cases, pictures, title, ". ".join(told), facts=facts)
    heads = ("right", "wrong")
    return cases_figure(cases, pictures, title, ". ".join(told), per_column=hits, heads=heads, facts=facts)


def _how(templates: Sequence[str]) -> str:
    return f"“{templates[0]}”" if len(templates) == 1 else f"an ensemble of {len(templates)}"


def write_zero_shot_figures(
    out: str | Path,
    clip: Clip,
    pictures: Pictures,
    *,
    templates: str | Sequence[str] = "single",
    seed: int = 0,
    progress: bool = False,
) -> list[Path]:
    """The report's figures and table for Problem 3's first half; returns their paths.

    `zero_shot_similarity.png`, `zero_shot_cases.png`: see `classes_figure` and `result_figure`; `zero_shot_cases.csv`:
    file name, class read and true class of five pictures that were read right and five that were not.

    - templates, progress: those of `classify`. seed: of the choice of pictures.

    The files appear when all are made. Raises `UserError` where `out` cannot be written, and as `classify` does.

    >>> write_zero_shot_figures("figures", load_clip("emoji"), load_pictures("emoji"))   # doctest: +SKIP
    """
    names = [f"zero_shot_{name}" for name in ("similarity.png", "cases.png", "cases.csv")]
    with staging_folder(out) as staging:  # what cannot be written is found out before an hour's work
        found = classify(clip, pictures, templates=templates, progress=progress)
        similarity, cases, table = (staging / name for name in names)
        written = [save_figure(classes_figure(clip, pictures, templates, seed=seed), similarity)]
        written += [save_figure(result_figure(found, pictures, seed=seed), cases), table]
        found.write_cases(table, seed=seed)
    return [Path(out) / path.name for path in written]
