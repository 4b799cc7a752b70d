"""How well two concepts came together in one picture, beside the true pictures of it: rows of plain JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..emoji.judge import SceneJudge
from ..errors import check
from ..evaluation.intervals import mean_interval, share_interval
from ..evaluation.kernel_distance import kernel_distance
from ..models.clip import Clip
from .ways import Wanted


def shows(judge: SceneJudge, images: Tensor, wanted: Wanted) -> dict[str, Tensor]:
    """Whether the judge reads what is wanted, bool (N,) each: "first", "second", "both".

    Of two things, each in its place beside another; of a thing in a style, the thing, alone, and the style.

    >>> shows(load_judge(), images, beside(world, "owl", "guitar"))["both"].float().mean()   # doctest: +SKIP
    tensor(0.4100)
    """
    seen, places = judge.read(images), [judge.place(judge.things, thing) for thing in wanted.things]
    if wanted.style is None:
        first, second = (seen.left == places[0]) & seen.pair, (seen.right == places[1]) & seen.pair
    else:
        first, second = (seen.alone == places[0]) & ~seen.pair, seen.style == judge.place(judge.styles, wanted.style)
    return {"first": first, "second": second, "both": first & second}


def measure(judge: SceneJudge, clip: Clip, images: Tensor, truth: Tensor, wanted: Wanted) -> dict[str, Any]:
    """What N pictures are worth, uint8 (N, 3, 64, 64), beside true ones: a row of plain JSON.

    - first, second, both: shares that the judge reads; both_interval: Wilson's, of 95 %.
    - image, text: 100 · mean cosine in CLIP, with the mean of the true pictures and with the plain words; …_interval.
      The plain words say a parrot where the truth is an owl, so true pictures do not have the highest text score.
    - distance, distance_clip: KID to the true pictures, in the judge's features and in CLIP's (times √D, so that their
      numbers have a mean square of 1: the kernel is made for such).
    - scores: 100 · cosine of each picture with the true ones, by which the best and the worst are chosen.
    """
    check(len(images) > 1 and len(truth) > 1, "a measurement needs two or more pictures, drawn and true")
    read = {name: part.tolist() for name, part in shows(judge, images, wanted).items()}
    drawn, real = (clip.encode_images(each).cpu() for each in (images, truth))
    image = 100 * drawn @ torch.nn.functional.normalize(real.mean(0), dim=0)
    text = 100 * drawn @ clip.encode_texts([wanted.plain])[0].cpu()
    row: dict[str, Any] = {"count": len(images)}
    for name, part in read.items():
        row[name] = sum(part) / len(part)
        row[f"{name}_interval"] = share_interval(sum(part), len(part))
    for name, values in (("image", image), ("text", text)):
        row[name], row[f"{name}_interval"] = values.mean().item(), mean_interval(values)
    row["distance"] = kernel_distance(*(judge.read(each).features for each in (images, truth)))
    row["distance_clip"] = kernel_distance(*(each * each.shape[1] ** 0.5 for each in (drawn, real)))
    return {**row, "scores": image.tolist()}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with "way" and "wanted" as a table: shares in per cent with their intervals.

    >>> row = {"wanted": "owl, guitar", "way": "composed", "first": 0.9, "second": 0.8, "both": 0.75}
    >>> row |= {"both_interval": (0.65, 0.83), "image": 80.0, "image_interval": (78.2, 81.1), "text": 30.0}
    >>> print(markdown([{**row, "distance": 0.5, "distance_clip": 0.1}]).splitlines()[-1])
    | owl, guitar | composed | 90 % | 80 % | 75 % (65–83) | 80.0 (78.2–81.1) | 30.0 | 0.50 | 0.10 |
    """
    names = ("asked for", "way", "first", "second", "both (95 %)", "image (95 %)", "text")
    names += ("distance, judge", "distance, CLIP")
    lines = [f"| {' | '.join(names)} |", f"| --- | --- |{' ---: |' * (len(names) - 2)}"]
    for row in rows:
        low, high = row["both_interval"]
        cells = [row["wanted"], row["way"], *(f"{100 * row[part]:.0f} %" for part in ("first", "second"))]
        cells.append(f"{100 * row['both']:.0f} % ({100 * low:.0f}–{100 * high:.0f})")
        cells.append("{:.1f} ({:.1f}–{:.1f})".format(row["image"], *row["image_interval"]))
        cells += [f"{row['text']:.1f}", *(f"{row[part]:.2f}" for part in ("distance", "distance_clip"))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
