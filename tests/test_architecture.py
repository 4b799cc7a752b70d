"""The house stands: imports point down and in no circle, rooms keep their doors shut, and nothing grows too large."""

import ast
import re
import sys
import tomllib
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dlcv_diffusion"

GROUND = {"errors", "schedule", "noise", "device", "files", "declared", "listing", "samplers", "guidance"}
GROUND |= {"inversion", "interpolation", "sampling", "denoiser", "recent", "reading", "tensors", "arguments"}
GROUND |= {"composition"}
PROBLEMS = ("digits", "faces", "emoji", "zero_shot", "personalisation")
FLOORS = [
    *(GROUND, {"images"}, {"models"}, {"training"}, {"evaluation"}, {"figures"}, {"widgets"}, {"export"}),
    *({"digits", "faces", "emoji"}, {"zero_shot", "personalisation"}, {"cli"}, {"__main__"}),
]
"""From the ground up. A room imports from its own floor and from those below."""

STAIRS = {("denoiser", "models")}
"""Imports inside functions that may point up: `load_denoiser` is the one door to every network."""

TOOLS = {
    "ipykernel": "runs the notebooks",
    "ipywidgets": "what anywidget's panels live in, and what the course's notebooks may use",
    "jupyterlab": "`make lab`",
    "nbclient": "tools/run_notebooks.py",
}
"""What is required and not imported, and why."""

MODULES = {"pillow": "PIL", "ipython": "IPython", "open_clip_torch": "open_clip"}
LONG: set[tuple[str, str]] = set()
"""Functions of more than 60 lines that wait to be split."""

MOST_RAISES = 40


@cache
def trees():
    return {path.relative_to(PACKAGE): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


def dotted(path):
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, tree, at_import):
    """What a module imports: (dotted name, its level of dots resolved; "" is the package itself, "!x" a foreign x)."""
    known, here = {dotted(other) for other in trees()}, path.parent.parts
    for node in walk(tree, at_import):
        if isinstance(node, ast.Import):
            names = [f"!{alias.name}" for alias in node.names]
        elif not node.level:
            names = [f"!{node.module}"]
        else:
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            base = ".".join(part for part in base if part)
            below = [f"{base}.{alias.name}".strip(".") for alias in node.names]
            names = [name if name in known else base for name in below]
        yield from (name.replace("!dlcv_diffusion.", "").replace("!dlcv_diffusion", "") for name in names)


def walk(node, at_import):
    """The import statements below a node: all, or those that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        elif not (at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from walk(child, at_import)


def graph(at_import):
    """{module: the modules of the package that it imports}. Whoever imports `a.b` imports `a` too."""
    found = {}
    for path, tree in trees().items():
        module = dotted(path)
        own = [name for name in imports(path, tree, at_import) if not name.startswith("!")]
        own += [name.rpartition(".")[0] for name in own]
        found[module] = {name for name in own if name and not f"{module}.".startswith(f"{name}.")}
    return found


def floor(room):
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def room_of(module):
    return module.split(".")[0]


# --- imports ----------------------------------------------------------------------------------------------------------


def test_every_module_has_a_floor():
    rooms = {room_of(dotted(path)) for path in trees()} - {""}
    assert {room for room in rooms if floor(room) < 0} == set()


@pytest.mark.parametrize("at_import", [True, False], ids=["at import", "inside functions too"])
def test_imports_point_down(at_import):
    up = {
        f"{module} imports {other}"
        for module, others in graph(at_import).items()
        for other in others
        if floor(room_of(module or "cli")) < floor(room_of(other))
        and (at_import or (room_of(module), room_of(other)) not in STAIRS)
    }
    assert not up


@pytest.mark.parametrize("at_import", [True, False], ids=["at import", "inside functions too"])
def test_imports_go_in_no_circle(at_import):
    edges = graph(at_import)
    if not at_import:
        edges = {m: {o for o in others if (room_of(m), room_of(o)) not in STAIRS} for m, others in edges.items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_never_import_each_other(problem):
    others = {room_of(other) for m, found in graph(False).items() if room_of(m) == problem for other in found}
    allowed = {problem, "emoji"} if problem in ("zero_shot", "personalisation") else {problem}
    assert others & set(PROBLEMS) <= allowed


def test_a_sampler_knows_no_model_no_data_and_no_progress_bar():
    path = Path("samplers.py")
    found = {name.split(".")[0] for name in imports(path, trees()[path], at_import=False)}
    foreign = {name[1:] for name in found if name.startswith("!")} - sys.stdlib_module_names
    assert foreign <= {"torch", "numpy"}
    assert {name for name in found if not name.startswith("!")} <= {"errors", "schedule", "noise"}


def test_whatever_is_required_is_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.match(r"[\w.-]+", line).group() for line in project["dependencies"]}
    imported = {name[1:].split(".")[0] for path, tree in trees().items() for name in imports(path, tree, False)}
    unused = {name for name in required if MODULES.get(name, name).replace("-", "_") not in imported}
    assert unused <= set(TOOLS), f"not imported: {sorted(unused - set(TOOLS))}"


# --- size -------------------------------------------------------------------------------------------------------------


def functions():
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_no_function_is_longer_than_60_lines():
    long = set()
    for path, node in functions():
        docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
        if node.end_lineno - node.lineno + 1 - docstring > 60:
            long.add((path.as_posix(), node.name))
    assert long <= LONG


def test_equations_are_not_hidden_by_raises():
    raises = Counter(str(path) for path, tree in trees().items() for n in ast.walk(tree) if isinstance(n, ast.Raise))
    total = raises.total()
    assert total <= MOST_RAISES, f"{total}, most of them in {raises.most_common(8)}"


def test_no_pickle_is_ever_loaded():
    calls = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loads = [call for call in calls if ast.unparse(call.func) == "torch.load"]
    assert loads and all("weights_only=True" in ast.unparse(call) for call in loads)
    foreign = {name for path, tree in trees().items() for name in imports(path, tree, False)}
    assert not foreign & {"!pickle", "!dill", "!joblib", "!shelve", "!marshal"}
