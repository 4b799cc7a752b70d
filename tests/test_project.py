"""The files around the package say the same as each other, and nothing that is true on one machine only."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import dlcv_diffusion
from dlcv_diffusion.figures import read_facts

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = [path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()]


def tracked() -> list[Path]:
    """Files under version control; in an unpacked archive, all that are not a tool's."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if git.returncode == 0 and git.stdout:
        return [path for name in git.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not {".venv", "runs"} & set(path.parts)]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", line).group().lower().replace("_", "-") for line in requirements}


# --- one list of requirements ------------------------------------------------------------------------------


def test_conda_gets_python_and_pip_and_the_rest_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["-e .[test]"]}
    assert environment["channels"][0] == "conda-forge"


def test_requirements_have_lower_bounds_and_no_pins():
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in [*PROJECT["dependencies"], *extras]:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+|dlcv-diffusion\[\w+\]", line), line


def test_whatever_the_package_imports_is_required():
    modules = {"PIL": "pillow", "open_clip": "open-clip-torch", "skimage": "scikit-image", "sklearn": "scikit-learn"}
    required = names(PROJECT["dependencies"])
    allowed = {"data": names(PROJECT["optional-dependencies"]["data"])}
    for path in (ROOT / "dlcv_diffusion").rglob("*.py"):
        room = path.relative_to(ROOT / "dlcv_diffusion").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = [node.module]
            for module in {name.split(".")[0] for name in imported} - sys.stdlib_module_names - {"dlcv_diffusion"}:
                name = modules.get(module, module).replace("_", "-").lower()
                assert name in required | allowed.get(room, set()), f"{path.name} imports {module}"


# --- commands that exist -----------------------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_makefile_helps_with_every_target():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())
    assert phony == targets()
    assert targets() - {"help"} <= set(re.findall(r"\bmake ([a-z-]+)", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_commands_and_files_that_exist(document):
    text = document.read_text(encoding="utf-8")
    shell = "\n".join(
        re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    )
    assert set(re.findall(r"^(?:\$ )?make ([a-z-]+)", shell, re.MULTILINE)) <= targets()
    for path in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (document.parent / path).exists(), f"{document.name} links to {path}"
    for path in re.findall(r"\b((?:tools|notebooks|benchmarks|tests)/[\w/]+\.(?:py|ipynb))\b", text):
        assert (ROOT / path).exists(), f"{document.name} names {path}"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_second_run_installs_nothing(tmp_path):
    def would_do(target):
        command = ["make", "-n", target, f"VENV={tmp_path}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for target in ("run", "test", "lab"):
        assert "-m venv" in would_do(target) and "pip install" in would_do(target)
    (tmp_path / ".installed").touch()
    for target in ("run", "test", "lab"):
        assert "pip install" not in would_do(target)
    os.utime(tmp_path / ".installed", (0, 0))  # older than pyproject.toml
    assert "pip install" in would_do("run")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_old_python_is_told_so(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\nexit 1\n')
    old.chmod(0o755)
    for python, said in ((old, "Python 3.8.10 is too old: 3.11 or newer"), ("python9", "No 'python9' here")):
        command = ["make", "install", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0 and said in done.stdout
    assert not (tmp_path / "venv").exists()


# --- what is committed -------------------------------------------------------------------------------------


def test_no_file_tells_of_somebodys_machine():
    folders = "home|Users|root|work|workspace|tmp|mnt|scratch|opt|var/folders"
    paths = re.compile(rf"(?<![\w./:~$)}}>*+-])/(?:{folders})/\w|[A-Z]:\\\\?Users\b|site-packages/")
    found = []
    for path in tracked():
        if path.suffix in {".safetensors", ".npz", ".zip"} or path == Path(__file__):
            continue
        for match in paths.finditer(path.read_bytes().decode("utf-8", "replace")):
            found.append(f"{path.relative_to(ROOT)}: {match.string[max(0, match.start() - 30) : match.end() + 30]!r}")
    assert not found, "\n".join(found)


def test_versions_agree():
    version = dlcv_diffusion.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version and citation["license"] == "MIT"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog


def test_the_licence_covers_the_embedded_sample_too():
    # digits_sample.webp and the sheets of emoji travel in the wheel
    assert PROJECT["license"] == "MIT AND CC-BY-SA-3.0 AND Apache-2.0 AND CC-BY-4.0 AND CC-BY-SA-4.0"
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()
    assert "dlcv_diffusion/assets/LICENCES.md" in PROJECT["license-files"]


def test_committed_figures_have_their_facts():
    figures = [path for path in tracked() if path.parent == ROOT / "figures" and path.suffix == ".png"]
    expected = {f"digits_{name}.png" for name in ("mnistm_grid", "street_grid", "reverse_strip", "overview")}
    assert expected <= {path.name for path in figures}
    for path in figures:
        assert read_facts(path), f"{path.name} does not say how it was made"


LIMITS = {
    "faces.safetensors": 12e6,
    "faces_encoder.safetensors": 2e6,
    "emoji_clip.safetensors": 5e6,
    "emoji_judge.safetensors": 2e6,
    "emoji_text_to_image/": 20e6,
    "emoji_concepts/": 3e6,
    r"emoji(_\w+)?\.(webp|json)": 6e6,
    r"digits\w*\.safetensors": 6.5e6,
    "": 5e6,
}
"""Bytes that assets may take, by what their names below `assets/` begin with; the first that fits counts."""


def test_what_ships_is_small():
    sizes, root = dict.fromkeys(LIMITS, 0), ROOT / "dlcv_diffusion" / "assets"
    assets = [path for path in tracked() if root in path.parents and path.suffix not in {".md", ".py"}]
    for path in assets:
        sizes[next(name for name in LIMITS if re.match(name, path.relative_to(root).as_posix()))] += path.stat().st_size
    assert {name: size for name, size in sizes.items() if size > LIMITS[name]} == {}
    assert not assets or (root / "LICENCES.md").exists()


def test_the_package_carries_its_style_sheet_and_its_entry_point():
    assert (ROOT / "dlcv_diffusion" / "figures" / "dlcv.mplstyle").exists()
    assert PROJECT["scripts"] == {"dlcv": "dlcv_diffusion.cli:main"}
