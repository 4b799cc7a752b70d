"""On a CUDA GPU: the report's loop against ours, the course's 1,000 files, training, and the η grid of 256×256 faces.

    PYTHONPATH=. python benchmarks/gpu.py --out benchmarks/results/gpu.md

Needs torch, torchvision, numpy, scipy, matplotlib, accelerate, safetensors, pydantic, einops, tqdm and Pillow; the
package itself need not be installed. On an H100 with slow CPU cores the steps took two minutes and the files and
training three, without --no-compile more; each table is printed and written when it is done. A way that fails is a row
that says so, and the others go on.
"""

import argparse
import contextlib
import copy
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from side_by_side import Job, Page, arguments, in_turns, machine, ratio, report_loop, table
from torch import Tensor, nn

from dlcv_diffusion import NoiseSchedule, NoiseStream, UserError, ddim, ddpm, guided, last, seeded_noise
from dlcv_diffusion.denoiser import Denoiser
from dlcv_diffusion.device import prepare
from dlcv_diffusion.digits.recipes import digits_recipe
from dlcv_diffusion.digits.sampling import REPORT, hw2_labels, write_hw2_digits
from dlcv_diffusion.faces.figures import ETAS
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.images.pixels import to_uint8
from dlcv_diffusion.models import UNet, read_model
from dlcv_diffusion.models.loading import own_denoiser
from dlcv_diffusion.training import train

CLASSES, W = 20, 2.0
THEIRS = "the report's loop: float32, two passes a step"
Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batches: tuple[int, ...] = (100, 1000)
    chunk: int = 20  # steps of a sampler in one turn
    files: int = 50  # of each of the 20 classes
    training_chunk: int = 20  # training steps in one turn
    training_batch: int | None = None  # the recipe's own
    face: int = 256  # pixels a side of the η grid's faces
    face_steps: int = 50
    face_channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512)  # DDPM's for 256×256: its appendix B


@dataclass
class Network:
    """A network twice: as it is, for the report's loop, and on its way to ours."""

    name: str
    preset: str
    model: nn.Module

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.model).eval()

    def denoiser(self, device: torch.device) -> Denoiser:
        """As `load_denoiser` would give it."""
        return own_denoiser(prepare(self.copy(), device), {})


# --- sampling ---------------------------------------------------------------------------------------------------------


class Graphed:
    """A denoiser recorded once as a CUDA graph and replayed at every call: no Python between the kernels."""

    def __init__(self, denoise: Denoise, x: Tensor, t: Tensor):
        self.x, self.t = x.clone(), t.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):  # libraries choose their algorithms and workspaces before the recording
                denoise(self.x, self.t)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self.graph):
            self.eps = denoise(self.x, self.t)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.x.copy_(x)
        self.t.copy_(t)
        self.graph.replay()
        return self.eps.clone()


def without_cache(denoise: Denoise, device: torch.device) -> Denoise:
    """The denoiser under an autocast that does not keep the weights it has cast, which a CUDA graph must not share."""

    def cast(x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return denoise(x, t)

    return cast


def finisher(device: torch.device) -> Job:
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


class Sampling:
    """The ways to take DDPM steps with one network at one batch size, each made at its first use, which may fail."""

    def __init__(self, network: Network, batch: int, device: torch.device, sizes: Sizes):
        self.network, self.batch, self.device, self.sizes = network, batch, device, sizes
        self.schedule = NoiseSchedule.linear(network.model.timesteps)
        self.labels = torch.arange(batch, device=device) % CLASSES
        self.x_T = seeded_noise((batch, 3, 28, 28), range(batch), device)
        self.t = torch.full((batch,), self.schedule.T // 2, device=device)
        self.generator = torch.Generator(device).manual_seed(0)
        self.model = network.copy().to(device)
        self.fast = prepare(network.copy(), device)

    def fresh_noise(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, device=x.device)

    def plain(self, x: Tensor, t: Tensor) -> Tensor:
        """ε̃ as the report computes it."""
        null = torch.full_like(self.labels, self.model.num_classes)
        with torch.no_grad():
            return (1 + W) * self.model(x, t, self.labels) - W * self.model(x, t, null)

    def eager(self) -> Denoise:
        return guided(self.fast, self.labels, W, null=CLASSES)

    def graphed(self) -> Denoise:
        if self.device.type != "cuda":
            raise UserError("CUDA graphs need a GPU")
        return Graphed(without_cache(self.eager(), self.device), self.x_T, self.t)

    def compiled(self) -> Denoise:
        return guided(torch.compile(self.fast, mode="reduce-overhead"), self.labels, W, null=CLASSES)

    def chunk_of(self, denoise: Denoise, *, seeds: bool = False) -> Job:
        """A job: the first `chunk` of our DDPM's steps; noise from the GPU's generator, or from a seed an image."""
        noise = NoiseStream(range(self.batch)) if seeds else self.fresh_noise

        def chunk() -> None:
            steps = ddpm(denoise, self.x_T, self.schedule, noise=noise)
            # around all steps, as `sample_digits(…, fast=True)` has it
            with torch.autocast(self.device.type, torch.bfloat16):
                deque(islice(steps, self.sizes.chunk), maxlen=0)

        return chunk

    def report_chunk(self) -> None:
        steps = report_loop(self.model, self.x_T, self.labels, self.schedule, self.generator, w=W)
        deque(islice(steps, self.sizes.chunk), maxlen=0)


def steps_a_second(
    page: Page, network: Network, batch: int, device: torch.device, sizes: Sizes, repeats: int, compile: bool
) -> None:
    """One table: steps a second of every way, the ratio to the report's loop, and how near its ε̃ is."""
    ways = Sampling(network, batch, device, sizes)
    makers: dict[str, Callable[[], Denoise]] = {
        "ours: bf16, channels-last, one pass of 2B": ways.eager,
        "ours, with noise from a seed an image": ways.eager,
        "ours, as a CUDA graph": ways.graphed,
    }
    if compile:
        makers["ours, torch.compile (reduce-overhead)"] = ways.compiled
    jobs: dict[str, Job] = {THEIRS: ways.report_chunk}
    wanted = ways.plain(ways.x_T, ways.t)
    apart, ready, failed = {THEIRS: "0"}, {THEIRS: "–"}, {}
    finish = finisher(device)
    for name, make in makers.items():
        start = time.perf_counter()
        try:
            denoise = make()
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                for _ in range(3):  # the first calls compile
                    eps = denoise(ways.x_T, ways.t).clone()
            finish()
            # an untrained U-Net of ours predicts zero, to which nothing is relative
            apart[name] = f"{(rms(eps - wanted) / rms(wanted)).item():.0e}" if wanted.any() else "–"
            job = ways.chunk_of(denoise, seeds="seed" in name)
            job()
            finish()
        except Exception as error:  # one way that a version of torch refuses must not cost the others
            failed[name] = first_line(error)
            continue
        jobs[name], ready[name] = job, f"{time.perf_counter() - start:.1f}"
    seconds = in_turns(jobs, repeats, finish=finish)
    rows = [
        [
            name,
            f"{sizes.chunk / statistics.median(times):.1f}",
            f"{1000 * statistics.median(times) / sizes.chunk:.2f}",
            f"{ratio(seconds[THEIRS], times):.2f}",
            apart[name],
            ready[name],
        ]
        for name, times in seconds.items()
    ]
    rows += [[name, "failed", "–", "–", "–", "–"] for name in failed]
    page.add(f"### {network.name}, {batch} images a batch: one guided DDPM step")
    header = ["way", "steps a second", "ms a step", "times faster", "ε̃ apart, relative rms", "s to get ready"]
    page.add(table(header, rows))
    if failed:
        page.add("\n".join(f"- {name} failed: {reason}" for name, reason in failed.items()))
    torch.compiler.reset()


def rms(x: Tensor) -> Tensor:
    return x.float().square().mean().sqrt()


# --- the course's files -----------------------------------------------------------------------------------------------


def report_files(network: Network, device: torch.device, count: int, folder: Path) -> None:
    """The report's way to the files: all T steps of one batch, then one PNG after another."""
    model = network.copy().to(device)
    labels = hw2_labels(count)
    x_T = seeded_noise((len(labels), 3, 28, 28), range(len(labels)), device)
    generator = torch.Generator(device).manual_seed(0)
    steps = report_loop(
        model, x_T, torch.tensor(labels, device=device), NoiseSchedule.linear(model.timesteps), generator, w=W
    )
    for index, image in enumerate(to_uint8(deque(steps, maxlen=1).pop()).cpu()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{labels[index]}_{index % count + 1:03d}.png")


def files(page: Page, networks: list[Network], device: torch.device, sizes: Sizes) -> None:
    """One table: wall-clock seconds from a loaded model to the files on the disk."""
    rows, failed = [], []
    for network in networks:
        T = NoiseSchedule.linear(network.model.timesteps).T
        jobs: dict[str, Callable[[Path], object]] = {
            f"the report's loop, {T} steps": lambda folder, n=network: report_files(n, device, sizes.files, folder),
            f"ours, {T} DDPM steps": lambda folder, n=network: write_hw2_digits(
                folder, n.denoiser(device), REPORT, count=sizes.files
            ),
            "ours, as `dlcv sample digits`": lambda folder, n=network: write_hw2_digits(
                folder, n.denoiser(device), count=sizes.files
            ),
        }
        seconds = {}
        for name, job in [("warm-up", list(jobs.values())[-1]), *jobs.items()]:
            with tempfile.TemporaryDirectory() as folder:
                finisher(device)()
                start = time.perf_counter()
                try:
                    job(Path(folder))
                except Exception as error:
                    failed.append(f"- {network.name}, {name}, failed: {first_line(error)}")
                    continue
                seconds[name] = time.perf_counter() - start
        seconds.pop("warm-up", None)
        report = seconds.get(next(iter(jobs)))
        for name, taken in seconds.items():
            rows.append([network.name, name, f"{taken:.2f}", f"{report / taken:.1f}" if report else "–"])
    count = CLASSES * sizes.files
    page.add(f"### The course's files: {count:,} images, from a loaded model to PNG on the disk, one run each")
    page.add(table(["network", "way", "seconds", "times faster"], rows, text=2))
    if failed:
        page.add("\n".join(failed))


# --- training ---------------------------------------------------------------------------------------------------------


def training(page: Page, networks: list[Network], device: torch.device, sizes: Sizes, repeats: int) -> None:
    """One table: images a second of `training.train`, everything included that it does for its user."""
    from accelerate.state import AcceleratorState

    data = ImageArrays(torch.randint(256, (4096, 3, 28, 28), dtype=torch.uint8), torch.arange(4096) % CLASSES)
    rows = []
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps one precision a process
        jobs, batches = {}, {}
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as runs:
            for network in networks:
                recipe = digits_recipe(network.preset)
                batch = sizes.training_batch or recipe.train.batch_size
                config = replace(recipe.train, steps=10**6, batch_size=batch, precision=precision)
                run = train(
                    network.copy().train(),
                    data,
                    NoiseSchedule.linear(network.model.timesteps),
                    config,
                    Path(folder) / network.preset,
                    checkpoint_every=10**9,
                    device=device,
                )
                runs.callback(run.close)
                jobs[network.preset] = lambda r=run: deque(islice(r, sizes.training_chunk), maxlen=0)
                batches[network.preset] = batch
            try:
                seconds = in_turns(jobs, repeats, finish=finisher(device))
            except Exception as error:
                rows.append([f"failed: {first_line(error)}", precision, "–", "–", "–"])
                continue
            for preset, times in seconds.items():
                step = statistics.median(times) / sizes.training_chunk
                arithmetic = "float32" if precision == "no" else precision
                rate = f"{batches[preset] / step:,.0f}"
                rows.append([preset, arithmetic, batches[preset], rate, f"{1000 * step:.1f}"])
    page.add("### Training: `training.train`, with its label drop, averaged weights and metrics")
    page.add(table(["preset", "precision", "batch", "images a second", "ms a step"], rows))


# --- the η grid of faces ----------------------------------------------------------------------------------------------


def face_network(sizes: Sizes) -> nn.Module:
    """The U-Net of DDPM's 256×256 faces, which the course's resembles, with random weights."""
    levels = len(sizes.face_channels)
    attention = [level == levels - 2 for level in range(levels)]  # at 16×16
    torch.manual_seed(0)
    model = UNet(3, sizes.face_channels, blocks=2, attention=attention, patch=1, timesteps=1000)
    for parameter in model.parameters():
        if not parameter.any():  # layers that start at zero would hide what bfloat16 does
            nn.init.normal_(parameter, std=0.01)
    return model.eval()


def eta_grid(page: Page, device: torch.device, sizes: Sizes, repeats: int, compile: bool) -> None:
    """One table: seconds for four noises at five η each, as `eta_figure` draws them, and how near the faces are."""
    schedule = NoiseSchedule.linear(1000)
    model = face_network(sizes)
    x_T = seeded_noise((4, 3, sizes.face, sizes.face), range(4), device)
    faces: dict[str, Tensor] = {}

    def grid_of(name: str, network: nn.Module, dtype: torch.dtype) -> Job:
        denoise = Denoiser(network, schedule)

        def grid() -> None:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                rows = [
                    last(ddim(denoise, x_T, schedule, steps=sizes.face_steps, eta=eta, seeds=range(4))).x
                    for eta in ETAS
                ]
            faces[name] = to_uint8(torch.stack(rows))

        return grid

    plain = "plain: float32, eager"
    makers: dict[str, Callable[[], tuple[nn.Module, torch.dtype]]] = {
        plain: lambda: (copy.deepcopy(model).to(device), torch.float32),
        "bf16, channels-last": lambda: (
            prepare(copy.deepcopy(model), device),
            torch.bfloat16,
        ),
    }
    if compile:
        makers["bf16, channels-last, torch.compile"] = lambda: (
            torch.compile(prepare(copy.deepcopy(model), device)),
            torch.bfloat16,
        )
    jobs, ready, failed = {}, {}, {}
    for name, make in makers.items():
        start = time.perf_counter()
        try:
            job = grid_of(name, *make())
            job()
            finisher(device)()
        except Exception as error:  # one way that a version of torch refuses must not cost the others
            failed[name] = first_line(error)
            continue
        jobs[name], ready[name] = job, time.perf_counter() - start
    seconds = in_turns(jobs, repeats, warm_up=0, finish=finisher(device))
    rows = []
    for name, times in seconds.items():
        apart = "–"
        if plain in faces:
            apart = f"{rms(faces[name].float() - faces[plain].float()).item():.2f}"
        faster = f"{ratio(seconds[plain], times):.2f}" if plain in seconds else "–"
        rows.append([name, f"{statistics.median(times):.2f}", faster, apart, f"{ready[name]:.1f}"])
    rows += [[name, "failed", "–", "–", "–"] for name in failed]
    million = sum(p.numel() for p in model.parameters()) / 1e6
    page.add(
        f"### η grid: 4 noises × 5 η, {sizes.face}×{sizes.face} in colour, {sizes.face_steps} DDIM steps, "
        f"a U-Net of {million:.1f} M parameters (random weights)"
    )
    header = ["way", "seconds", "times faster", "apart, rms of 255 levels", "s for the first"]
    page.add(table(header, rows))
    if failed:
        page.add("\n".join(f"- {name} failed: {reason}" for name, reason in failed.items()))
    torch.compiler.reset()


# --- the whole --------------------------------------------------------------------------------------------------------


def networks_of(names: list[str], weights: str, tiny: bool) -> list[Network]:
    """The report's network, untrained (its speed does not hang on its weights), and the small one as it ships."""
    found = []
    for preset in names:
        recipe = digits_recipe("tiny" if tiny and preset == "small" else preset)
        if tiny:
            changes = {"n_feat": 16} if preset == "report" else {"channels": (16, 16)}
            recipe = replace(recipe, config={**recipe.config, **changes}, timesteps=20)
        model = recipe.build()
        if preset == "small" and not tiny:
            try:
                model, _ = read_model(weights)
            except UserError as error:
                print(f"untrained weights for the small U-Net: {error}", file=sys.stderr)
        name = f"ContextUnet, n_feat = {recipe.config['n_feat']}" if preset == "report" else "the small U-Net"
        million = sum(p.numel() for p in model.parameters()) / 1e6
        found.append(Network(f"{name} ({million:.1f} M)", preset, model.eval()))
    return found


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def main() -> int:
    parser = arguments(__doc__.splitlines()[0], repeats=7)
    parser.add_argument(
        "--batch", type=int, nargs="+", help="images a batch in the table of steps, 100 1000 by default"
    )
    parser.add_argument("--networks", nargs="+", choices=["report", "small"], default=["report", "small"])
    parser.add_argument("--weights", default="digits", help="the small network's: shipped weights or a file")
    parser.add_argument("--only", nargs="+", choices=["steps", "files", "training", "grid"], help="some of the tables")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out, which takes most of the time"
    )
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "gpu.py: torch finds no CUDA GPU; run it on a machine that has one, or benchmarks/samplers.py on a CPU",
            file=sys.stderr,
        )
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sizes, repeats = Sizes(), options.repeats
    if options.quick:
        sizes, repeats = Sizes(batches=(100,), chunk=5, files=5, training_chunk=5, face_steps=5), 2
    if options.tiny:
        tiny_faces = {"face": 32, "face_steps": 2, "face_channels": (16, 16)}
        sizes = Sizes(batches=(4,), chunk=2, files=1, training_chunk=2, training_batch=4, **tiny_faces)
        repeats = 2
    if options.batch:
        sizes = replace(sizes, batches=tuple(options.batch))
    wanted = options.only or ["steps", "files", "training", "grid"]

    page = Page(options.out)
    page.add("# On a GPU")
    page.add(f"{machine(device)}.")
    page.add(
        f"The report's loop runs in float32 with torch's defaults, which let cuDNN's convolutions use TF32. Medians of "
        f"{repeats} rounds of {sizes.chunk} steps, in each of which all take their turn; ratios are medians of the "
        f"ratios within a round."
    )
    networks = networks_of(options.networks, options.weights, options.tiny)
    if "steps" in wanted:
        for network in networks:
            for batch in sizes.batches:
                try:
                    steps_a_second(page, network, batch, device, sizes, repeats, not options.no_compile)
                except torch.OutOfMemoryError as error:
                    page.add(f"{network.name}, {batch} images a batch: {first_line(error)}")
    if "files" in wanted:
        files(page, networks, device, sizes)
    if "training" in wanted:
        training(page, networks, device, sizes, repeats)
    if "grid" in wanted:
        eta_grid(page, device, sizes, min(repeats, 3), not options.no_compile)
    page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
