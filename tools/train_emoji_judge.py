"""Train the judge of the emoji world and write dlcv_diffusion/assets/emoji_judge.safetensors.

    python tools/train_emoji_judge.py [--work runs/emoji_judge] [--resume]

Scenes of everything, held-out things, style and pairs too, a little turned, moved, sized, blurred, and of another
light. Its trunk begins as the image half of the CLIP that ships, with --from-scratch anew, or as another judge's
(--init). Some ten minutes on two CPU cores; at the end it is measured on scenes that it never saw.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from dlcv_diffusion.emoji.clip_data import SHARES, augmented
from dlcv_diffusion.emoji.judge import JUDGE, PLAIN, SceneJudge, begin_from, build_judge, load_judge, save_judge
from dlcv_diffusion.emoji.scenes import KINDS, Scene
from dlcv_diffusion.emoji.splits import pictures
from dlcv_diffusion.emoji.world import World, load_world
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.models.clip.loading import SHIPPED
from dlcv_diffusion.models.clip.small import read_small_clip
from dlcv_diffusion.models.registry import plain, short_hash
from dlcv_diffusion.training.config import RunConfig
from dlcv_diffusion.training.loop import run
from dlcv_diffusion.training.objective import Objective, batch_indices, generator_of

NONE = -100
"""What `F.cross_entropy` does not ask for."""
SEED_OF_TESTS = 9


class JudgeObjective(Objective):
    """Cross-entropy of the thing, or of both in their places, of the style, and of one thing or two."""

    def __init__(self, judge: SceneJudge, world: World, scenes: int, config: RunConfig):
        self.model, self.config = judge, config
        self.images, shown = pictures(world, "everything", scenes, config.seed, kinds=SHARES)
        self.wanted = torch.tensor([self.numbers(scene) for scene in shown])
        self.facts = {"pool": scenes, "world_hash": short_hash([self.images])}

    def numbers(self, scene: Scene) -> list[int]:
        things = [self.model.things.index(name) for name in scene.things]
        alone, left, right = (NONE, *things) if len(things) == 2 else (things[0], NONE, NONE)
        return [alone, left, right, self.model.styles.index(scene.style or PLAIN), len(things) - 1]

    def batch(self, step: int) -> tuple[Tensor, ...]:
        rows, generator = batch_indices(step, len(self.images), self.config), generator_of(self.config.seed, 2, step)
        x = augmented(self.images[rows], torch.zeros(len(rows), dtype=torch.bool), generator)
        if step % 4 == 3:  # drawn pictures are less sharp than true ones
            x = F.interpolate(F.interpolate(x, 48, mode="area"), 64, mode="bilinear")
        return x.contiguous(memory_format=torch.channels_last), self.wanted[rows]

    def loss(self, network: Any, *batch: Tensor) -> Tensor:
        x, wanted = batch
        logits = (each.float() for each in network(x))
        asked = ((F.cross_entropy(each, goal), goal) for each, goal in zip(logits, wanted.T, strict=True))
        return sum(loss for loss, goal in asked if (goal != NONE).any())

    def save(self, average: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
        judge = plain(average)
        judge.metadata = dict(facts)
        save_judge(judge, path)


def measured(judge: SceneJudge, world: World, count: int) -> dict[str, Any]:
    """What is read right of unseen scenes: things, style, ground, each over scenes that have it; and by split."""
    found: dict[str, Any] = {"count": count}
    images, shown = pictures(world, "everything", count, SEED_OF_TESTS, kinds=SHARES)
    right = judge.right(images, shown)
    found |= {name: part.float().mean().item() for name, part in right.items()}
    for kind in KINDS:
        rows = torch.tensor([scene.kind == kind for scene in shown])
        found[f"things, {kind}"] = right["things"][rows].float().mean().item()
    rows = torch.tensor([scene.style is None for scene in shown])
    found["ground"] = right["ground"][rows].float().mean().item()
    for split in ("held_out_pairs", "held_out_style", "held_out_things"):
        parts = judge.right(*pictures(world, split, count, SEED_OF_TESTS))
        found |= {f"{name}, {split}": parts[name].float().mean().item() for name in ("things", "style")}
    return {name: round(value, 4) for name, value in found.items()}


def before(judge: SceneJudge) -> list[dict[str, Any]]:
    """The settings of the runs that a judge has had."""
    had = judge.metadata.get("train")
    return [*judge.metadata.get("before", []), *([had] if had else [])]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--work", type=Path, default=Path("runs/emoji_judge"), help="folder of the run")
    add("--out", type=Path, default=JUDGE)
    add("--steps", type=int, default=1_500)
    add("--batch-size", type=int, default=256)
    add("--lr", type=float, default=1e-3)
    add("--scenes", type=int, default=60_000)
    add("--from-scratch", action="store_true")
    add("--init", type=Path, default=None, help="a judge to go on from")
    add("--seed", type=int, default=0)
    add("--tests", type=int, default=4_000, help="unseen scenes to measure with")
    add("--resume", action="store_true")
    args = parser.parse_args(arguments)
    world, begun = load_world(), None if args.from_scratch else read_small_clip(SHIPPED["emoji"])
    judge = load_judge(args.init) if args.init else build_judge(names=world.names)
    if begun and not args.init:
        begin_from(judge, begun)
    ours: Mapping[str, Any] = {"warmup": 100, "weight_decay": 0.0, "clip_grad": 1.0, "precision": "auto"}
    config = RunConfig(args.steps, args.batch_size, args.lr, seed=args.seed, ema_decay=0.99, decay=0.7, **ours)
    objective = JudgeObjective(judge, world, args.scenes, config)
    facts = {"begun": "anew" if begun is None else begun.facts.get("name", "a CLIP"), "before": before(judge)}
    steps = run(objective, config, args.work, metadata=facts, resume=args.resume, device="cpu")
    for _ in tqdm(steps, total=args.steps, disable=None):
        pass
    judge = load_judge(args.work / "model.safetensors")
    judge.metadata = {**facts, "train": asdict(config), "right": measured(judge, world, args.tests)}
    save_judge(judge, args.out)
    for name, value in judge.metadata["right"].items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
