"""Train the digit judge and write dlcv_diffusion/assets/digits_judge.safetensors.

    python tools/train_judge.py [--epochs 14 5] [--threads 1]

reads digits_train.npz and digits_held_out.npz (see make_digits_data.py) from --data. A part of the training file
decides which epoch is kept; the held-out file is looked at once, at the end, through the written file. The state is
kept in --work after every epoch, and a run that was stopped goes on from there. About 20 minutes on one CPU core.
"""

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlcv_diffusion.digits.course import HALF_FOLDERS
from dlcv_diffusion.digits.data import load_digits
from dlcv_diffusion.digits.judge import JUDGE, DigitClassifier, Judge, load_judge, save_judge
from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.images.arrays import ImageArrays, to_x0

CACHE = os.environ.get("DLCV_CACHE", str(Path.home() / ".cache" / "dlcv_diffusion"))
VALIDATION = 2_000  # images of each half of the training file that choose the epoch
BATCH = 128
SMOOTHING = 0.05


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """x (B, 3, 28, 28) in [-1, 1], each image moved, turned, recoloured, blurred and made noisy, a little.

    So that the judge reads the strokes and not the texture: generated pictures have other colours and less or more
    fine grain than real ones.
    """
    batch = len(x)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator) * (high - low) + low

    def chance(p: float) -> Tensor:
        return (torch.rand(batch, 1, 1, 1, generator=generator) < p).float()

    angle, shear = uniform(-0.17, 0.17), uniform(-0.12, 0.12)
    scale_x, scale_y = uniform(0.9, 1.12), uniform(0.9, 1.12)
    shift_x, shift_y = uniform(-0.1, 0.1), uniform(-0.1, 0.1)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos * scale_x, shear - sin, shift_x, sin, cos * scale_y, shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    order = torch.rand(batch, 3, generator=generator).argsort(1)  # hue: the channels change places
    x = x.gather(1, order[:, :, None, None].expand_as(x))
    x = x * (1 - 2 * chance(0.25))  # inverted colours
    x = x * uniform(0.7, 1.15, 3, 1, 1) + uniform(-0.15, 0.15, 3, 1, 1)

    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x + (blurred - x) * chance(0.25) * uniform(-0.4, 0.8, 1, 1, 1)  # below zero it sharpens
    noise = torch.randn(x.shape, generator=generator)
    return (x + noise * chance(0.3) * uniform(0.0, 0.12, 1, 1, 1)).clamp(-1, 1)


def learning_rate(progress: float, peak: float) -> float:
    """One cycle: up over the first tenth of the run, then half a cosine down to zero."""
    return peak * (progress / 0.1 if progress < 0.1 else 0.5 + 0.5 * math.cos(math.pi * (progress - 0.1) / 0.9))


@torch.no_grad()
def accuracy(classifier: DigitClassifier, data: ImageArrays) -> float:
    classifier.eval()
    right = sum(
        int((classifier(to_x0(x)).argmax(1) == y).sum())
        for x, y in zip(data.images.split(500), data.labels.split(500), strict=True)
    )
    return right / len(data)


def train_half(half: int, data: ImageArrays, args: argparse.Namespace) -> tuple[DigitClassifier, dict]:
    """The best of `args.epochs` epochs by the validation part; `data` has labels 0-9 only."""
    epochs = args.epochs[half]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(half))
    validation, training = data.subset(order[:VALIDATION]), data.subset(order[VALIDATION:])
    with torch.random.fork_rng():
        torch.manual_seed(half)
        classifier = DigitClassifier()
    classifier = classifier.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=args.lr, weight_decay=0.02)
    state_file = args.work / f"judge_{HALF_FOLDERS[half]}.pt"
    begin, best, best_state, seconds = 0, 0.0, None, 0.0
    if state_file.exists():
        saved = torch.load(state_file, weights_only=True)
        classifier.load_state_dict(saved["classifier"])
        optimizer.load_state_dict(saved["optimizer"])
        begin, best, best_state, seconds = saved["epoch"], saved["best"], saved["best_state"], saved["seconds"]

    per_epoch = len(training) // BATCH
    for epoch in range(begin, epochs):
        generator = torch.Generator().manual_seed(1_000 * (half + 1) + epoch)
        rows = torch.randperm(len(training), generator=generator)
        classifier.train()
        begun, losses = time.perf_counter(), []
        for step in range(per_epoch):
            x0, digits = training.batch(rows[step * BATCH : (step + 1) * BATCH])
            x = augmented(x0, generator).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate((epoch + step / per_epoch) / epochs, args.lr)
            loss = F.cross_entropy(classifier(x), digits, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        reached = accuracy(classifier, validation)
        if reached >= best:
            best, best_state = reached, {k: v.clone() for k, v in classifier.state_dict().items()}
        spent = time.perf_counter() - begun
        seconds += spent
        said = f"loss {np.mean(losses):.3f}, validation {reached:.4f}, {spent:.0f} s"
        print(f"{HALF_FOLDERS[half]} epoch {epoch + 1}: {said}", flush=True)
        with atomic_write(state_file) as temporary:
            torch.save(
                {
                    "classifier": classifier.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "best": best,
                    "best_state": best_state,
                    "epoch": epoch + 1,
                    "seconds": seconds,
                },
                temporary,
            )
    classifier.load_state_dict(best_state)
    facts = {
        "trained_on": len(training),
        "validated_on": VALIDATION,
        "validation_accuracy": best,
        "epochs": epochs,
        "seconds": round(seconds),
    }
    return classifier.eval(), facts


def half_of(folder: Path, split: str, half: int) -> ImageArrays:
    """Half 0 or 1 of the data, its labels as digits 0-9."""
    data = load_digits(folder, split=split)
    data = data.subset(data.labels // 10 == half)
    return ImageArrays(data.images, data.labels % 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=CACHE, type=Path, help="default: $DLCV_CACHE or ~/.cache/dlcv_diffusion")
    parser.add_argument("--work", default=Path("runs/judge"), type=Path, help="where an interrupted run is kept")
    parser.add_argument("--out", default=JUDGE, type=Path)
    parser.add_argument("--epochs", default=(14, 5), nargs=2, type=int, help="for MNIST-M and for the street digits")
    parser.add_argument("--lr", default=4e-3, type=float)
    parser.add_argument("--references", default=100, type=int, help="held-out images a class whose features are kept")
    parser.add_argument("--threads", default=1, type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    judge = Judge(references=args.references)
    facts = {}
    for half, name in enumerate(HALF_FOLDERS):
        classifier, facts[name] = train_half(half, half_of(args.data, "train", half), args)
        judge.halves[half].load_state_dict(classifier.state_dict())
    judge.eval()
    for half in range(len(HALF_FOLDERS)):
        held_out = half_of(args.data, "held_out", half)
        shuffle = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(half))
        for digit in range(10):
            rows = shuffle[held_out.labels[shuffle] == digit][: args.references]
            judge.reference[half, digit] = judge.read(held_out.images[rows], half)[1]
    judge.metadata = {"training": facts}
    save_judge(judge, args.out)

    judge = load_judge(args.out)  # as it ships, in float16
    reached, per_class = {}, {}
    for half, name in enumerate(HALF_FOLDERS):
        held_out = half_of(args.data, "held_out", half)
        right = judge.read(held_out.images, half)[0] == held_out.labels
        reached[name] = round(right.float().mean().item(), 4)
        per_class[name] = [round(right[held_out.labels == digit].float().mean().item(), 4) for digit in range(10)]
        facts[name]["held_out"] = len(held_out)
        print(f"{name}: {reached[name]:.4f} of {len(held_out)} held-out images; a digit: {per_class[name]}")
    judge.metadata = {"accuracy": reached, "accuracy_per_digit": per_class, "training": facts}
    save_judge(judge, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
