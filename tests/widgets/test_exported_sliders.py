"""What a reader without a kernel sees: the slider's still picture in the notebooks' HTML."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "explorer"), [("04_ddim_eta", "eta_explorer("), ("05_slerp_vs_lerp", "alpha_explorer(")]
)
def test_the_still_picture_is_in_the_html(root, tmp_path, name, explorer):
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
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--output-dir", str(tmp_path), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = "".join((tmp_path / f"{name}.html").read_text(encoding="utf-8").split())
    for data in outputs:
        assert "".join("".join(data["image/png"]).split()) in page
