"""What a text-to-image model of the emoji world draws, read by the judge: is it what the prompt said?"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..evaluation.intervals import share_interval
from ..models.text_to_image import TextToImage, draw
from .captions import caption
from .judge import SceneJudge
from .scenes import Kind, Scene
from .splits import Split, scenes
from .text_to_image_data import CALM
from .world import World

QUESTIONS: Mapping[str, tuple[Split, Mapping[Kind, float]]] = {
    "alone on white": ("train", {"white": 1.0}),
    "on a colour": ("train", {"colour": 1.0}),
    "in a style": ("train", {"style": 1.0}),
    "next to another": ("train", {"pair": 1.0}),
    "held-out pairs of thing and style": ("held_out_pairs", {"style": 1.0}),
}
"""What is asked for: scenes as those of training, and things in styles that were never seen together."""


def asked(world: World, question: str, count: int, seed: int = 1) -> tuple[list[Scene], list[str]]:
    """Scenes of a question, of the core's things, and what is said of them.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> len(asked(load_world(), "on a colour", 3)[1])
    3
    """
    split, kinds = QUESTIONS[question]
    drawn = list(scenes(world, split, count, seed, core=True, kinds=kinds, variety=CALM))
    return drawn, [caption(world, scene) for scene in drawn]


def measure_drawn(
    sd: TextToImage,
    judge: SceneJudge,
    world: World,
    count: int = 100,
    *,
    scale: float = 3.0,
    steps: int = 25,
    seed: int = 1,
    progress: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """For each of `QUESTIONS` a row of plain JSON, and the pictures, uint8 (count, 3, 64, 64).

    A row has the shares that the judge reads right: "things" (both, in their places), "style", "ground", "all", and
    Wilson's interval of 95 % of "all". Scenes follow from `seed`, and the noises are those of seeds 0 … count − 1.

    >>> rows, images = measure_drawn(load_text_to_image("emoji"), load_judge(), load_world())   # doctest: +SKIP
    """
    rows, images = [], {}
    for question in QUESTIONS:
        wanted, prompts = asked(world, question, count, seed)
        images[question] = draw(sd, prompts, range(count), scale=scale, steps=steps, progress=progress)
        right = judge.right(images[question], wanted)
        row: dict[str, Any] = {"question": question, "count": count, "scale": scale, "steps": steps, "seed": seed}
        row |= {name: part.float().mean().item() for name, part in right.items()}
        row["all_interval"] = share_interval(int(right["all"].sum()), count)
        rows.append(row)
    return rows, images


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table.

    >>> row = {"question": "on a colour", "things": 0.9, "style": 1.0, "ground": 0.95, "all": 0.9}
    >>> print(markdown([{**row, "all_interval": (0.82, 0.95)}]).splitlines()[-1])
    | on a colour | 90 % | 100 % | 95 % | 90 % (82–95) |
    """
    lines = ["| asked for | things | style | ground | all (95 %) |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        shares = " | ".join(f"{100 * row[name]:.0f} %" for name in ("things", "style", "ground", "all"))
        low, high = row["all_interval"]
        lines.append(f"| {row['question']} | {shares} ({100 * low:.0f}–{100 * high:.0f}) |")
    return "\n".join(lines)


def sheet_order(images: Mapping[str, Tensor], each: int = 24) -> Tensor:
    """The first `each` pictures of every question, one question after the other: (questions · each, 3, H, W)."""
    return torch.cat([part[:each] for part in images.values()])
