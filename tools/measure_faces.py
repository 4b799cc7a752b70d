"""Measure face weights: Fréchet distance from held-out faces, and the nearest training faces, for several samplers.

    python tools/measure_faces.py --data faces64.zip           # the shipped weights: 17 rows, half an hour on one core
    python tools/measure_faces.py --data faces64.zip --rows dpm_solver:trailing:0:10,20 --out runs/faces_measured.json
    python tools/measure_faces.py --data faces64.zip --count 50 --rows ddim:uniform:0:5 --out runs/quick.json
    python tools/measure_faces.py --data faces64.zip --neighbours runs/neighbours.png

A row is --count faces from the seeds 0, 1, …, by a sampler ("ddim" or "dpm_solver"), with "uniform" or "trailing"
timesteps, η and a number of steps: --rows takes groups of them, sampler:timesteps:η:steps,steps. They are compared with
the held-out faces of --data, in the first 100 principal components of the training faces' pixels and in the features of
the package's face encoder, as a multiple of the distance between two sets of real faces of that size. Rows are kept in
--out as they are done; those of other weights, another encoder or another --count are removed. Prints a table.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from measure_digits import fingerprint, rounded, write_json
from torch import Tensor
from tqdm.auto import tqdm

from dlcv_diffusion import Denoiser, dpm_solver, last, load_denoiser, seeded_noise
from dlcv_diffusion.device import best_device
from dlcv_diffusion.errors import UserError, check
from dlcv_diffusion.evaluation.encoder import PixelComponents
from dlcv_diffusion.evaluation.neighbours import nearest_neighbours
from dlcv_diffusion.evaluation.realism import Realism
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.faces.encoder import SHAPE, load_face_encoder
from dlcv_diffusion.faces.evaluation import evaluate_faces, evaluate_realism, radial_spectrum
from dlcv_diffusion.faces.measured import MEASURED
from dlcv_diffusion.faces.sampling import FaceSampling, sample_faces
from dlcv_diffusion.figures import image_grid, save_figure
from dlcv_diffusion.images.pixels import to_uint8

ROWS = (  # most telling first
    "ddim:uniform:0:50,20,10",
    "dpm_solver:trailing:0:20,10,8,5",
    "ddim:uniform:1:50,20,10",
    "ddim:trailing:0:5,8,10,20,50",
    "ddim:uniform:0:5,250",
)
PART = 100


@dataclass(frozen=True)
class Setting:
    """A sampler and its settings: what a row is about."""

    sampler: str
    spacing: str
    eta: float
    steps: int

    def run(self, denoise: Denoiser, seeds: range) -> Tensor:
        """Faces uint8 (N, C, H, W) from these seeds."""
        x_T = seeded_noise((len(seeds), *denoise.shape), seeds)
        if self.sampler == "dpm_solver":
            parts = (last(dpm_solver(denoise, x.to(denoise.device), steps=self.steps)).x for x in x_T.split(16))
            return to_uint8(torch.cat([x.cpu() for x in parts]))
        config = FaceSampling(steps=self.steps, eta=self.eta, spacing=self.spacing)
        return sample_faces(denoise, x_T, config, seeds=seeds)


def settings(rows: Sequence[str]) -> Iterator[Setting]:
    """The settings of groups such as "ddim:uniform:0:50,20"."""
    for group in rows:
        try:
            sampler, spacing, eta, steps = group.split(":")
            found = [Setting(sampler, spacing, float(eta), int(count)) for count in steps.split(",")]
        except ValueError as error:
            raise UserError(f"'{group}' is not sampler:timesteps:η:steps, such as ddim:uniform:0:50,20") from error
        known = sampler == "ddim" or (sampler, spacing, found[0].eta) == ("dpm_solver", "trailing", 0)
        check(known, f"'{group}': the samplers are ddim and dpm_solver, the latter as dpm_solver:trailing:0")
        yield from found


def samples(denoise: Denoiser, setting: Setting, count: int) -> tuple[Tensor, float]:
    """Faces uint8 (count, C, H, W) from the seeds 0 … count − 1, and the seconds they took."""
    begun, parts = time.perf_counter(), []
    for first in tqdm(range(0, count, PART), desc=str(setting), disable=None):
        parts.append(setting.run(denoise, range(first, min(first + PART, count))))
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
    """The rows as a table, by sampler, η, timesteps and steps."""
    lines = [
        "| sampler | timesteps | η | steps | Fréchet, encoder | recall, encoder | Fréchet, pixels | sharpness "
        "| nearest training face, grey levels (held-out faces) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(results, key=lambda row: tuple(row[name] for name in ("sampler", "eta", "spacing", "steps"))):
        near, seen = row["nearest"], row["encoder"]
        settings = f"| {row['sampler']} | {row['spacing']} | {row['eta']:g} | {row['steps']} "
        by_encoder = ((seen["frechet_ratio"], ".1f"), (seen["recall"], ".2f"))
        by_encoder = " | ".join("–" if value is None else format(value, form) for value, form in by_encoder)
        found = f"| {by_encoder} | {row['frechet_ratio']:.1f} "
        found += f"| {row['sharpness']:.2f} | {near['median']:.1f} ({near['real_median']:.1f}) |"
        lines.append(settings + found)
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder or zip of the faces that the weights were trained on")
    add("--weights", default="faces", help="a name of shipped weights, or a model file")
    add("--rows", nargs="+", default=ROWS, metavar="SAMPLER:TIMESTEPS:ETA:STEPS", help="what to measure")
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

    wanted = list(settings(args.rows))
    if args.neighbours:
        faces, _ = samples(denoise, wanted[0], 12)
        facts = {**asdict(wanted[0]), "seeds": range(12)}
        print(save_figure(neighbours_figure(faces, training, denoise, facts), args.neighbours))
        return
    encoder = load_face_encoder() if denoise.shape == SHAPE else None
    kept = {"weights": fingerprint(denoise.model.state_dict()), "count": min(args.count, len(held_out))}
    kept["encoder_weights"] = fingerprint(encoder.state_dict()) if encoder else None
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
    results = [row for row in results if all(row.get(name) == value for name, value in kept.items())]
    done = [{name: row[name] for name in asdict(wanted[0])} for row in results]
    components = PixelComponents.of(training)
    for setting in wanted:
        if asdict(setting) in done:
            continue
        faces, seconds = samples(denoise, setting, args.count)
        report = evaluate_faces(faces, training, held_out, encoder=components)
        seen = evaluate_realism(faces, training, held_out, encoder) if encoder else Realism()
        spectrum = (radial_spectrum(faces) / radial_spectrum(held_out)).tolist()
        print(f"{setting}: {seconds:.0f} s\n{report}\nby the encoder: {seen}", flush=True)
        row = {**kept, **asdict(setting), "seconds": seconds, **report.as_dict()}
        results.append(rounded({**row, "encoder": seen.as_dict(), "spectrum": spectrum}))
        write_json(args.out, results)
    print(markdown(results))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
