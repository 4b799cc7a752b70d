"""The tool behind `make run` and `make notebooks`, on small notebooks."""

import io
import json
import os

import nbformat
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from run_notebooks import LIVE, UNSEEN, environment, lab_metadata, main, slim, solutions


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
from PIL import Image
from dlcv_diffusion.figures import figures_folder
Image.new("L", (4, 4)).save(figures_folder() / "a.png")
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


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_are_slimmed_by_what_nobody_sees(mode):
    """Soft edges and noise of a level or two: what photographs and samples are made of."""
    rng, channels = np.random.default_rng(0), len(mode)
    pixels = np.linspace(0, 255, 160)[None, :, None] + rng.normal(0, 1.5, (120, 160, channels))
    pixels = pixels.clip(0, 255).astype(np.uint8)
    pixels[:10], pixels[10:20] = 0, 255
    buffer, info = io.BytesIO(), PngInfo()
    info.add_itxt("Description", "seed = 3, η = 0")
    Image.fromarray(pixels.squeeze()).save(buffer, "PNG", optimize=True, pnginfo=info, dpi=(300, 300))
    found = slim(buffer.getvalue())
    opened = Image.open(io.BytesIO(found))
    after = np.asarray(opened).reshape(pixels.shape)
    assert opened.mode == mode and opened.text == {"Description": "seed = 3, η = 0"}
    assert opened.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert np.abs(after.astype(int) - pixels).max() == 2 and (after[:20] == pixels[:20]).all()
    assert len(found) < 0.7 * len(buffer.getvalue()) and slim(found) == found


def test_a_picture_of_few_numbered_colours_keeps_each_of_them():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).quantize(16)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = slim(buffer.getvalue())
    before, after = (np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in (buffer.getvalue(), found))
    assert (before == after).all() and len(found) <= len(buffer.getvalue())


def test_a_picture_of_some_hundred_colours_does_with_256_numbered_ones():
    shades = np.array([[5 * red, 5 * green, 200] for red in range(18) for green in range(18)], np.uint8)
    rows = np.concatenate([np.repeat(np.arange(200), 20), np.arange(200, 324)])  # twenty pixels of each, or one
    pixels = shades[np.random.default_rng(0).permutation(np.resize(rows, 72 * 65)).reshape(72, 65)]
    pixels[:4], pixels[4:8] = 0, 255
    found = {}
    for mode in ("RGB", "RGBA"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
        found[mode] = slim(buffer.getvalue())
    opened = Image.open(io.BytesIO(found["RGBA"]))
    off = np.asarray(opened.convert("RGB")).astype(int) - pixels
    assert opened.mode == "P" and found["RGB"] == found["RGBA"]
    assert 0 < np.abs(off).max() <= UNSEEN and np.square(off).mean() < 0.25 and (off[:8] == 0).all()
