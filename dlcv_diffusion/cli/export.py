"""`dlcv export`"""

from collections import Counter
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..errors import check
from .options import examples

EXAMPLES = examples(
    "dlcv export notebooks/04_ddim_eta.ipynb --out eta.html",
    "dlcv export notebooks/*.ipynb --out pages",
)


def export(
    notebooks: Annotated[list[Path], Argument(metavar="NOTEBOOK", help="as they were saved; nothing is run")],
    out: Annotated[Path, Option(help="the .html file of one notebook, or a folder for any number")] = Path(
        "runs/pages"
    ),
) -> None:
    """Turn notebooks into pages to read offline, and to print.

    Each becomes one HTML file, with its equations, pictures and code, that prints on A4 from any browser.
    """
    from ..export import export_notebook

    whole = out.suffix.lower() in (".html", ".htm")
    check(not whole or len(notebooks) == 1, f"'{out}' is one file for {len(notebooks)} notebooks; give a folder as out")
    twice = [name for name, count in Counter(path.stem for path in notebooks).items() if count > 1]
    check(not twice, f"two notebooks are called '{''.join(twice[:1])}'; export them to two folders")
    for path in notebooks:
        page = export_notebook(
            path,
            out if whole else out / f"{path.stem}.html",
            together=() if whole else [each.name for each in notebooks],
        )
        print(page.path)
        if page.unset:
            print(f"  not drawn, since they hold TeX that is not known here: {'; '.join(page.unset[:3])}")
