"""JupyterLab in a headless Chromium, shared by the tests of sliders.

Screenshots go to `artefacts/browser/`. Without a browser these tests are skipped, or, with DLCV_REQUIRE_BROWSER=1 in
the environment, as `.ci/run` has it, they fail.
"""

import os
import shutil

import nbformat
import pytest
from lab_in_browser import HOW_TO_GET_ONE, LabNotebook, chromium, find_browser, running_lab
from run_notebooks import environment


@pytest.fixture(scope="module")
def screenshots(root):
    return root / "artefacts" / "browser"


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests of a file."""
    if find_browser() is None:
        (pytest.fail if os.environ.get("DLCV_REQUIRE_BROWSER") else pytest.skip)(HOW_TO_GET_ONE)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_notebook(browser, folder, tmp_path_factory, screenshots):
    """A function that opens a notebook of the test's `folder` by its name, in one JupyterLab for all."""
    scratch, figures = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("figures")
    with running_lab(folder, scratch, environment(figures, cpu=True)) as lab:
        yield lambda name, **options: LabNotebook(browser, lab, name, **options)
    screenshots.mkdir(parents=True, exist_ok=True)
    shutil.copy(lab.log, screenshots / "jupyterlab.log")


@pytest.fixture(scope="session")
def write_notebook():
    """A function that writes a notebook of a few cells."""

    def write(path, *sources):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources])
        notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
        nbformat.write(notebook, path)

    return write
