"""The library's own lines, to be shown in a notebook beside the equation that they compute."""

import inspect
import re
import textwrap
from collections.abc import Callable

from .errors import check


def listing(code: Callable | str, first: str | None = None, last: str | None = None) -> str:
    """The lines of a function, or of the source that is given, without its docstring and moved to the left margin.

    - first, last: words in the first and last line to show; by default all lines.

    Raises `UserError` where no line holds these words.

    >>> print(listing("def f(x):\\n    y = x + 1\\n    return y", first="y ="))
    y = x + 1
    return y
    """
    source = code if isinstance(code, str) else inspect.getsource(code)
    lines = re.sub(r'^ *r?"""(?s:.*?)"""\n', "", source, count=1, flags=re.MULTILINE).splitlines()
    begin = 0 if first is None else _find(lines, first, 0)
    end = len(lines) if last is None else _find(lines, last, begin) + 1
    return textwrap.dedent("\n".join(lines[begin:end])).strip("\n")


def _find(lines: list[str], words: str, begin: int) -> int:
    found = [number for number, line in enumerate(lines) if number >= begin and words in line]
    check(found, f"no line of this source holds '{words}'; show another part of it")
    return found[0]
