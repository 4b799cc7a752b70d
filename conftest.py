"""What holds for every test: no network; and for notebooks, run by nbval, no GPU and a scratch figures/.

The solutions that are folded away below "Try it yourself" are run too, after the last cell of their notebook.
"""

import os
from collections import defaultdict

import nbformat
import pytest
from run_notebooks import environment, solutions

os.environ.update({key: value for key, value in environment(".", cpu=False).items() if key != "DLCV_FIGURES"})
os.environ.setdefault("MPLBACKEND", "Agg")


def is_notebook_cell(item):
    return type(item).__name__ == "IPyNbCell"


def pytest_collection_modifyitems(items):
    cells = defaultdict(list)
    for item in items:
        if is_notebook_cell(item):
            cells[item.parent].append(item)
    for notebook, its_cells in cells.items():
        place = items.index(its_cells[-1]) + 1
        items[place:place] = [
            type(its_cells[0]).from_parent(
                notebook,
                name=f"Solution {number}",
                cell_num=len(its_cells) + number,
                cell=nbformat.v4.new_code_cell(source),
                options=defaultdict(bool),
            )
            for number, source in enumerate(solutions(notebook.nb))
        ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """A notebook's kernel starts while its first cell is set up, and inherits the environment of then."""
    if not is_notebook_cell(item):
        return (yield)
    figures = item.config.rootpath / ".pytest_cache" / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(figures, cpu=True).items():
            patch.setenv(name, value)
        return (yield)
