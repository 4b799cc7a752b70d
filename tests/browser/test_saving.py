"""A notebook that is opened in JupyterLab and saved is the same file as before: git shows no change."""

import json
import shutil

import pytest

NAMES = ["01_forward_noising.ipynb", "06_clip_zero_shot.ipynb"]
OTHER = "other.ipynb"


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """Two notebooks as they are committed, and one that somebody with another Python has committed."""
    folder = tmp_path_factory.mktemp("committed")
    for name in NAMES:
        shutil.copy(root / "notebooks" / name, folder)
    text = (folder / NAMES[0]).read_text(encoding="utf-8")
    version = json.loads(text)["metadata"]["language_info"]["version"]
    (folder / OTHER).write_text(text.replace(f'"version": "{version}"', '"version": "3.14.1"'), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", [*NAMES, OTHER])
def test_opening_and_saving_changes_no_byte(open_notebook, folder, name):
    path = folder / name
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    with open_notebook(name) as notebook:
        notebook.page.wait_for_timeout(1000)  # what JupyterLab adds by itself comes with the kernel
        notebook.save()
    assert path.stat().st_mtime_ns > written, "it was not saved at all"
    assert path.read_bytes() == before
