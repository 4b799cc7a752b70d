"""Two learnt concepts in one picture: what is asked for, and five ways to ask a model for it.

What each way draws is measured against the truth, which the emoji world knows: see `measure`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..composition import composed, halves
from ..emoji.captions import phrase
from ..emoji.concepts import initialiser_of
from ..emoji.styles import STYLES
from ..emoji.world import World
from ..errors import check
from ..models.text_to_image import TextToImage, draw
from ..samplers import Denoise
from .concepts import load_concepts

NEIGHBOUR = "pizza"
"""The known thing that takes the other's place where one of two sentences tells one half of a picture."""

WAYS = {
    "plain words": "the nearest words that the model knows",
    "textual inversion": "two vectors, learnt apart (arXiv 2208.01618): what the homework asks about",
    "Custom Diffusion, joint": "both vectors, keys and values, learnt together (arXiv 2212.04488)",
    "Custom Diffusion, merged": "learnt apart, and joined in closed form (arXiv 2212.04488, eq. 5)",
    "composed": "as joint, but a sentence for each word (arXiv 2206.01714), told which half is whose (2302.08113)",
}
"""The five ways, and what they are."""


@dataclass(frozen=True)
class Wanted:
    """What a picture is to show: two things next to each other, or a thing in a style.

    - prompt: with the learnt words; plain: with the nearest known ones; apart: a sentence for each learnt word.
    - things, style: what is to be seen. masks: whether each sentence tells its own half.
    """

    name: str
    prompt: str
    plain: str
    apart: tuple[str, str]
    things: tuple[str, ...]
    style: str | None = None

    @property
    def masks(self) -> bool:
        return self.style is None


def beside(world: World, left: str, right: str, tokens: tuple[str, str] = ("<new1>", "<new2>")) -> Wanted:
    """Two held-out things next to each other.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> beside(load_world(), "owl", "guitar").prompt
    'a <new1> next to a <new2>'
    """
    near = [phrase(world, initialiser_of(world, thing)) for thing in (left, right)]
    a, b = (f"a {token}" for token in tokens)
    apart = f"{a} next to a {NEIGHBOUR}", f"a {NEIGHBOUR} next to {b}"
    return Wanted(f"{left}, {right}", f"{a} next to {b}", f"{near[0]} next to {near[1]}", apart, (left, right))


def in_style(
    world: World, thing: str, style: str, near: str = "line drawing", tokens: tuple[str, str] = ("<new1>", "<new2>")
) -> Wanted:
    """A held-out thing in a held-out style; `near`: the known style that stands for it in plain words.

    >>> from dlcv_diffusion.emoji.world import load_world
    >>> in_style(load_world(), "owl", "woodcut").plain
    'a parrot in the style of a line drawing'
    """
    noun, known = phrase(world, initialiser_of(world, thing)), STYLES[near].phrase
    a, b = tokens
    apart = f"a {a}", f"in the style of {b}"
    said = f"a {a} in the style of {b}", f"{noun} in the style of {known}", apart
    return Wanted(f"{thing}, {style}", *said, (thing,), style)


@dataclass(frozen=True)
class StudyFiles:
    """Files of what was learnt of two concepts: `apart`, a vector each; `joint` and `merged`, of Custom Diffusion."""

    apart: tuple[str | Path, str | Path]
    joint: str | Path
    merged: str | Path

    def files(self, way: str) -> Sequence[str | Path]:
        """What a way loads; `UserError` for a way that is none of `WAYS`."""
        check(way in WAYS, f"there is no way '{way}'; there are {', '.join(WAYS)}")
        if way == "plain words":
            return ()
        if way == "textual inversion":
            return self.apart
        return (self.merged if way == "Custom Diffusion, merged" else self.joint,)


def draw_by(
    way: str,
    load: Callable[[], TextToImage],
    learnt: StudyFiles,
    wanted: Wanted,
    seeds: Sequence[int],
    *,
    scale: float = 3.0,
    steps: int = 25,
    progress: bool = False,
) -> Tensor:
    """What is wanted, drawn in one of `WAYS`, uint8 (N, 3, H, W); the same seeds begin with the same noise in all.

    - load: gives a fresh model, such as `lambda: load_text_to_image("emoji")`. scale: Stable Diffusion's.

    >>> draw_by("plain words", load_text_to_image, learnt, beside(world, "owl", "guitar"), range(8))   # doctest: +SKIP
    """
    files, sd = learnt.files(way), load()
    load_concepts(sd, *files)
    how: Mapping[str, Any] = {"scale": scale, "steps": steps, "progress": progress}
    if way == "plain words":
        return draw(sd, [wanted.plain] * len(seeds), seeds, **how)
    if way != "composed":
        return draw(sd, [wanted.prompt] * len(seeds), seeds, **how)
    told = apart(sd, wanted, scale)
    return draw(sd, [wanted.prompt] * len(seeds), seeds, told=told, **how)


def apart(sd: TextToImage, wanted: Wanted, scale: float) -> Callable[[slice], Denoise]:
    """Each learnt word in a sentence of its own: of two things each tells its half, thing and style both tell all."""
    embeddings = sd.encode_prompts(list(wanted.apart))
    masks = halves(*sd.shape[1:]) if wanted.masks else None

    def told(part: slice) -> Denoise:
        count = part.stop - part.start
        return composed(sd, [each.expand(count, -1, -1) for each in embeddings], scale, masks=masks)

    return told
