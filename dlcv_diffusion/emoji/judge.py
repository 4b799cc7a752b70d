"""The judge of the emoji world: a classifier that reads which things a picture shows, where, and in which style.

It knows all things and styles, those too that a text-to-image model never saw, so that what was learnt from a few
pictures can be read. What the ground's colour is needs no training. `tools/train_emoji_judge.py` makes its file.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..declared import declared, validated
from ..errors import check
from ..evaluation.encoder import checked_images, encode, finite
from ..images.pixels import to_x0
from ..models.clip.small import SmallClip
from ..models.registry import ASSETS, filled, read_tensors, write_tensors
from ..noise import seeded_weights
from ..samplers import evaluating
from .scenes import COLOURS, Scene
from .sprites import SIDE
from .styles import STYLES

JUDGE = ASSETS / "emoji_judge.safetensors"
SHAPE = (3, SIDE, SIDE)
PLAIN = "plain"
"""What the judge calls a picture in none of the styles."""
GROUNDS = {"white": (255, 255, 255), **COLOURS}
RIM = 3
"""Pixels from the edge in which the ground's colour is read: nothing reaches so far but a thing's tip."""

Layers = Annotated[int, Field(strict=True, ge=1, le=24)]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=4096)]


@declared
class JudgeConfig:
    """The sizes of the trunk, those of CLIP's ResNet, and the names that its heads tell apart."""

    things: Names
    styles: Names
    layers: tuple[Layers, Layers, Layers, Layers] = (2, 2, 3, 2)
    width: Annotated[int, Field(strict=True, ge=2, le=256)] = 12


@declared
class JudgeHeader:
    """What a judge's file says beside its tensors; the format is `models.registry`'s."""

    scene_judge: JudgeConfig
    metadata: dict[str, Any]
    format: Literal[1] = 1


@dataclass(frozen=True)
class Reading:
    """What the judge makes of B pictures: places in its lists, int64 (B,) each, and features float32 (B, D).

    - alone: the thing, if there is one; left, right: the things, if there are two. pair: which of both it is, bool.
    - style: a place in its `styles`, whose last is "plain"; ground: one in `GROUNDS`, of white and the colours.
    """

    alone: Tensor
    left: Tensor
    right: Tensor
    pair: Tensor
    style: Tensor
    ground: Tensor
    features: Tensor


class SceneJudge(nn.Module):
    """CLIP's ResNet without its last pooling, and a linear reading of what it sees: in all, left, and right.

    - things, styles: the names it knows. metadata: how it was trained, and what it reads right of unseen scenes.

    >>> judge = build_judge(JudgeConfig(["fox", "owl"], ["neon"], layers=(1, 1, 1, 1), width=4))
    >>> judge.read(torch.zeros(5, 3, 64, 64, dtype=torch.uint8)).alone.shape
    torch.Size([5])
    """

    def __init__(self, config: JudgeConfig):
        from open_clip.modified_resnet import ModifiedResNet

        super().__init__()
        self.config, self.metadata = config, dict[str, Any]()
        self.things, self.styles = list(config.things), [*config.styles, PLAIN]
        self.trunk = ModifiedResNet(list(config.layers), 8, 1, SIDE, config.width)
        self.trunk.attnpool = nn.Identity()
        wide = 32 * config.width
        self.thing, self.style, self.pair = (nn.Linear(wide, n) for n in (len(self.things), len(self.styles), 2))

    def places(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, D) of the whole picture, its left half and its right half, of x (B, 3, 64, 64) in [−1, 1]."""
        seen = self.trunk(x).mean(2)
        return seen.mean(2), seen[..., 0], seen[..., -1]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits: of the thing in all, left and right, (B, things) each, of the style, and of one thing or two."""
        whole, left, right = self.places(x)
        return self.thing(whole), self.thing(left), self.thing(right), self.style(whole), self.pair(whole)

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, D) of uint8 images (B, 3, 64, 64): what the last layer reads."""
        return self.places(to_x0(checked_images(images, SHAPE).to(self.thing.weight.device)))[0]

    @torch.no_grad()
    def read(self, images: Tensor) -> Reading:
        """What uint8 images (B, 3, 64, 64) show, on the CPU; computed in eval mode, whatever mode it is in.

        Raises `UserError` for images of another type or shape.
        """
        with evaluating([*self.modules()]):
            both = encode(lambda part: torch.cat(self.places(to_x0(part.to(self.thing.weight.device))), 1), images)
        whole, left, right = both.to(self.thing.weight.device).chunk(3, 1)
        logits = self.thing(whole), self.thing(left), self.thing(right), self.pair(whole), self.style(whole)
        alone, left, right, pair, style = (each.argmax(1).cpu() for each in logits)
        return Reading(alone, left, right, pair.bool(), style, ground_of(images), whole.cpu())

    def right(self, images: Tensor, wanted: Sequence[Scene]) -> dict[str, Tensor]:
        """Whether each of B pictures shows what was asked for, bool (B,) each: "things", "style", "ground", "all".

        There have to be as many things as in the scene, one or two, and two in their places. A scene in no style has to
        be plain; a style paints its own ground, so that any is right.

        Raises `UserError` for another number of scenes, and for things or styles that the judge does not know.

        >>> judge = load_judge()                                  # doctest: +SKIP
        >>> judge.right(images, [scene] * 100)["all"].float().mean()   # doctest: +SKIP
        tensor(0.9200)
        """
        check(len(images) == len(wanted), f"{len(images)} pictures and {len(wanted)} scenes; give one for each")
        seen, found = self.read(images), []
        for row, scene in enumerate(wanted):
            columns = (seen.alone,) if len(scene.things) == 1 else (seen.left, seen.right)
            asked = [self.place(self.things, thing) for thing in scene.things]
            things = all(int(column[row]) == place for column, place in zip(columns, asked, strict=True))
            things &= bool(seen.pair[row]) == (len(scene.things) == 2)
            style = int(seen.style[row]) == self.place(self.styles, scene.style or PLAIN)
            ground = list(GROUNDS)[int(seen.ground[row])] == (scene.background or "white")
            found.append((things, style, ground or scene.style is not None))
        right = torch.tensor(found, dtype=torch.bool).reshape(-1, 3)
        return {"things": right[:, 0], "style": right[:, 1], "ground": right[:, 2], "all": right.all(1)}

    @staticmethod
    def place(names: Sequence[str], name: str) -> int:
        """Where a name stands among `things` or `styles`; `UserError` for one that the judge does not know."""
        check(name in names, f"the judge knows no '{name}'; it knows {', '.join(names):.200} …")
        return names.index(name)


def ground_of(images: Tensor) -> Tensor:
    """Which of `GROUNDS` is nearest to the median colour of the rim, (B,) int64, of uint8 images (B, 3, H, W).

    >>> list(GROUNDS)[ground_of(torch.full((1, 3, 64, 64), 250, dtype=torch.uint8))]
    'white'
    """
    rim = torch.ones(images.shape[2:], dtype=torch.bool, device=images.device)
    rim[RIM:-RIM, RIM:-RIM] = False
    colours = images[..., rim].float().median(2).values.cpu()
    return torch.cdist(colours, torch.tensor([*GROUNDS.values()], dtype=torch.float32)).argmin(1)


def build_judge(config: JudgeConfig | None = None, *, names: Sequence[str] = (), seed: int = 0) -> SceneJudge:
    """A new judge, whose initial weights follow from `seed`: of this config, or of these things and all styles.

    >>> build_judge(names=["fox", "owl"]).styles[-1]
    'plain'
    """
    with seeded_weights(seed):
        return SceneJudge(config or JudgeConfig(list(names), list(STYLES)))


def begin_from(judge: SceneJudge, clip: SmallClip) -> None:
    """Put the weights of a CLIP's image half into the trunk, which is of the same sizes: it has learnt to see.

    Raises `UserError` for a CLIP of other sizes.
    """
    sizes = judge.config.layers, judge.config.width
    fits = (clip.config.vision_layers, clip.config.vision_width) == sizes
    check(fits, f"the judge has layers and width {sizes}, and this CLIP others; give one of the preset small")
    state = clip.model.visual.state_dict()
    judge.trunk.load_state_dict({k: v for k, v in state.items() if not k.startswith("attnpool.")})


def save_judge(judge: SceneJudge, path: str | Path = JUDGE) -> None:
    """Write a judge with its config and metadata, weights in float16; atomic.

    Raises `UserError` where a weight is not finite in float16, or the file cannot be written.

    >>> save_judge(judge, "judge.safetensors")   # doctest: +SKIP
    """
    state = {k: v.half() for k, v in judge.state_dict().items() if not k.endswith("num_batches_tracked")}
    for name, weights in state.items():
        finite(weights, f"the judge is not saved, since its {name}")
    write_tensors(path, state, {"scene_judge": asdict(judge.config), "metadata": judge.metadata})


def load_judge(path: str | Path = JUDGE, device: torch.device | str = "cpu") -> SceneJudge:
    """The judge of the package, or of another file that `save_judge` wrote: float32, in eval mode, on `device`.

    Raises `UserError` for a file that is missing, damaged, foreign or newer, or whose weights are not finite.

    >>> load_judge().metadata["right"]["things"] > 0.97
    True
    """
    tensors, header = read_tensors(path)
    check("scene_judge" in header, f"'{path}' holds no judge of scenes; leave the path out to use the one that ships")
    header = validated(JudgeHeader, header, f"'{path}'")
    judge = build_judge(header.scene_judge)
    counters = {k: torch.tensor(0) for k in judge.state_dict() if k.endswith("num_batches_tracked")}
    judge = filled(judge, {**counters, **tensors}, path)
    judge.metadata = header.metadata
    return judge.to(device).eval()
