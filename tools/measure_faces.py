"""Measure face weights: Fréchet distance from held-out faces, and the nearest training faces, for several samplers.

    python tools/measure_faces.py --data faces64.zip           # the shipped weights: 13 rows, 90 minutes on one core
    python tools/measure_faces.py --data faces64.zip --steps 20 --etas 0 --compared --out runs/faces_measured.json
    python tools/measure_faces.py --data faces64.zip --quick --count 50 --out runs/quick.json
    python tools/measure_faces.py --data faces64.zip --neighbours runs/neighbours.png

The first rows are of --steps and --etas with the DDIM paper's uniform timesteps; then come --compared, numbers of steps
at eta = 0 that are measured with uniform and with trailing timesteps, which shows what the timesteps alone change.

Every row is --count faces from the seeds 0, 1, …, compared with the held-out faces of --data in the first 100
principal components of the training faces' pixels, as a multiple of the distance between two sets of real faces of that
size. Rows are kept in --out as they are done; those of other weights or of another --count are removed. Prints a table.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure_digits import fingerprint, rounded, write_json
from torch import Tensor
from tqdm.auto import tqdm

from dlcv_diffusion import Denoiser, load_denoiser, seeded_noise
from dlcv_diffusion.device import best_device
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.evaluation.encoder import PixelComponents
from dlcv_diffusion.evaluation.neighbours import nearest_neighbours
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.faces.evaluation import evaluate_faces
from dlcv_diffusion.faces.measured import MEASURED
from dlcv_diffusion.faces.sampling import FaceSampling, sample_faces
from dlcv_diffusion.figures import image_grid, save_figure

STEPS = (20, 50, 10, 250)  # most telling first
COMPARED = (5, 10, 20, 50)
PART = 100


def settings(args: argparse.Namespace) -> Iterator[FaceSampling]:
    """The samplers to measure, without the repetitions."""
    standard = product(args.steps, args.etas, ["uniform"])
    compared = product(args.compared, [0.0], ["uniform", "trailing"])
    quick = product([5], [0.0], ["uniform", "trailing"])
    for steps, eta, spacing in dict.fromkeys(quick if args.quick else [*standard, *compared]):
        yield FaceSampling(steps=steps, eta=eta, spacing=spacing)


def samples(denoise: Denoiser, config: FaceSampling, count: int) -> tuple[Tensor, float]:
    """Faces uint8 (count, C, H, W) from the seeds 0 … count − 1, and the seconds they took."""
    begun, parts = time.perf_counter(), []
    for first in tqdm(range(0, count, PART), desc=str(config.facts()), disable=None):
        seeds = range(first, min(first + PART, count))
        parts.append(sample_faces(denoise, seeded_noise((len(seeds), *denoise.shape), seeds), config, seeds=seeds))
    return torch.cat(parts), time.perf_counter() - begun


def neighbours_figure(faces: Tensor, training: Tensor, denoise: Denoiser, facts: dict[str, Any]):
    """Faces in the first row, and below each its three nearest training faces."""
    training = torch.cat([training, training.flip(-1)])  # training mirrors every second face
    rows, distances = nearest_neighbours(faces, training, k=3)
    columns = torch.stack([faces, *(training[rows[:, k]] for k in range(3))])
    return image_grid(
        columns,
        ["sampled", "nearest", "second", "third"],
        [f"{distance:.0f}" for distance in distances[:, 0].tolist()],
        "Nearest training faces",
        "Above each column: how far the nearest is, root mean square, in grey levels of 255",
        facts={**facts, "weights": denoise.name},
    )


def markdown(results: list[dict[str, Any]]) -> str:
    """The rows as a table, by η, steps and spacing."""
    lines = [
        "| steps | η | timesteps | Fréchet distance, × two real sets | recall | nearest training face, grey levels "
        "(held-out faces) |",
        "| ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in sorted(results, key=lambda row: (row["eta"], row["steps"], spacing_of(row))):
        near, recall = row["nearest"], row.get("recall")
        distance = f"{near['median']:.1f} ({near['real_median']:.1f})"
        found = f"{row['frechet_ratio']:.1f} | {'–' if recall is None else f'{recall:.2f}'} | {distance}"
        lines.append(f"| {row['steps']} | {row['eta']:g} | {spacing_of(row)} | {found} |")
    return "\n".join(lines)


def spacing_of(row: dict[str, Any]) -> str:
    """The spacing of a row's timesteps; rows from before it could be chosen do not name it."""
    return row.get("spacing", "uniform")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder or zip of the faces that the weights were trained on")
    add("--weights", default="faces", help="a name of shipped weights, or a model file")
    add("--steps", nargs="+", type=int, default=STEPS)
    add("--etas", nargs="+", type=float, default=(0.0, 1.0))
    add("--compared", nargs="*", type=int, default=COMPARED, help="steps of uniform and of trailing timesteps, eta = 0")
    add("--quick", action="store_true", help="two rows only: 5 steps, uniform and trailing")
    add("--count", type=int, default=1000, help="faces a row")
    add("--threads", default=torch.get_num_threads(), type=int)
    add("--device", default=None)
    add("--neighbours", type=Path, help="write a picture of 12 faces and their nearest training faces, and stop")
    add("--out", type=Path, default=MEASURED, help="JSON, which notebooks read")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    denoise = load_denoiser(args.weights, device=args.device or best_device())
    channels, size, _ = denoise.shape
    training, held_out = (load_faces(args.data, s, size=size, channels=channels).images for s in ("train", "held_out"))

    if args.neighbours:
        config = next(settings(args))
        faces, _ = samples(denoise, config, 12)
        facts = {**config.facts(), "seeds": range(12)}
        print(save_figure(neighbours_figure(faces, training, denoise, facts), args.neighbours))
        return
    weights, count = fingerprint(denoise.model.state_dict()), min(args.count, len(held_out))
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
    results = [row for row in results if row["weights"] == weights and row["count"] == count]
    done = {(row["steps"], row["eta"], spacing_of(row)) for row in results}
    components = PixelComponents.of(training)
    for config in settings(args):
        key = {"steps": config.steps, "eta": config.eta, "spacing": config.spacing}
        if tuple(key.values()) in done:
            continue
        faces, seconds = samples(denoise, config, args.count)
        report = evaluate_faces(faces, training, held_out, encoder=components)
        print(f"{key}: {seconds:.0f} s\n{report}", flush=True)
        row = {"weights": weights, "sampler": "ddim", **key, "seconds": seconds}
        results.append(rounded({**row, **report.as_dict()}))
        write_json(args.out, results)
    print(markdown(results))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
