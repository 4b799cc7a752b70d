"""The tool behind `make run` and `make notebooks`, on small notebooks."""

import io
import json
import os

import nbformat
import numpy as np
import pytest
from PIL import Image
from run_notebooks import LIVE, environment, lab_metadata, main, slim, solutions

from dlcv_diffusion.figures import png_bytes


@pytest.fixture
def write(tmp_path):
    def write(name, *sources):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / name)
        return tmp_path / name

    return write


def run(tmp_path, *arguments):
    return main([*map(str, arguments), "--out", str(tmp_path / "out"), "--figures", str(tmp_path / "figures")])


FIGURE = """
from dlcv_diffusion.figures import figures_folder
figures_folder().joinpath("a.png").write_bytes(b"")
"""


def test_copies_are_executed_and_the_table_says_how_long_and_where(write, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write("01_a.ipynb", FIGURE, "1 + 1")
    before = path.read_bytes()
    assert run(tmp_path, path) == 0
    assert path.read_bytes() == before
    copy = nbformat.read(tmp_path / "out" / "01_a.ipynb", as_version=4)
    assert copy.cells[1].outputs[0].data["text/plain"] == "2"
    said = capsys.readouterr().out
    assert "01_a.ipynb   0:" in said and "1 figure in figures/\n  a.png" in said and "in out/" in said


def test_one_that_fails_does_not_stop_the_others(write, tmp_path, capsys):
    failing = write("01_a.ipynb", "x = 1\nx.missing")
    working = write("02_b.ipynb", "1 + 1")
    assert run(tmp_path, failing, working) == 1
    said = capsys.readouterr().out
    assert "AttributeError: 'int' object has no attribute 'missing'" in said
    assert "in the cell's line: x.missing" in said
    assert not (tmp_path / "out" / "01_a.ipynb").exists() and (tmp_path / "out" / "02_b.ipynb").exists()


LIVE_WIDGET = """
import numpy as np
from dlcv_diffusion.widgets import step_explorer
step_explorer(lambda t: np.full((3, 8, 8), t, np.uint8), range(5))
"""


def test_in_place_leaves_the_still_picture_and_nothing_that_changes(write, tmp_path):
    path = write("01_a.ipynb", LIVE_WIDGET)
    assert run(tmp_path, path, "--in-place") == 0
    once = json.loads(path.read_text())
    (output,) = once["cells"][0]["outputs"]
    assert "image/png" in output["data"] and LIVE not in output["data"]
    assert once["metadata"] == lab_metadata()  # and nothing of widgets
    assert run(tmp_path, path, "--in-place") == 0
    assert json.loads(path.read_text()) == once


def test_tidy_runs_nothing_and_leaves_what_is_tidy(write, tmp_path):
    path = write("01_a.ipynb", "1 / 0")
    assert main(["--tidy", str(path)]) == 0
    once = path.read_bytes()
    notebook = json.loads(once)
    assert notebook["metadata"] == lab_metadata() and notebook["cells"][0]["outputs"] == []
    assert main(["--tidy", str(path)]) == 0 and path.read_bytes() == once


def test_a_download_fails_at_once(write, tmp_path, capsys):
    path = write("01_a.ipynb", 'import urllib.request\nurllib.request.urlopen("http://example.org")')
    assert run(tmp_path, path) == 1
    assert "refused" in capsys.readouterr().out


def test_the_cpu_is_all_that_is_seen_if_so_wished(tmp_path):
    assert environment(tmp_path, cpu=True)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in environment(tmp_path, cpu=False)
    assert os.path.isabs(environment(tmp_path, cpu=True)["DLCV_FIGURES"])


def test_solutions_are_the_python_below_details():
    text = """
What is 1 + 1?
<details><summary>Solution</summary>

```python
x = 1 + 1
if x:
    print(x)
```

and in a list:

  ```python
  y = 3
  ```
</details>

```python
not_a_solution
```
"""
    notebook = {"cells": [{"cell_type": "markdown", "source": text}, {"cell_type": "code", "source": "<details>"}]}
    assert solutions(notebook) == ["x = 1 + 1\nif x:\n    print(x)", "y = 3"]


@pytest.mark.parametrize(("picture", "fewer"), [("drawing", True), ("noise", False)])
def test_pictures_are_slimmed_only_where_nobody_sees_it(picture, fewer):
    """A drawing of few colours with soft edges, and a picture in which each pixel has its own colour."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (120, 160, 3), np.uint8)
    if picture == "drawing":
        ramp = np.linspace(0, 1, 160)[None, :, None] ** 8
        pixels = (np.array([250, 80, 40]) * ramp + 255 * (1 - ramp)).astype(np.uint8).repeat(120, 0)
        pixels[30:60, 20:80] = rng.integers(0, 256, (1, 1, 3))
    png = png_bytes(pixels, {"Description": "seed = 3"})
    found = slim(png)
    opened = Image.open(io.BytesIO(found))
    assert opened.text == {"Description": "seed = 3"} and (found != png) == fewer
    off = np.abs(np.asarray(opened.convert("RGB"), float) - pixels).max(-1)
    assert np.quantile(off, 0.999) <= 6 and (not fewer or len(found) < len(png))


def test_a_small_coloured_part_on_white_is_not_sacrificed():
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[100:160, 100:160] = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    png = png_bytes(pixels)
    assert slim(png) == png
