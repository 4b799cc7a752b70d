"""Files of measurements: JSON lists of one row for each setting, which notebooks show without the hours they took."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..declared import validated
from ..errors import UserError

Row = Mapping[str, Any]


def read_rows(path: str | Path, kind: Any, maker: str) -> list[Row]:
    """The rows of a file of measurements, each checked against `kind`, a `TypedDict`.

    Raises `UserError`, which names the tool `maker`, where the file is missing, is no JSON, or holds something else.

    >>> read_rows("rows.json", dict[str, float], "tools/measure.py")   # doctest: +SKIP
    [{'w': 2.0, 'accuracy': 0.98}]
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no measurements at '{path}'; make them with `{maker} --out {path}`") from error
    except (ValueError, RecursionError):
        rows = None
    return validated(list[kind], rows or None, f"'{path}' holds no measurements of {maker}")
