"""What a reader without a kernel sees: the slider's still picture, in pages made of notebooks, committed or new."""

import base64
import json
import re
import subprocess
import sys

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

LIVE = "application/vnd.jupyter.widget-view+json"
SMALL = """
import numpy as np
from dlcv_diffusion import Denoiser, NoiseSchedule
from dlcv_diffusion.widgets import alpha_explorer, eta_explorer, guidance_explorer, step_explorer
small = Denoiser(lambda x, t: 0.9 * x.roll(1, -1), NoiseSchedule.linear(100), shape=(1, 8, 8), name="small")
"""
EXPLORERS = [
    "eta_explorer(small, start=(0.0, 2, 0), still=[0, 1])",
    "alpha_explorer(small, steps=2, still=[0, 1])",
    "step_explorer(lambda t: np.full((3, 8, 8), t, np.uint8), range(5))",
    "guidance_explorer(lambda w: np.full((3, 8, 8), int(w), np.uint8))",
]


@pytest.fixture
def to_html(tmp_path):
    """A function from a notebook and options of nbconvert to the page."""

    def convert(path, *options):
        command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", tmp_path, *options, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return (tmp_path / f"{path.stem}.html").read_text(encoding="utf-8")

    return convert


@pytest.mark.parametrize(
    ("name", "explorer"), [("04_ddim_eta", "eta_explorer("), ("05_slerp_vs_lerp", "alpha_explorer(")]
)
def test_the_still_picture_of_a_committed_notebook_is_in_the_html(root, to_html, name, explorer):
    path = root / "notebooks" / f"{name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [
        output["data"]
        for cell in cells
        if cell["cell_type"] == "code" and explorer in "".join(cell["source"])
        for output in cell["outputs"]
        if "data" in output
    ]
    assert outputs, f"{path.name} has no slider, or was not run before it was committed"
    page = "".join(to_html(path).split())
    for data in outputs:
        assert "".join("".join(data["image/png"]).split()) in page


@pytest.mark.parametrize("stored", [True, False])
def test_a_notebook_that_is_run_for_a_page_has_its_stills_in_the_page(to_html, tmp_path, stored):
    path = tmp_path / "small.ipynb"
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in (SMALL, *EXPLORERS)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    page = to_html(path, "--execute", f"--ExecutePreprocessor.store_widget_state={stored}")
    stills = re.findall(r'<img[^>]* src="data:image/png;base64,([^"]+)"', page.replace("\n", ""))
    assert len(stills) == len(EXPLORERS)
    assert all(base64.b64decode(still).startswith(b"\x89PNG") for still in stills)
    assert LIVE not in page and "html-manager" not in page  # widgets come from a network


@pytest.mark.parametrize("person", [True, False])
def test_sliders_are_for_front_ends_that_a_cell_may_ask(person):
    """JupyterLab and VS Code allow it; nbclient, on which nbconvert and papermill stand, does not."""
    outputs = []

    def keep(message):
        if message["msg_type"] in ("display_data", "error"):
            outputs.append(set(message["content"]["data"]))

    manager, client = start_new_kernel()
    try:
        client.execute_interactive(SMALL, timeout=120)
        client.execute_interactive(EXPLORERS[2], allow_stdin=person, output_hook=keep, timeout=120)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    live = [{"text/html", "text/plain"}, {LIVE, "text/plain"}] if person else []
    assert outputs == [*live, {"image/png", "text/plain"}]
