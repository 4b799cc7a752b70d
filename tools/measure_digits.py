"""Measure digit weights: accuracy, Fréchet distance and nearest training images for guidance of every strength.

    python tools/measure_digits.py                          # the shipped weights: 23 rows, an hour on a slow CPU core
    python tools/measure_digits.py --ddpm-only              # the report's own setting, 350 steps: another hour
    python tools/measure_digits.py --quick --per-class 10   # 3 rows of 200 images
    python tools/measure_digits.py --weights runs/digits/checkpoint.safetensors   # the average of a run so far

Every row is 50 images of each of the 20 classes unless --per-class says otherwise. Rows are kept in --out as they are
done, and sampled images in --work, so that a run that was stopped goes on where it was, and nothing is done twice. Rows
in --out of other weights, another judge or another spacing of timesteps are removed. Prints a Markdown table.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlcv_diffusion import Denoiser, NoiseSchedule, load_denoiser
from dlcv_diffusion.device import best_device
from dlcv_diffusion.digits.course import HALF_FOLDERS
from dlcv_diffusion.digits.data import load_digits
from dlcv_diffusion.digits.evaluation import DigitsReport, evaluate_digits
from dlcv_diffusion.digits.figures import half_name
from dlcv_diffusion.digits.judge import JUDGE
from dlcv_diffusion.digits.measured import MEASURED
from dlcv_diffusion.digits.recipes import digits_recipe
from dlcv_diffusion.digits.sampling import REPORT, SamplingConfig, hw2_labels, sample_digits
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.models.registry import load_state, read_tensors, shipped_weights

CACHE = os.environ.get("DLCV_CACHE", str(Path.home() / ".cache" / "dlcv_diffusion"))
WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
FEW = (10, 8, 5, 15)
INTERVALS = ((0.1, 1.0), (0.2, 2.0), (0.3, 3.0), (0.5, 6.0))
"""Noise levels σ between which guidance is tried; the schedule of T = 350 goes from 0.01 to 5.8."""


def rows(args: argparse.Namespace) -> Iterator[SamplingConfig]:
    """The settings to measure, most telling first."""
    if args.ddpm_only:
        yield REPORT
        return
    few = {"sampler": "dpm_solver", "steps": args.steps}
    chosen = tuple(args.interval)
    if args.quick:
        yield from (SamplingConfig(**few, w=0.0), SamplingConfig(**few, w=2.0))
        yield SamplingConfig(**few, w=2.0, interval=chosen)
    else:
        yield from (SamplingConfig(**few, w=w) for w in WEIGHTS)
        yield from (SamplingConfig(steps=steps, w=2.0) for steps in FEW)
        yield from (SamplingConfig(sampler="ddim", steps=steps, w=2.0) for steps in (args.steps, *FEW))
        yield from (SamplingConfig(**few, w=w, signal_leak=False) for w in (0.0, 2.0))
        yield from (SamplingConfig(**few, w=2.0, interval=interval) for interval in INTERVALS)
        yield SamplingConfig(**few, w=2.0, interval=INTERVALS[2], signal_leak=False)
        yield SamplingConfig(**few, w=4.0, interval=chosen)


def load_weights(name_or_path: str, preset: str, device: torch.device | str | None = None) -> Denoiser:
    """Shipped weights by name, a model file, or the averaged weights of a run's checkpoint so far."""
    path = shipped_weights().get(name_or_path, Path(name_or_path))
    tensors, header = read_tensors(path)
    if "checkpoint" not in header:
        return load_denoiser(name_or_path, device=device)
    model = digits_recipe(preset).build()  # a checkpoint does not say which network it is of
    average = {k.removeprefix("ema.module."): v for k, v in tensors.items() if k.startswith("ema.module.")}
    load_state(model, average, path)
    facts = {**header["checkpoint"]["facts"], "step": header["checkpoint"]["step"]}
    return Denoiser(
        model.eval(),
        NoiseSchedule.from_config(facts["schedule"]),
        facts.get("train", {}).get("prediction", "eps"),
        shape=(3, 28, 28),
        null=model.num_classes,
        name=path.stem,
        facts=facts,
    ).to(device or "cpu")


def fingerprinted(denoiser: Denoiser) -> dict[str, Any]:
    """Which weights these are, and after how many steps of training, where they say so."""
    step = {"step": denoiser.facts["step"]} if "step" in denoiser.facts else {}
    return {"fingerprint": fingerprint(denoiser.model.state_dict()), **step}


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Twelve hexadecimal figures that tell these weights from all others."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def samples(denoiser: Denoiser, config: SamplingConfig, args: argparse.Namespace) -> tuple[Tensor, Tensor, float]:
    """Images, labels and the seconds they took; kept batch by batch in `args.work`."""
    labels = hw2_labels(args.per_class)
    key = [args.weights_fingerprint["fingerprint"], asdict(config), args.per_class, args.seed]
    folder = args.work / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    images, seconds = [], 0.0
    for first in range(0, len(labels), args.batch_size):
        part = range(first, min(first + args.batch_size, len(labels)))
        kept = folder / f"{first:06d}_{len(part)}.npz"
        if not kept.exists():
            begun = time.perf_counter()
            batch = sample_digits(denoiser, [labels[i] for i in part], [args.seed + i for i in part], config)
            with atomic_write(kept) as temporary, open(temporary, "wb") as file:
                np.savez(file, images=batch.numpy(), seconds=time.perf_counter() - begun)
        with np.load(kept) as file:
            images.append(torch.from_numpy(file["images"]))
            seconds += float(file["seconds"])
    return torch.cat(images), torch.tensor(labels), seconds


def load_data(folder: Path) -> dict[str, tuple[Tensor, Tensor]] | None:
    """Training and held-out images for the nearest neighbours, or None where they are not at hand."""
    if not (folder / "digits_train.npz").exists():
        return None
    training, held_out = (load_digits(folder, split=split) for split in ("train", "held_out"))
    thin = slice(None, None, max(1, len(held_out) // 1000))  # 1,000 are enough of a yardstick
    return {
        "training": (training.images, training.labels),
        "held_out": (held_out.images[thin], held_out.labels[thin]),
    }


def result(
    denoiser: Denoiser, config: SamplingConfig, report: DigitsReport, seconds: float, args: argparse.Namespace
) -> dict[str, Any]:
    """One row of the results file."""
    return {
        "weights": args.weights_fingerprint,
        "names": {half: half_name(denoiser, index) for index, half in enumerate(HALF_FOLDERS)},
        "judge": args.judge_fingerprint,
        "sampler": config.sampler,
        "steps": config.steps or denoiser.schedule.T,
        "spacing": config.spacing,
        "w": config.w,
        "interval": list(config.interval) if config.interval else None,
        "signal_leak": config.signal_leak,
        "per_class": args.per_class,
        "seed": args.seed,
        "seconds": round(seconds, 1),
        "halves": rounded(report.as_dict()),
    }


KEY = ("weights", "judge", "sampler", "steps", "spacing", "w", "interval", "signal_leak", "per_class", "seed")


def markdown(results: list[dict[str, Any]]) -> str:
    """The rows as a table: accuracy, Fréchet ratio (1: as real images) and recall of both halves."""
    first, second = (results[0]["names"][half] for half in HALF_FOLDERS)
    columns = f"accuracy {first} | {second} | Fréchet {first} | {second} | recall {first} | {second}"
    lines = [
        f"| sampler | steps | w | guided where σ in | start | {columns} |",
        "| --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in results:
        halves = [row["halves"][half] for half in HALF_FOLDERS]
        interval = "all" if row["interval"] is None else "[{:g}, {:g}]".format(*row["interval"])
        accuracies = " | ".join(f"{100 * half['accuracy']:.1f} %" for half in halves)
        ratios, recalls = (
            " | ".join("–" if half[name] is None else form.format(half[name]) for half in halves)
            for name, form in (("frechet_ratio", "{:.1f}"), ("recall", "{:.2f}"))
        )
        name = {"dpm_solver": "DPM-Solver++", "ddpm": "DDPM", "ddim": "DDIM"}[row["sampler"]]
        settings = f"{name} | {row['steps']} | {row['w']:g} | {interval if row['w'] else '–'}"
        start = "a mean colour" if row["signal_leak"] else "N(0, I)"
        lines.append(f"| {settings} | {start} | {accuracies} | {ratios} | {recalls} |")
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Floats to five places, NaN to null: strict JSON that reads well in a diff."""
    if isinstance(value, float):
        return None if value != value else round(value, 5)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def write_json(path: Path, results: list[dict[str, Any]]) -> None:
    """One row a line, so that a changed row is one changed line."""
    text = "[\n" + ",\n".join(json.dumps(row) for row in results) + "\n]\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", default="digits", help="a name of shipped weights, a model file or a run's checkpoint"
    )
    parser.add_argument("--preset", default="small", help="the network of a checkpoint: report, small or tiny")
    parser.add_argument("--steps", default=20, type=int, help="of DPM-Solver++")
    parser.add_argument("--interval", default=(0.2, 2.0), nargs=2, type=float, metavar=("LO", "HI"), help="for w = 4")
    parser.add_argument("--quick", action="store_true", help="three rows only")
    parser.add_argument("--ddpm-only", action="store_true", help="the report's own setting alone, all timesteps")
    parser.add_argument("--per-class", default=50, type=int)
    parser.add_argument("--seed", default=0, type=int, help="of the first image; the others count on from it")
    parser.add_argument("--batch-size", default=100, type=int)
    parser.add_argument("--threads", default=torch.get_num_threads(), type=int)
    parser.add_argument("--device", default=None)
    parser.add_argument("--data", default=CACHE, type=Path, help="of the training data, for the nearest neighbours")
    parser.add_argument("--no-neighbours", action="store_true")
    parser.add_argument("--work", default=Path("runs/measure"), type=Path, help="where sampled images are kept")
    parser.add_argument("--out", default=MEASURED, type=Path, help="JSON, which notebooks read")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    denoiser = load_weights(args.weights, args.preset, args.device or best_device())
    args.weights_fingerprint = fingerprinted(denoiser)
    args.judge_fingerprint = fingerprint(read_tensors(JUDGE)[0])
    data = None if args.no_neighbours else load_data(args.data)
    if data is None:
        print(f"no training data in '{args.data}': the nearest training images are left out")
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
    current = {"weights": args.weights_fingerprint, "judge": args.judge_fingerprint}
    current |= {"spacing": SamplingConfig().spacing}
    results = [row for row in results if all(row.get(k) == v for k, v in current.items())]
    done = {json.dumps([row[k] for k in KEY]): row for row in results}
    shown = []
    for config in rows(args):
        empty = result(denoiser, config, DigitsReport(), 0.0, args)
        key = json.dumps([empty[k] for k in KEY])
        if key not in done:
            images, labels, seconds = samples(denoiser, config, args)
            report = evaluate_digits(images, labels, **(data or {}))
            print(f"{config}: {seconds:.0f} s\n{report}", flush=True)
            done[key] = result(denoiser, config, report, seconds, args)
            results.append(done[key])
            write_json(args.out, results)
        shown.append(done[key])
    print(markdown(shown))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
