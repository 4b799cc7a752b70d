"""Milliseconds a slider move, in JupyterLab in a real browser: from the key to the picture on the screen.

    python benchmarks/sliders.py --out benchmarks/results/sliders.md

The shipped face model, DDIM in 20 steps, on the CPU. A round moves the slider by one key to a position that was not
there before, and waits for the finished picture; then all rounds are gone through backwards, over positions seen
before. A time begins with the browser's keydown and ends with the frame after a picture has been decoded. A picture is
of the new position if it is nearer (root mean square of pixels) to what is finished there than to what was before.

A second table is of `zero_shot_explorer` without a browser: a time begins with a control's new value in the kernel and
ends when the HTML of the answer is there; the wait for the next key, after words and templates, is in it.
"""

import asyncio
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from PIL import Image
from side_by_side import Page, arguments, machine, table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

NEW = "a picture of the new position"
AIMS = {NEW: 150, "finished picture": 500, "seen before": 100}  # milliseconds, two CPU cores
PHOTOGRAPH = "a photograph of 12 megapixels"
ZERO_SHOT_AIMS = {"a word": 200, "a template": 200, "a picture": 200, "a temperature": 200, PHOTOGRAPH: 1000}
STRIDES = {"small": 20, "large": 4}
"""Positions from 0 to 1."""
EXPLORERS = {
    "eta_explorer, η": (
        "noise added, η",
        "eta_explorer(denoise, etas=[i / {n} for i in range({n} + 1)], seeds=range({seeds}), still=[0])",
    ),
    "alpha_explorer, α, slerp and lerp": (
        "α",
        "alpha_explorer(denoise, alphas=[i / {n} for i in range({n} + 1)], start=(0.0, 'both', 0, 19), still=[0])",
    ),
}
SETUP = """
from dlcv_diffusion import load_denoiser
from dlcv_diffusion.widgets import alpha_explorer, eta_explorer

denoise = load_denoiser("faces", device="cpu")
"""


def write_notebook(path: Path, explorer: str) -> None:
    """A notebook of two cells: the model, and the explorer."""
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in (SETUP, explorer)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def timed_moves(notebook, label: str, repeats: int, seed: str) -> tuple[dict[str, list[float]], list[bool]]:
    """Milliseconds of each move, forwards over new positions and backwards over those seen before; whether the first
    picture after a move was of the new position. At the slider's end another seed begins, which is not timed.
    """
    notebook.watch()
    handle, other = notebook.handle(label), notebook.handle(seed)
    times: dict[str, list[float]] = {name: [] for name in AIMS}
    first_is_new, before = [], None
    while len(times["finished picture"]) < repeats:
        moved = 0
        while handle.get_attribute("max") != handle.input_value() and len(times["finished picture"]) < repeats:
            pressed, pictures = move(notebook, handle, "ArrowRight")
            if before is not None:
                near = [distance(each, pictures[-1]) < distance(each, before) for each in pictures]
                times[NEW].append(pictures[near.index(True)]["at"] - pressed)
                times["finished picture"].append(pictures[-1]["at"] - pressed)
                first_is_new.append(near[0])
            before, moved = pictures[-1], moved + 1
        for _ in range(moved):
            pressed, pictures = move(notebook, handle, "ArrowLeft")
            times["seen before"].append(pictures[-1]["at"] - pressed)
        _, pictures = move(notebook, other, "ArrowRight")
        before = pictures[-1]
    return times, first_is_new


def move(notebook, handle, key: str) -> tuple[float, list[dict[str, Any]]]:
    """When the key was pressed, and the pictures that came, up to the finished one."""
    notebook.forget()
    handle.press(key)
    notebook.wait_until_finished()
    notebook.page.wait_for_timeout(150)  # what is prepared for the next move
    events = notebook.events()
    pressed = next(event["at"] for event in events if event["kind"] == "key")
    return pressed, [event for event in events if event["kind"] == "picture"]


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float(np.sqrt(np.square(np.subtract(a["what"]["grey"], b["what"]["grey"], dtype=float)).mean()))


def zero_shot_moves(repeats: int) -> dict[str, list[float]]:
    """Milliseconds until `zero_shot_explorer` has answered another word, template, picture, temperature or upload.

    It answers in an event loop, as in a kernel. No picture comes twice, so there are as many moves as pictures at most.
    """
    from dlcv_diffusion.zero_shot import explorer as module
    from dlcv_diffusion.zero_shot import load_clip, load_pictures, zero_shot_explorer

    clip, count = load_clip("emoji", device="cpu"), min(repeats + 1, module.MOST_PICTURES)
    pictures, photograph = load_pictures("emoji").subset(range(count)), a_photograph()
    times: dict[str, list[float]] = {name: [] for name in ZERO_SHOT_AIMS}

    async def measure() -> None:
        explorer = zero_shot_explorer(clip, pictures, "fox, owl", template="{}")
        explorer.panel  # noqa: B018 - built when it is first asked for
        for number in range(1, count):
            moves = {
                "a word": {"words": f"fox, owl, {number}"},
                "a template": {"template": f"{{}} {number}"},
                "a picture": {"picture": number},
                "a temperature": {"temperature": 0.01 * number},
                PHOTOGRAPH: None,
            }
            for name, values in moves.items():
                begun = time.perf_counter()
                if values is None:
                    explorer._asked({"do": "upload", "name": "photograph.jpg"}, [memoryview(photograph)])
                else:
                    explorer.move(**values)
                await asyncio.sleep(0)  # here the loop begins the answer
                await explorer._task
                times[name].append(1000 * (time.perf_counter() - begun))

    asyncio.run(measure())
    return times


def a_photograph(width: int = 4000, height: int = 3000) -> bytes:
    """A JPEG of smooth shapes, about as hard to open as what a camera makes."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def zero_shot_part(repeats: int) -> str:
    """What the page says of `zero_shot_explorer`."""
    from dlcv_diffusion.zero_shot.explorer import TYPING

    times = zero_shot_moves(repeats)
    header = ["explorer", "after", "median ms", "95 % ms", "most ms", "aim ms"]
    rows = rows_of("zero_shot_explorer", times, ZERO_SHOT_AIMS)
    moves = f"{len(times['a word'])} moves each, in one process without a browser, the shipped CLIP"
    waits = f"words and templates wait {1000 * TYPING:.0f} ms for the next key, which is in their times"
    return f"## `zero_shot_explorer`\n\n{moves}; {waits}:\n\n{table(header, rows, text=2)}"


def rows_of(name: str, times: dict[str, list[float]], aims: dict[str, int]) -> list[list[str]]:
    rows = []
    for what, values in times.items():
        median, most = statistics.median(values), percentile_95(values)
        aim = f"{aims[what]} {'✓' if most <= aims[what] else '✗'}"
        rows.append([name, what, f"{median:.0f}", f"{most:.0f}", f"{max(values):.0f}", aim])
    return rows


def percentile_95(values: Sequence[float]) -> float:
    """Between the nearest two values.

    >>> percentile_95(range(101))
    95.0
    """
    if len(values) == 1:
        return float(values[0])
    return float(statistics.quantiles(values, n=20, method="inclusive")[-1])


def browser_version(executable: str) -> str:
    said = subprocess.run([executable, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"[\w ]+ [\d.]+", said)
    return found[0].strip() if found else "a browser"


def main() -> int:
    parser = arguments(__doc__.splitlines()[0], repeats=30)
    options = parser.parse_args()
    try:
        from lab_in_browser import HOW_TO_GET_ONE, LabNotebook, chromium, find_browser, running_lab
    except ImportError:
        print("Playwright is missing; install it with: pip install -e '.[test]'")
        return 2
    executable = find_browser()
    if executable is None:
        print(HOW_TO_GET_ONE)
        return 2
    repeats = 2 if options.quick else options.repeats
    threads = {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}
    if options.threads:
        torch.set_num_threads(options.threads)  # said in the facts; the kernel takes it from its environment

    page = Page(options.out)
    page.add(f"# Sliders in JupyterLab\n\n{machine()}; {browser_version(executable)}; load {os.getloadavg()[0]:.1f}")
    rows: list[list[str]] = []
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        notebooks, scratch = Path(folder) / "notebooks", Path(folder) / "lab"
        notebooks.mkdir()
        with running_lab(notebooks, scratch, threads) as lab, chromium() as browser:
            for number, (name, n) in enumerate((name, n) for name in EXPLORERS for n in STRIDES.values()):
                label, explorer = EXPLORERS[name]
                write_notebook(notebooks / f"{number}.ipynb", explorer.format(n=n, seeds=100))
                with LabNotebook(browser, lab, f"{number}.ipynb") as notebook:
                    notebook.run_all()
                    if errors := notebook.errors():
                        print("\n".join(errors))
                        return 1
                    seed = "seed of the noise" if number < len(STRIDES) else "seed at α = 0"
                    times, new = timed_moves(notebook, label, repeats, seed)
                    named = f"{name}, by {1 / n:g}"
                    rows += rows_of(named, times, AIMS)
                    said.append(
                        f"{named}: in {sum(new)} of {len(new)} moves the first picture was of the new position."
                    )
    header = ["explorer", "time to", "median ms", "95 % ms", "most ms", "aim ms"]
    page.add(f"{repeats} moves each, DDIM in 20 steps:\n\n{table(header, rows, text=2)}")
    page.add("\n".join(f"- {line}" for line in said))
    page.add(zero_shot_part(repeats))
    page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
