"""What the benchmarks share: contenders timed in turns in one process, ratios, Markdown, and the report's loop.

Contenders take turns, so that whatever else the machine does falls on all of them alike, and a ratio is the median of
the ratios within a round, which drifts less than the ratio of two medians.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dlcv_diffusion import NoiseSchedule

Job = Callable[[], object]


def in_turns(
    jobs: Mapping[str, Job], repeats: int, *, warm_up: int = 1, finish: Job | None = None
) -> dict[str, list[float]]:
    """Seconds of every job in every round: warm-up calls first, then `repeats` rounds, each beginning with another job.

    `finish` waits for the device, before and after each job: `torch.cuda.synchronize` on a GPU.
    """
    finish = finish or (lambda: None)
    for _ in range(warm_up):
        for job in jobs.values():
            job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            finish()
            start = time.perf_counter()
            jobs[name]()
            finish()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """Median over the rounds of seconds / reference.

    >>> ratio([2.0, 3.0, 8.0], [1.0, 1.0, 2.0])
    3.0
    """
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, text: int = 1) -> str:
    """A Markdown table: the first `text` columns flush left, the others, numbers, flush right.

    >>> print(table(["sampler", "ms"], [["ours", 7], ["theirs", 70]]))
    | sampler | ms |
    | ------- | -: |
    | ours    |  7 |
    | theirs  | 70 |
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    aligned = [
        [
            cell.ljust(width) if i < text else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    ]
    ruler = ["-" * width if i < text else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [aligned[0], ruler, *aligned[1:]])


def machine(device: torch.device | str = "cpu") -> str:
    """The facts a measurement hangs on, in one line: processor, threads, versions, the GPU if there is one."""
    facts = [
        f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        f"torch {torch.__version__}, Python {platform.python_version()}",
    ]
    if torch.device(device).type == "cuda":
        facts.insert(0, f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    return "; ".join(facts)


def processor() -> str:
    """The processor's name as its maker gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Page:
    """The results: printed as they come, and written to a file, if one is named, with every part that comes."""

    def __init__(self, out: Path | None):
        self.out, self.parts = out, []

    def add(self, part: str) -> None:
        print(f"{part}\n", flush=True)
        self.parts.append(part)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")

    def close(self) -> None:
        if self.out is not None:
            print(f"written to {self.out}", file=sys.stderr)


def arguments(description: str, repeats: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds, {repeats} by default")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice by default")
    parser.add_argument("--quick", action="store_true", help="one small round: does it run? Its numbers mean nothing")
    parser.add_argument("--out", type=Path, help="write the results here, too, as Markdown")
    return parser


@torch.no_grad()
def report_loop(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    schedule: NoiseSchedule,
    generator: torch.Generator,
    *,
    w: float = 2.0,
) -> Iterator[Tensor]:
    """The loop that public solutions of the homework share, on any model of ours: yields x after every timestep.

        x ← (x − β_t / √(1 − ᾱ_t) ε̃) / √α_t + √β_t z,    ε̃ = (1 + w) ε(x, c) − w ε(x, ∅)

    t runs from T − 1 to 0, with one forward pass for c and one for ∅, in float32. x and labels are on one device, and
    `generator` draws z there.
    """
    model.eval()
    betas, alphas, alphas_bar = (
        table.float().to(x.device) for table in (schedule.betas, schedule.alphas, schedule.alphas_bar)
    )
    null = torch.full_like(labels, model.num_classes)
    for i in range(schedule.T - 1, -1, -1):
        t = torch.full((len(x),), i, device=x.device)
        eps = (1 + w) * model(x, t, labels) - w * model(x, t, null)
        x = (x - betas[i] / (1 - alphas_bar[i]).sqrt() * eps) / alphas[i].sqrt()
        if i > 0:
            x = x + betas[i].sqrt() * torch.randn(x.shape, generator=generator, device=x.device)
        yield x
