"""Training the small CLIP on the emoji world: the contrastive objective, its recipes, and a run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check
from ..images.pixels import to_uint8, to_x0
from ..models.clip.small import SmallClip, SmallClipConfig, build_small_clip, save_small_clip
from ..models.clip.tokenizer import Merge, clip_tokenizer
from ..models.registry import short_hash
from ..samplers import evaluating
from ..training.config import RunConfig, with_options
from ..training.loop import TrainState, check_start, run
from ..training.objective import Objective, batch_indices, generator_of
from ..training.recipe import recipe_of, write_sheet
from .captions import TEMPLATES, caption
from .clip_data import ScenePool, augmented, true_of, world_merges
from .scenes import FULL, Variety
from .splits import pictures
from .styles import STYLES
from .world import World, load_world

LARGEST_SCALE = 100.0
"""1/τ never exceeds it (CLIP, section 2.5)."""


@dataclass(frozen=True)
class ClipRecipe:
    """Sizes of a small CLIP, how many scenes are drawn to train it on, and how it is trained.

    >>> CLIPS["small"].config.image_size
    64
    """

    config: SmallClipConfig
    scenes: int
    train: RunConfig


OURS: Mapping[str, Any] = {"weight_decay": 0.0, "clip_grad": 1.0}

CLIPS: Mapping[str, ClipRecipe] = {
    # what ships: an hour and fifty minutes on one CPU core, beside other work
    "small": ClipRecipe(
        SmallClipConfig(vision_layers=(2, 2, 3, 2), vision_width=12, head_width=48, context=24),
        60_000,
        RunConfig(
            steps=8_000, batch_size=256, lr=2e-3, warmup=300, ema_decay=0.998, decay=0.5, precision="auto", **OURS
        ),
    ),
    # two minutes, for looking around
    "tiny": ClipRecipe(
        SmallClipConfig(embed_dim=64, vision_width=8, head_width=32, text_width=64, text_layers=2, context=24),
        6_000,
        RunConfig(steps=600, batch_size=128, lr=3e-3, warmup=50, ema_decay=0.99, **OURS),
    ),
}


def clip_recipe(preset: str) -> ClipRecipe:
    """The recipe "small" or "tiny"; `UserError` for any other name.

    >>> clip_recipe("tiny").train.steps
    600
    """
    return recipe_of(CLIPS, preset)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, also_true: Tensor) -> Tensor:
    """Both cross-entropies of cos(image_i, text_j) / τ, each picture with its own caption; their mean (CLIP, fig. 3).

        L = −½ · mean_i [ log softmax_j(s_ij)_i + log softmax_j(s_ji)_i ],   s = images textsᵀ / τ

    - images, texts: (B, D) of length 1; scale: 1/τ, (), taken as 100 at most.
    - also_true: (B, B) bool: captions j that are true of picture i. Only i's own is asked for, and the others do not
      count against it: to push a fox away from "a fox" because its own caption says more would be wrong.

    >>> one = torch.eye(2)
    >>> contrastive_loss(one, one, torch.tensor(100.0), torch.eye(2).bool()).item() < 1e-6
    True
    """
    logits = scale.clamp(max=LARGEST_SCALE) * images.float() @ texts.float().T
    own = torch.arange(len(logits), device=logits.device)
    logits = logits.masked_fill(also_true & (own[:, None] != own), -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class InTraining(nn.Module):
    """A CLIP as it is trained: the same numbers as `clip(images, tokens)`, without computing behind the texts' ends.

    Most captions are half as long as the longest. What comes after the end token does not change what is at it, so the
    shorter and the longer half of a batch are each cut to their longest.

    >>> merges = [("f", "ox</w>")]
    >>> clip = build_small_clip(SmallClipConfig(), merges)
    >>> tokens = clip_tokenizer(merges, 16)(["a fox", "fox fox fox fox"])
    >>> torch.allclose(InTraining(clip).texts(tokens), clip.encode_text(tokens, normalize=True), atol=1e-5)
    True
    """

    def __init__(self, clip: nn.Module):
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.clip.encode_image(images, normalize=True), self.texts(tokens), self.clip.logit_scale.exp()

    def texts(self, tokens: Tensor) -> Tensor:
        """Features (B, D) of length 1, of tokens (B, L)."""
        clip, found = self.clip, []
        ends = (tokens == clip.text_eos_id).int().argmax(1)
        order = ends.argsort(stable=True)
        for rows in order.chunk(2):
            length = int(ends[rows].max()) + 1
            x = clip.token_embedding(tokens[rows, :length]) + clip.positional_embedding[:length]
            x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
            found.append(x[torch.arange(len(rows), device=x.device), ends[rows]] @ clip.text_projection)
        return F.normalize(torch.cat(found)[order.argsort()], dim=1)


class ClipObjective(Objective):
    """The contrastive loss on scenes of the training split.

    - model: `InTraining` of a CLIP of this config and these merges. Everything random follows from the run's seed. Of
      several processes, each contrasts within its own share of the batch, so that they follow another path than one.

    Raises `UserError` for a batch in parts (`accumulate`), which would not be contrasted with each other.
    """

    def __init__(
        self, clip: nn.Module, config: SmallClipConfig, merges: Sequence[Merge], pool: ScenePool, train: RunConfig
    ):
        parts = f"a batch of pairs in {train.accumulate} parts is another loss: each part would contrast within itself"
        check(train.accumulate == 1, f"{parts}; leave out accumulate, or take a smaller batch")
        self.model, self.config, self.merges = InTraining(clip), config, merges
        self.pool, self.train = pool, train
        self.facts = {"pool": len(pool), "world_hash": short_hash([pool.images])}
        tokenizer = clip_tokenizer(merges, config.context)
        # kept as numbers of Python: thousands of small tensors among the large ones of each step would split the heap
        self.encode = lru_cache(maxsize=100_000)(lambda text: tuple(tokenizer([text])[0].tolist()))

    def batch(self, step: int) -> tuple[Tensor, ...]:
        seed = self.train.seed
        drawn = self.pool.batch(batch_indices(step, len(self.pool), self.train), seed, step)
        recolour = (drawn.said[:, 2:] < 0).all(1)
        x = augmented(drawn.images, recolour, generator_of(seed, 2, step))
        return x, torch.tensor([self.encode(text) for text in drawn.captions]), drawn.shown, drawn.said

    def loss(self, network: Callable[..., Any], *batch: Tensor) -> Tensor:
        x, tokens, shown, said = batch
        return contrastive_loss(*network(x, tokens), true_of(shown, said))

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        with torch.no_grad():
            average.clip.logit_scale.clamp_(max=math.log(LARGEST_SCALE))
        save_small_clip(SmallClip(average.clip, self.config, self.merges, facts), path)


def train_clip(
    preset: str = "small",
    out: str | Path = "runs/clip",
    *,
    leave_out: str | None = None,
    world: World | None = None,
    **options: Any,
) -> Iterator[TrainState]:
    """Train a small CLIP on the emoji world's training split; yields a `TrainState` every step, see `training.run`.

    - preset: "small" (what ships) or "tiny". leave_out: an artist whose drawings are not trained on, to measure with.
    - options: those of `training.run`, such as resume=True or device="cpu", and fields of `RunConfig` to set otherwise
      than the preset, such as steps=200.

    Raises `UserError` for an unknown preset or artist, or as `training.run` does.

    >>> for state in train_clip("tiny", "runs/tiny_clip"):   # doctest: +SKIP
    ...     print(state.step, state.loss)
    """
    recipe = clip_recipe(preset)
    check_start(out, **options)
    world = world or load_world()
    variety = FULL if leave_out is None else without(leave_out)
    config = with_options(recipe.train, options)
    merges = world_merges(world)
    pool = ScenePool(world, recipe.scenes, config.seed, variety)
    clip = build_small_clip(recipe.config, merges, config.seed)
    objective = ClipObjective(clip, recipe.config, merges, pool, config)
    classes = [name for name in world.names if name not in world.held_out_things]
    styles = [style for style in STYLES if style != world.held_out_style]
    facts = {"name": f"clip-{preset}", "artists": list(variety.artists), "classes": classes, "styles": styles}
    facts["templates"] = [template.format("a {}") for template in TEMPLATES]
    return run(objective, config, out, metadata=facts, preview=Preview(objective), **options)


def without(artist: str) -> Variety:
    """All of `Variety` but one artist; `UserError` for one that is not there.

    >>> without("openmoji").artists
    ('noto', 'twemoji', 'fluent_flat', 'fluent')
    """
    check(artist in FULL.artists, f"there is no artist '{artist}' to leave out; there are {', '.join(FULL.artists)}")
    return replace(FULL, artists=tuple(name for name in FULL.artists if name != artist))


class Preview:
    """Draws the similarity matrix of 48 unseen scenes and their captions, rows pictures: how far training has come."""

    def __init__(self, objective: ClipObjective):
        world = objective.pool.world
        images, shown = pictures(world, "unseen", 48, seed=0)
        self.x = to_x0(images)
        self.tokens = torch.tensor([objective.encode(caption(world, drawn)) for drawn in shown])

    def __call__(self, network: nn.Module, path: Path) -> None:
        device = next(network.parameters()).device
        with evaluating([*network.modules()]):
            images, texts, _ = network(self.x.to(device), self.tokens.to(device))
        cells = to_uint8((images @ texts.T).float().cpu()).view(1, 1, len(images), len(texts))
        write_sheet(F.interpolate(cells, scale_factor=8), path, columns=1)
