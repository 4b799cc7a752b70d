"""Ours in at most 20 steps against the report's loop of 350, on the same weights, with how well a judge reads both.

    python benchmarks/few_steps.py --out benchmarks/results/few_steps.md

Speed alone says nothing: fewer steps are faster and can be worse. So the images that are timed are also read by the
judge, and the table shows both. A round is a batch of every contender, the same labels and seeds for all; the rounds
together are the images that the accuracy is taken over.
"""

import math
import statistics
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from side_by_side import Page, arguments, in_turns, machine, ratio, report_loop, table
from torch import Tensor, nn

from dlcv_diffusion import UserError, seeded_noise
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.digits.course import HALF_FOLDERS
from dlcv_diffusion.digits.evaluation import judge_accuracy
from dlcv_diffusion.digits.figures import half_name
from dlcv_diffusion.digits.judge import JUDGE, load_judge
from dlcv_diffusion.digits.sampling import SamplingConfig, sample_digits
from dlcv_diffusion.evaluation.accuracy import Accuracy
from dlcv_diffusion.images.pixels import to_uint8

AIM, MOST_STEPS = 15, 20  # "at least 15 times faster in at most 20 steps"
Sampler = Callable[[nn.Module, list[int], list[int]], Tensor]


class Contender:
    """A sampler with a model of its own that keeps what it drew: called once a round, with the next labels and seeds.

    `passes` is how often an image went through the network, over all images.
    """

    def __init__(self, sample: Sampler, weights: str, batch: int):
        # a model of its own, because ours is laid out channels-last and the report's is not
        self.sample, self.model, self.batch = sample, load_denoiser(weights, device="cpu"), batch
        self.images: list[Tensor] = []
        self.labels: list[int] = []
        self.passes = 0
        zero = torch.zeros(batch, dtype=torch.int64)
        with torch.no_grad():
            self.model(torch.randn(batch, *self.model.shape), zero, zero)  # warm-up enough for 700 passes
        self.model.model.register_forward_pre_hook(self.count)

    def count(self, model: nn.Module, arguments: tuple) -> None:
        self.passes += len(arguments[0])

    def __call__(self) -> None:
        first = len(self.labels)
        labels = [(first + i) % 20 for i in range(self.batch)]
        self.images.append(self.sample(self.model, labels, list(range(first, first + self.batch))))
        self.labels += labels


def report_sampler(model: nn.Module, labels: list[int], seeds: list[int]) -> Tensor:
    """All T DDPM steps, two forward passes each, float32: uint8 images (N, 3, 28, 28)."""
    x_T = seeded_noise((len(seeds), *model.shape), seeds)
    generator = torch.Generator().manual_seed(seeds[0])
    steps = report_loop(model.model, x_T, torch.tensor(labels), model.schedule, generator)
    return to_uint8(deque(steps, maxlen=1).pop())


def our_sampler(steps: int) -> Sampler:
    """`sample_digits` as `dlcv sample digits` calls it, at another number of steps."""
    config = SamplingConfig(steps=steps)
    return lambda model, labels, seeds: sample_digits(model, labels, seeds, config)


def measure(page: Page, weights: str, steps: Sequence[int], batch: int, repeats: int, judge_file: Path) -> None:
    judge = load_judge(judge_file)  # before an hour of sampling, not after it
    report = Contender(report_sampler, weights, batch)
    T = report.model.schedule.T
    reports_name = f"the report's loop, {T} DDPM steps"
    contenders = {reports_name: report}
    contenders |= {f"ours, {n} steps": Contender(our_sampler(n), weights, batch) for n in steps}
    seconds = in_turns(contenders, repeats, warm_up=0)
    read = {name: judge_accuracy(torch.cat(c.images), c.labels, judge) for name, c in contenders.items()}
    faster = {name: ratio(seconds[reports_name], times) for name, times in seconds.items()}
    halves = {half: half_name(report.model, index) for index, half in enumerate(HALF_FOLDERS)}

    page.add(f"# Few steps against the report's {T}")
    page.add(f"{machine()}.")
    settings = ", ".join(
        f"{key} {value}" for key, value in SamplingConfig().facts(report.model, []).items() if key in ("sampler", "w")
    )
    if SamplingConfig().signal_leak and "signal_leak" in report.model.facts:
        settings += ", x_T with the signal leak"
    page.add(
        f"Weights {Path(weights).name}. The report's loop: float32, two forward passes a step, w = 2. Ours: "
        f"`sample_digits` ({settings}) in float32, channels-last. "
        f"{repeats} rounds of {batch} images each; times are medians, ratios medians of the ratios within a round. "
        f"Read right: per cent of all {repeats * batch} images, ± one standard error."
    )
    rows = [
        [
            name,
            f"{contender.passes / len(contender.labels):.0f}",
            f"{statistics.median(seconds[name]) * 1000 / batch:.1f}",
            f"{faster[name]:.1f}",
            *(f"{100 * read[name][h].accuracy:.1f} ± {100 * standard_error(read[name][h]):.1f}" for h in halves),
        ]
        for name, contender in contenders.items()
    ]
    header = ["sampler", "passes an image", "s per 1,000 images", "times faster"]
    page.add(table([*header, *(f"{title}, % read right" for title in halves.values())], rows))
    few = [f"ours, {n} steps" for n in steps if n <= MOST_STEPS]
    page.add("\n".join(verdict(name, faster[name], read[name], read[reports_name], halves) for name in few))


def standard_error(half: Accuracy) -> float:
    """√(p (1 − p) / n), with p no nearer to 1 than half an image allows."""
    p = min(half.accuracy, 1 - 0.5 / half.count)
    return math.sqrt(p * (1 - p) / half.count)


def verdict(
    name: str,
    faster: float,
    ours: Mapping[str, Accuracy],
    report: Mapping[str, Accuracy],
    halves: Mapping[str, str],
) -> str:
    """One sentence: how much faster, and whether each half's accuracy is the report's, as far as chance lets us say."""
    said = []
    for half, title in halves.items():
        difference = ours[half].accuracy - report[half].accuracy
        spread = 2 * math.hypot(standard_error(ours[half]), standard_error(report[half]))
        word = "equal within chance" if abs(difference) <= spread else "better" if difference > 0 else "worse"
        said.append(f"{title} {100 * difference:+.1f} points ({word}: two standard errors are {100 * spread:.1f})")
    reached = "reached" if faster >= AIM else "missed"
    return (
        f"- {name}: {faster:.1f} times faster (aim: {AIM}, {reached}); accuracy beside the report's: {', '.join(said)}."
    )


def main() -> int:
    parser = arguments(__doc__.splitlines()[0], repeats=5)
    parser.add_argument("--batch", type=int, default=100, help="images a round, 100 by default; a multiple of 20")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 15, 10], help="ours, 20 15 10 by default")
    parser.add_argument("--weights", default="digits", help="shipped weights or a .safetensors file")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="the judge's file; the package's own by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    batch, repeats = (20, 1) if options.quick else (options.batch, options.repeats)
    if batch % 20:
        parser.error(f"--batch {batch} is not a multiple of 20, the number of classes")
    page = Page(options.out)
    try:
        measure(page, options.weights, options.steps, batch, repeats, options.judge)
    except UserError as error:
        print(f"few_steps.py: {error}", file=sys.stderr)
        return 2
    page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
