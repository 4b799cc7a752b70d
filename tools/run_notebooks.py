"""Execute the notebooks from top to bottom, offline, and say how long each took.

    python tools/run_notebooks.py                        # all; executed copies go to runs/notebooks/
    python tools/run_notebooks.py notebooks/01_*.ipynb   # some
    python tools/run_notebooks.py --in-place             # on the CPU, outputs kept in place, for a commit
    python tools/run_notebooks.py --tidy                 # nothing is run: metadata as a commit has them

The notebooks find the figures' folder in $DLCV_FIGURES. If one fails, the others still run; the exit code is
1.
"""

import argparse
import base64
import io
import os
import platform
import re
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import nbformat
import numpy as np
import oxipng
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dlcv_diffusion.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "http://127.0.0.1:9"  # nobody answers there: what tries to download fails at once, and is seen
LIVE = "application/vnd.jupyter.widget-view+json"
UNSEEN = 20  # levels of 255 that a palette may be off in the worst place of a picture


def environment(figures: Path, *, cpu: bool) -> dict[str, str]:
    """The environment of a notebook's kernel: no network, the figures' folder, and with `cpu` no GPU."""
    proxies = {name: NOWHERE for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    local = {"no_proxy": "localhost,127.0.0.1", "NO_PROXY": "localhost,127.0.0.1"}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    device = {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    return {**proxies, **local, **offline, **device, "DLCV_FIGURES": str(Path(figures).resolve())}


def solutions(notebook: Mapping) -> list[str]:
    """The Python folded away below "Try it yourself", each block as it would be pasted into a cell."""
    markdown = "\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    folded = re.findall(r"<details>.*?</details>", markdown, re.DOTALL)
    fence = re.compile(r"^ *```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    blocks = [block for text in folded for block in fence.findall(text)]
    return [textwrap.dedent(block).strip() for block in blocks]


def lab_metadata() -> dict[str, dict]:
    """What JupyterLab writes into a notebook of this Python when it is opened and saved."""
    return {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {
            "codemirror_mode": {"name": "ipython", "version": 3},
            "file_extension": ".py",
            "mimetype": "text/x-python",
            "name": "python",
            "nbconvert_exporter": "python",
            "pygments_lexer": "ipython3",
            "version": platform.python_version(),
        },
    }


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Only what a reader needs is kept: no times, no state of widgets; of the kernel what JupyterLab would write.

    A widget is dead once its kernel is gone, and JupyterLab would show an error in its place. So the live
    view is taken out, and the still picture in the same output is what a reader sees until the cell is run.
    """
    notebook.metadata = nbformat.from_dict(lab_metadata())
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if LIVE in output.get("data", {}) and len(output.data) > 1:
                del output.data[LIVE]
    return notebook


def slim(png: bytes) -> bytes:
    """The PNG with levels rounded to multiples of five, none off by more than two of 255, and packed by oxipng.

    Noise of a level or two is what costs most, and nobody sees it. Black, white, text and dots per inch stay. Opaque
    pictures in which 256 colours come within half a level of this (root mean square; `UNSEEN` at most) get a palette.
    """
    with Image.open(io.BytesIO(png)) as image:
        image.load()
    if image.mode in ("L", "RGB", "RGBA"):
        levels = np.asarray(image).astype(np.uint16)
        info, buffer = PngInfo(), io.BytesIO()
        for key, value in image.text.items():
            info.add_itxt(key, value)
        dpi = {"dpi": image.info["dpi"]} if "dpi" in image.info else {}
        fewer = Image.fromarray(((levels + 2) // 5 * 5).astype(np.uint8))
        if image.mode == "RGB" or (image.mode == "RGBA" and levels[..., 3].min() == 255):
            fewer = fewer.convert("RGB")
            numbered = fewer.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
            off = np.asarray(numbered.convert("RGB")).astype(float) - np.asarray(fewer)
            fewer = numbered if np.abs(off).max() <= UNSEEN and np.square(off).mean() < 0.25 else fewer
        fewer.save(buffer, "PNG", pnginfo=info, **dpi)
        rounded = buffer.getvalue()
    else:
        rounded = png  # of few colours, numbered
    return min((oxipng.optimize_from_memory(each, level=2) for each in (png, rounded)), key=len)


def slimmed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Its pictures, see `slim`."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if coded := output.get("data", {}).get("image/png"):
            output.data["image/png"] = base64.b64encode(slim(base64.b64decode(coded))).decode()
    return notebook


def run(path: Path, kernel_environment: Mapping[str, str], timeout: int) -> nbformat.NotebookNode:
    """The executed notebook. Raises nbclient's errors: a cell failed, or took longer than `timeout` seconds."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # warnings of the kernel's own are not the reader's
    )
    client.execute(env={**os.environ, **kernel_environment})
    return tidy(notebook)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    with atomic_write(path) as temporary:
        nbformat.write(notebook, temporary)


def what_failed(error: Exception) -> str:
    """One or two lines: the exception, and the line of the cell that raised it, instead of nbclient's pages."""
    if isinstance(error, CellExecutionError):
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
        arrow = re.findall(r"^-+> *\d+ (.*)$", traceback, re.M)
        line = f"\n    in the cell's line: {arrow[0].strip()}" if arrow else ""
        return f"{error.ename}: {error.evalue}{line}"
    if isinstance(error, CellTimeoutError):
        return "a cell took longer than --timeout allows"
    return str(error) or type(error).__name__


def main(arguments: list[str] | None = None) -> int:
    """Run them and print the table; 0 if all ran, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    add("--in-place", action="store_true", help="keep the outputs in the notebooks; runs on the CPU")
    add("--tidy", action="store_true", help="run nothing: put the metadata in order, as a commit has them")
    add("--cpu", action="store_true", help="hide the GPUs")
    add("--out", type=Path, default=ROOT / "runs" / "notebooks", help="folder of the executed copies")
    add("--figures", type=Path, default=ROOT / "figures", help="folder of the figures")
    add("--timeout", type=int, default=1800, help="seconds for one cell")
    options = parser.parse_args(arguments)
    notebooks = options.notebooks or sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        print("there are no notebooks to run")
        return 1
    if options.tidy:
        for path in notebooks:
            write(tidy(nbformat.read(path, as_version=4)), path)
        return 0
    options.figures.mkdir(parents=True, exist_ok=True)
    began = time.time()
    kernel_environment = environment(options.figures, cpu=options.cpu or options.in_place)

    results = []
    for path in notebooks:
        print(f"{path.name} …", flush=True)
        start = time.perf_counter()
        try:
            executed, problem = run(path, kernel_environment, options.timeout), ""
            executed = slimmed(executed) if options.in_place else executed
            target = path if options.in_place else options.out / path.name
            write(executed, target)
        except (CellExecutionError, CellTimeoutError, DeadKernelError, OSError, ValueError) as error:
            problem = what_failed(error)
        results.append((path.name, time.perf_counter() - start, problem))

    written = sorted(file for file in options.figures.glob("*.png") if file.stat().st_mtime >= began - 1)
    for file in written:  # in a checkout they are those of the repository
        with atomic_write(file) as temporary:
            temporary.write_bytes(slim(file.read_bytes()))
    report(results, written, options.figures, notebooks[0].parent if options.in_place else options.out)
    return int(any(problem for *_, problem in results))


def report(results: list[tuple[str, float, str]], written: list[Path], figures: Path, copies: Path) -> None:
    """The table at the end: each notebook's time, and where the figures and the executed notebooks are."""
    width = max(len(name) for name, *_ in results)
    total = sum(seconds for _, seconds, _ in results)
    print(f"\n{'notebook':{width}}  min:s")
    for name, seconds, problem in [*results, ("all", total, "")]:
        outcome = "" if name == "all" else "FAILED" if problem else "ok"
        print(f"{name:{width}}  {int(seconds // 60):2d}:{int(seconds % 60):02d}  {outcome}".rstrip())
    for name, _, problem in results:
        if problem:
            print(f"\n{name} failed: {problem}")
    print(
        f"\n{len(written)} figure{'s'[: len(written) != 1]} in {shown(figures)}/"
        + "".join(f"\n  {file.name}" for file in written)
    )
    print(f"executed notebooks in {shown(copies)}/")


def shown(folder: Path) -> Path:
    """A folder as the reader would type it from where they are."""
    folder = folder.resolve()
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


if __name__ == "__main__":
    sys.exit(main())
