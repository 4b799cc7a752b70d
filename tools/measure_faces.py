"""Measure face weights: Fréchet distance from held-out faces, and the nearest training faces, for several samplers.

    python tools/measure_faces.py --data faces64.zip           # the shipped weights: 8 rows, an hour on one core
    python tools/measure_faces.py --data faces64.zip --steps 20 --etas 0 --out runs/faces_measured.json
    python tools/measure_faces.py --data faces64.zip --neighbours runs/neighbours.png

Every row is --count faces from the seeds 0, 1, …, compared with the held-out faces of --data in the first 100
principal components of the training faces' pixels, as a multiple of the distance between two sets of real faces of that
size. Rows are kept in --out as they are done; those of other weights or of another --count give way. Prints a table.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from measure_digits import fingerprint, rounded, write_json
from torch import Tensor
from tqdm.auto import tqdm

from dlcv_diffusion.denoiser import EpsDenoiser
from dlcv_diffusion.device import best_device
from dlcv_diffusion.digits.evaluation import nearest_neighbours
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.evaluation.measured import FACES_MEASURED
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.faces.evaluation import PixelComponents, evaluate_faces
from dlcv_diffusion.faces.figures import noises_of
from dlcv_diffusion.faces.sampling import FaceSampling, face_denoiser, sample_faces
from dlcv_diffusion.figures import image_grid, save_figure

STEPS = (20, 50, 10, 250)  # most telling first
PART = 100


def samples(denoise: EpsDenoiser, steps: int, eta: float, count: int) -> tuple[Tensor, float]:
    """Faces uint8 (count, C, H, W) from the seeds 0 … count − 1, and the seconds they took."""
    begun, parts = time.perf_counter(), []
    for first in tqdm(range(0, count, PART), desc=f"{steps} steps, eta = {eta:g}", disable=None):
        seeds = range(first, min(first + PART, count))
        parts.append(sample_faces(denoise, noises_of(denoise, seeds), FaceSampling(steps, eta), seeds=seeds))
    return torch.cat(parts), time.perf_counter() - begun


def neighbours_figure(faces: Tensor, training: Tensor, denoise: EpsDenoiser, facts: dict[str, Any]):
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
        facts={"sampler": "ddim", **facts, "weights": denoise.name},
    )


def markdown(results: list[dict[str, Any]]) -> str:
    lines = [
        "| steps | η | Fréchet distance, × two real sets | nearest training face, grey levels (held-out faces) |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(results, key=lambda row: (row["eta"], row["steps"])):
        near = row["nearest"]
        distance = f"{near['median']:.1f} ({near['real_median']:.1f})"
        lines.append(f"| {row['steps']} | {row['eta']:g} | {row['frechet_ratio']:.1f} | {distance} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder or zip of the faces that the weights were trained on")
    add("--weights", default="faces", help="a name of shipped weights, or a model file")
    add("--steps", nargs="+", type=int, default=STEPS)
    add("--etas", nargs="+", type=float, default=(0.0, 1.0))
    add("--count", type=int, default=1000, help="faces a row")
    add("--threads", default=torch.get_num_threads(), type=int)
    add("--device", default=None)
    add("--neighbours", type=Path, help="write a picture of 12 faces and their nearest training faces, and stop")
    add("--out", type=Path, default=FACES_MEASURED, help="JSON, which notebooks read")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    denoise = face_denoiser(args.weights, device=args.device or best_device())
    channels, size, _ = denoise.image_size
    training, held_out = (load_faces(args.data, s, size=size, channels=channels).images for s in ("train", "held_out"))

    if args.neighbours:
        faces, _ = samples(denoise, args.steps[0], args.etas[0], 12)
        facts = {"steps": args.steps[0], "eta": args.etas[0], "seeds": range(12)}
        print(save_figure(neighbours_figure(faces, training, denoise, facts), args.neighbours))
        return
    weights = fingerprint(denoise.model.state_dict())
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
    count = min(args.count, len(held_out))
    results = [row for row in results if row["weights"] == weights and row["count"] == count]
    done = {(row["steps"], row["eta"]) for row in results}
    components = PixelComponents.of(training)
    for steps in args.steps:
        for eta in args.etas:
            if (steps, eta) in done:
                continue
            faces, seconds = samples(denoise, steps, eta, args.count)
            report = evaluate_faces(faces, training, held_out, components=components)
            print(f"{steps} steps, eta = {eta:g}: {seconds:.0f} s\n{report}", flush=True)
            row = {"weights": weights, "sampler": "ddim", "steps": steps, "eta": eta, "seconds": seconds}
            results.append(rounded({**row, **report.as_dict()}))
            write_json(args.out, results)
    print(markdown(results))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
