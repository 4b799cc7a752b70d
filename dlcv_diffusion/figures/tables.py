"""Numbers beside each other: a table as plain text, as notebooks and terminals print it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import check


def text_table(columns: Mapping[str, Sequence[Any]]) -> str:
    """Columns under their names, numbers to the right and words to the left; two spaces between columns.

    Raises `UserError` for columns of different lengths.

    >>> print(text_table({"sampler": ["DDIM", "DDPM"], "steps": [20, 350]}))
    sampler  steps
    DDIM        20
    DDPM       350
    """
    lengths = {len(values) for values in columns.values()}
    check(len(lengths) <= 1, f"the columns of a table must be equally long, not of {sorted(lengths)} values")
    aligned = []
    for name, values in columns.items():
        cells = [str(value) for value in values]
        width = max(map(len, [name, *cells]))
        numbers = cells and all(cell[:1] in "0123456789-–+.±" for cell in cells if cell)
        aligned.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in (name, *cells)])
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))
