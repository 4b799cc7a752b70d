"""The library's own lines, to be shown in a notebook beside the equation that they compute."""

import re
import textwrap

from .errors import UserError


def excerpt(source: str, first: str | None = None, last: str | None = None) -> str:
    """The lines of `source` that matter, without its docstring, moved to the left margin.

    - source: what `inspect.getsource` returns.
    - first: words in the first line to show; by default the beginning.
    - last: words in the last line to show, which is looked for from `first` on; by default the end.

    Raises `UserError` where no line holds these words: the text around the excerpt would be wrong, too.

    >>> print(excerpt("def f(x):\\n    y = x + 1\\n    return y", first="y ="))
    y = x + 1
    return y
    """
    lines = re.sub(r'^ *r?"""(?s:.*?)"""\n', "", source, count=1, flags=re.MULTILINE).splitlines()
    begin = 0 if first is None else _find(lines, first, 0)
    end = len(lines) if last is None else _find(lines, last, begin) + 1
    return textwrap.dedent("\n".join(lines[begin:end])).strip("\n")


def _find(lines: list[str], words: str, begin: int) -> int:
    for number, line in enumerate(lines[begin:], begin):
        if words in line:
            return number
    raise UserError(f"no line of this source holds '{words}'; show another part of it")
