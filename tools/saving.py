"""A hook for JupyterLab: to save a notebook that nobody changed leaves its bytes as they are.

    PYTHONPATH=tools jupyter lab --ContentsManager.pre_save_hook=saving.keep_metadata

JupyterLab writes the reader's version of Python, and what the reader's kernel is called, into every notebook it opens.
`make lab` uses this hook, so that opening a notebook of this repository is no change for git.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def keep_metadata(*, model: dict[str, Any], path: str, contents_manager: Any, **_: Any) -> None:
    """Before `model` is saved at `path`: what the file says of its kernel and language stays, if both are the same."""
    if model["type"] != "notebook":
        return
    metadata = model["content"]["metadata"]
    with suppress(OSError, ValueError, KeyError, AttributeError):  # a new file, or one that is no notebook
        before = json.loads(Path(contents_manager.root_dir, path.lstrip("/")).read_text(encoding="utf-8"))["metadata"]
        metadata.update(
            {name: before[name] for name in ("kernelspec", "language_info") if same(before, metadata, name)}
        )


def same(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    """Whether an entry is of the same kernel or language before and after.

    >>> one, other = ({"language_info": {"name": "python", "version": version}} for version in ("3.11.2", "3.13.0"))
    >>> same(one, other, "language_info")
    True
    """
    return name in after and before[name]["name"] == after[name]["name"]
