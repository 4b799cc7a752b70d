"""The faces' training step, of this checkout and of another commit, and the attention in it.

    python benchmarks/training.py --against COMMIT --out benchmarks/results/training.md

A contender is a process of its own that trains the recipe "small" on random pictures, with all that `train_faces` does
for its user, and waits for its turn after every few steps. Attention is timed in this process: torch's fused kernel
against two matrix products, forwards alone and with the way back, of the sizes that our networks have and larger ones.
"""

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from side_by_side import Job, Page, arguments, in_turns, machine, ratio, table
from torch import Tensor

from dlcv_diffusion.device import has_fast_bf16

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"faces, 8×8": (64, 4, 64, 24), "faces, 4×4": (64, 4, 16, 28), "digits": (64, 4, 49, 24)}
SIZES |= {"256 places": (16, 4, 256, 24), "1,024 places": (4, 4, 1024, 24), "4,096 places": (1, 4, 4096, 24)}

# both today's rooms and those of older commits
WORKER = """
import itertools, sys, tempfile, torch
folder, threads, batch, chunk, precision, compiled = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5], sys.argv[6]
torch.set_num_threads(threads)
try:
    from dlcv_diffusion.faces.training import train_faces
    from dlcv_diffusion.images.arrays import ImageArrays
except ImportError:
    from dlcv_diffusion.training.faces import train_faces
    from dlcv_diffusion.data.arrays import ImageArrays
data = ImageArrays(torch.randint(256, (512, 1, 64, 64), dtype=torch.uint8), torch.zeros(512, dtype=torch.int64))
changes = {"compile": True} if compiled == "compiled" else {}
never = {"checkpoint_every": 10**9, "preview_every": 10**9}
states = train_faces(data, "small", folder, steps=10**6, batch_size=batch, precision=precision, device="cpu",
                     **never, **changes)
next(states)
print("ready", flush=True)
for _ in sys.stdin:
    for _ in itertools.islice(states, chunk):
        pass
    print("done", flush=True)
"""


class Worker:
    """A training run in a process of its own, on the package below `root`; called, it takes `chunk` steps."""

    def __init__(self, root: Path, folder: str, threads: int, batch: int, chunk: int, precision: str, compiled: bool):
        words = [folder, threads, batch, chunk, precision, "compiled" if compiled else "plain"]
        command = [sys.executable, "-c", WORKER, *map(str, words)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, **pipes)
        self.wait("ready")

    def wait(self, word: str) -> None:
        if (said := self.process.stdout.readline().strip()) != word:
            raise RuntimeError(f"a training run ended before it was {word}: {said}")

    def __call__(self) -> None:
        self.process.stdin.write("go\n")
        self.wait("done")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def checkout(commit: str, folder: str) -> Path:
    """The files of another commit, in a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    path = Path(folder) / "package.tar"
    path.write_bytes(archive)
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    return Path(folder)


def training(
    page: Page, against: str | None, compiled: bool, threads: int, batch: int, chunk: int, repeats: int
) -> None:
    """One table: images a second of the recipe "small" of the faces."""
    with ExitStack() as stack:
        jobs: dict[str, Job] = {}
        roots = {"here": ROOT}
        if against:
            roots = {against: checkout(against, stack.enter_context(tempfile.TemporaryDirectory())), **roots}
        for name, root in roots.items():
            for precision in ("no", "bf16"):
                for kind in (False, True) if compiled and name == "here" else (False,):
                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                    worker = Worker(root, folder, threads, batch, chunk, precision, kind)
                    stack.callback(worker.close)
                    jobs[f"{name}, {'float32' if precision == 'no' else precision}{', compiled' * kind}"] = worker
        seconds = in_turns(jobs, repeats)
    first = next(iter(seconds.values()))
    rows = [
        [name, f"{chunk * batch / statistics.median(times):.0f}", f"{1 / ratio(times, first):.2f}"]
        for name, times in seconds.items()
    ]
    page.add(f"## A training step of the faces: {batch} images of 64×64, {repeats} rounds of {chunk} steps")
    page.add(table(["where, precision", "images a second", "times the first"], rows))


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What `models.unet.attention` computes in bfloat16 where there are few places."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v


def two_ways(size: Sequence[int], dtype: torch.dtype, back: bool) -> dict[str, Job]:
    """Attention on q, k, v as the U-Net makes them, views of one convolution's output, channels last."""
    batch, heads, places, width = size
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, places, 3 * heads * width, generator=generator).to(dtype).requires_grad_(back)

    def job(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Job:
        def work() -> None:
            y = attend(*qkv.view(batch, places, 3, heads, width).permute(2, 0, 3, 1, 4))
            if back:
                y.transpose(-1, -2).sum().backward()
                qkv.grad = None

        return work

    return {"fused": job(F.scaled_dot_product_attention), "products": job(products)}


def attentions(page: Page, sizes: dict[str, Sequence[int]], repeats: int) -> None:
    """One table: milliseconds of attention in both ways, and how much quicker two matrix products are."""
    rows = []
    for name, size in sizes.items():
        for dtype in (torch.float32, torch.bfloat16):
            cells = []
            for back in (False, True):
                seconds = in_turns(two_ways(size, dtype, back), repeats)
                cells += [f"{1000 * statistics.median(times):.2f}" for times in seconds.values()]
                cells.append(f"{ratio(seconds['fused'], seconds['products']):.2f}")
            rows.append([name, "×".join(map(str, size)), str(dtype).removeprefix("torch."), *cells])
    page.add("## Attention, ms: torch's fused kernel and two matrix products, and how many times quicker these are")
    header = ["of", "batch×heads×places×width", "dtype", "fused", "products", "times", "fused, both ways"]
    page.add(table([*header, "products, both ways", "times"], rows, text=3))


def main() -> int:
    parser = arguments(__doc__.splitlines()[0], repeats=9)
    parser.add_argument("--against", help="a commit to compare with, such as HEAD~1")
    parser.add_argument("--compile", action="store_true", help="compiled contenders too; takes minutes to begin")
    parser.add_argument("--batch", type=int, default=64, help="images a step, 64 by default, as in the recipe")
    parser.add_argument("--chunk", type=int, default=4, help="steps a round, 4 by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    page = Page(options.out)
    page.add("# Training")
    page.add(f"{machine()}; quick at bfloat16: {'yes' if has_fast_bf16('cpu') else 'no'}.")
    batch, chunk, repeats = (2, 1, 1) if options.quick else (options.batch, options.chunk, options.repeats)
    sizes = dict(list(SIZES.items())[:1]) if options.quick else SIZES
    attentions(page, sizes, repeats)
    training(page, options.against, options.compile, torch.get_num_threads(), batch, chunk, repeats)
    page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
