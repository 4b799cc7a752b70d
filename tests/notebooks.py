"""What every notebook of the suite has: the anatomy that readers can rely on, and outputs fit to be committed.

That each cell runs, and that marked numbers are those committed, nbval checks; and the folded solutions run with it.
"""

import re
from pathlib import Path

import nbformat
import pytest
from run_notebooks import LIVE, lab_metadata, solutions

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST_CELL = 15  # lines; what is longer belongs in the package, with a test
LARGEST = 2.5e6  # bytes: two grids of a hundred textured digits are most of it


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def markdown(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def outputs(code):
    return [output for cell in code for output in cell.outputs]


def test_the_name_says_the_order(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)


def test_it_begins_with_what_the_reader_will_learn_and_needs(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert len(re.findall(r"^[-*] ", first.source, re.MULTILINE)) >= 3, "three things to be able to do afterwards"
    assert "minute" in first.source and "GPU" in first.source, "how long it takes"


@pytest.mark.parametrize("section", ["Try it yourself", "In your report", "References"])
def test_it_has_the_sections_of_every_notebook(markdown, section):
    assert re.search(rf"^##+ .*{section}", markdown, re.MULTILINE | re.IGNORECASE)


def test_it_has_equations_and_papers(markdown):
    assert "$$" in markdown
    assert re.search(r"arXiv[: ]\s*\[?\d{4}\.\d{4,5}", markdown), "papers by their arXiv numbers"


def test_it_says_the_task_and_which_symbols_differ(notebook):
    first = notebook.cells[0].source
    assert "**The task.**" in first and "Problem" in first and "**Symbols.**" in first


def test_the_algorithm_is_written_by_hand_and_compared_with_the_library(code):
    assert any(re.search(r"^def \w+", cell.source, re.MULTILINE) for cell in code)
    compared = [text for cell in code for text in printed(cell) if re.search(r"difference.*: *0\.0", text)]
    assert compared, "a printed difference from the library, near 0"


def printed(cell):
    return [output.text for output in cell.outputs if output.output_type == "stream"]


def test_its_solutions_are_folded_away_and_are_python(notebook, markdown):
    assert markdown.count("<details>") == markdown.count("</details>") >= 2
    assert len(solutions(notebook)) >= 2
    for source in solutions(notebook):
        compile(source, "<solution>", "exec")


def test_its_cells_are_short(code):
    long = [cell.source for cell in code if len(cell.source.splitlines()) > LONGEST_CELL]
    assert not long, f"{len(long)} cells are longer than {LONGEST_CELL} lines; the first:\n{long[0]}"


def test_it_was_run_from_top_to_bottom(code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"


def test_its_outputs_have_no_errors_warnings_or_dead_widgets(code):
    for output in outputs(code):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", f"warnings or progress in an output: {output.text[:200]}"
        assert LIVE not in output.get("data", {}), "run `make notebooks`: it leaves the still picture"
    assert any("image/png" in output.get("data", {}) for output in outputs(code)), "there is a picture"


def test_its_metadata_are_what_jupyterlab_writes(path, notebook):
    """Else git shows a change as soon as a notebook is opened; `make lab` keeps the version of Python."""

    def without_version(metadata):
        info = {key: value for key, value in metadata["language_info"].items() if key != "version"}
        return {**metadata, "language_info": info}

    assert without_version(notebook.metadata) == without_version(lab_metadata()), "run_notebooks.py --tidy"
    assert re.fullmatch(r"3\.\d+\.\d+", notebook.metadata.language_info.version)
    assert nbformat.writes(notebook) + "\n" == path.read_text(encoding="utf-8")


def test_a_number_is_held_by_nbval(code):
    marked = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert marked and all(cell.outputs for cell in marked)
    assert not any("NBVAL" in cell.source for cell in code), "tags, so that readers see no scaffolding"


def test_it_is_small(path):
    assert path.stat().st_size <= LARGEST
