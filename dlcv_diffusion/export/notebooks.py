"""A notebook as it was saved becomes a page: its text, code, outputs and stills; nothing is run."""

import base64
import io
import mimetypes
import re
from collections.abc import Collection
from dataclasses import dataclass
from html import escape, unescape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from PIL import Image
from pygments.formatters import HtmlFormatter

from .. import __version__
from ..errors import check
from ..files import atomic_write
from ..reading import reading
from .mathematics import Mathematics

LIVE = ("application/vnd.jupyter.widget-view+json", "application/javascript")  # dead without a kernel
REMOTE = re.compile(r"(?:https?:)?//")
NETWORK = re.compile(
    r"""<script\b[^>]*\bsrc\s*=\s*["']?(?:https?:)?//[^>]*>.*?</script>|<link\b[^>]*\bhref\s*=\s*["']?(?:https?:)?//[^>]*>""",
    re.IGNORECASE | re.DOTALL,
)
"""Scripts and style sheets that lie on the network."""
IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
BLOCK = re.compile(r"(<pre[^>]*)(>)(.*?)</pre>", re.DOTALL)
TEX = re.compile(
    r"<(code|pre)\b.*?</\1>|\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\s](?:[^$\n]*[^$\s\\])?)\$(?![\d$])", re.DOTALL
)
COLUMNS = range(88, 141)
"""Of a text of so many columns the letters are made smaller where the page is narrow; lines of a wider one break."""


@dataclass(frozen=True)
class Exported:
    """A page that was written. `unset`: equations that could not be read, and stand on it as TeX."""

    path: Path
    unset: list[str]


def export_notebook(source: str | Path, out: str | Path, *, together: Collection[str] = ()) -> Exported:
    """Write one HTML file with all that a notebook shows, to be read without a network and to be printed on A4.

    Equations are drawn, pictures are in the file with their text alternatives, and of an explorer its still is shown.

    - source: a notebook, of which nothing is run. out: the .html file.
    - together: names of notebooks, such as "04_ddim_eta.ipynb", whose pages lie beside `out`: links lead there.

    Raises `UserError` for a file that is no notebook, a picture that is not there, or where `out` cannot be written.

    >>> export_notebook("notebooks/04_ddim_eta.ipynb", "04_ddim_eta.html").path   # doctest: +SKIP
    PosixPath('04_ddim_eta.html')
    """
    source, out = Path(source), Path(out)
    notebook = _read(source)
    maths = Mathematics()
    for cell in notebook.cells:
        cell.outputs = [_still(output, maths) for output in cell.get("outputs", [])]
    _describe_pictures(notebook)
    exporter = _Exporter(maths)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", body)
    body = IMAGE.sub(lambda match: _embedded(match[0], source), body)
    body = re.sub(r'href="([^":#?/]+)\.ipynb(#[^"]*)?"', lambda match: _link(match, together), body)
    body = maths.placed(BLOCK.sub(_measured, body))
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    widest = max(map(len, ["0", *code.split("\n")]))
    with atomic_write(out) as temporary:
        temporary.write_text(_page(notebook, source.stem, body, maths.glyphs(), widest), encoding="utf-8")
    return Exported(out, maths.failed)


def _read(source: Path) -> NotebookNode:
    with reading(source, "is no notebook that can be read", "give a notebook of Jupyter, a file .ipynb"):
        notebook = nbformat.read(source, as_version=4)
        nbformat.validate(notebook)
    return notebook


def _still(output: NotebookNode, maths: Mathematics) -> NotebookNode:
    """An output without what needs a kernel or a script; equations among outputs are drawn."""
    data = output.get("data", {})
    live = [kind for kind in LIVE if data.pop(kind, None) is not None]
    if live and not data.keys() - {"text/plain"}:
        data["text/plain"] = "(a control that needs a running kernel: open the notebook to use it)"
    if "text/html" in data:
        data["text/html"] = NETWORK.sub("", data["text/html"])
    if "text/latex" in data and "text/html" not in data:
        data["text/html"] = f"<div>{_with_equations(escape(data.pop('text/latex'), quote=False), maths)}</div>"
    return output


def _describe_pictures(notebook: NotebookNode) -> None:
    """Give every picture among the outputs words for those who do not see it, where it has none."""
    heading = notebook.metadata.get("title", "this notebook")
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (found := re.findall(r"^#+ +(.+?)\s*$", cell.source, re.MULTILINE)):
            heading = found[-1]
        for output in cell.get("outputs", []):
            for kind in ("image/png", "image/jpeg", "image/svg+xml"):
                if kind in output.get("data", {}):
                    about = output.metadata.setdefault(kind, NotebookNode())
                    about["alt"] = about.get("alt") or _told(output.data, kind) or f"Figure, in the section “{heading}”"


def _told(data: NotebookNode, kind: str) -> str:
    """What a figure of ours says of itself, in its file or as its plain text."""
    said = ""
    if kind == "image/png":
        try:
            with Image.open(io.BytesIO(base64.b64decode(data[kind]))) as image:
                said = image.info.get("Description", "")
        except (OSError, ValueError):  # the reader will not see it either
            return ""
    plain = re.fullmatch(r"<figure: (.*)>", data.get("text/plain", ""), re.DOTALL)
    return (said or (plain[1] if plain else "")).replace("$", "").strip()


class _Exporter(HTMLExporter):
    """nbconvert's, whose cells alone are taken, with equations drawn."""

    def __init__(self, maths: Mathematics):
        super().__init__(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
        self.drawn_by = maths

    def default_filters(self) -> Any:
        yield from super().default_filters()
        yield "markdown2html", self._markdown

    @pass_context
    def _markdown(self, context: Any, source: str) -> str:
        pasted = context.get("cell", {}).get("attachments", {})
        return MarkdownWithMath(renderer=_Renderer(self.drawn_by, pasted)).render(source)


class _Renderer(IPythonRenderer):
    """Markdown with equations drawn, and pictures and HTML as they are."""

    def __init__(self, maths: Mathematics, attachments: Any):
        super().__init__(escape=False, attachments=attachments)
        self.maths = maths

    def block_math(self, body: str) -> str:
        return self.maths.place(body, block=True)

    def inline_math(self, body: str) -> str:
        return self.maths.place(body)

    def latex_environment(self, name: str, body: str) -> str:
        return self.maths.place(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    def block_html(self, html: str) -> str:
        return _with_equations(super().block_html(html), self.maths)


def _with_equations(html: str, maths: Mathematics) -> str:
    """HTML whose `$…$` and `$$…$$` are drawn, those in code not."""

    def drawn(match: re.Match) -> str:
        tex = match[2] or match[3]
        return maths.place(unescape(tex), block=bool(match[2])) if tex else match[0]

    return TEX.sub(drawn, html)


def _embedded(tag: str, source: Path) -> str:
    """An `<img>` with its file inside; of one that lies on the network a link, since there may be none."""
    found = re.search(r"""\bsrc\s*=\s*(?:"([^"]*)"|'([^']*)')""", tag)
    where = unescape((found[1] or found[2] or "") if found else "")
    if where.startswith("data:"):
        return tag
    alt = re.search(r'\balt="([^"]*)"', tag)
    if REMOTE.match(where):
        return f'<a href="{escape(where)}">{alt[1] if alt and alt[1] else escape(where)}</a>'
    path = source.parent / unquote(where)
    check(path.is_file(), f"'{source}' shows the picture '{where}', which is not there; put it there, or take it out")
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    coded = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return tag.replace(found[0], f'src="{coded}"' + ("" if alt else f' alt="{escape(path.stem)}"'))


def _link(match: re.Match, together: Collection[str]) -> str:
    return f'href="{match[1]}.html{match[2] or ""}"' if f"{unescape(match[1])}.ipynb" in together else match[0]


def _measured(match: re.Match) -> str:
    """A text block that says how many columns it has, if they are many."""
    lines = unescape(re.sub(r"<[^>]*>", "", match[3])).splitlines()
    columns = max(map(len, lines), default=0)
    head = f'{match[1]} style="--columns:{columns}"' if columns in COLUMNS and "style=" not in match[1] else match[1]
    return f"{head}{match[2]}{match[3]}</pre>"


def _page(notebook: NotebookNode, name: str, body: str, glyphs: str, widest: int) -> str:
    first = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title = re.search(r"^#+ +(.+?)\s*$", first, re.MULTILINE)
    title = re.sub(r"[$*`\\]", "", title[1]) if title else name
    colours = HtmlFormatter().get_style_defs(".highlight")
    css = (files(__package__) / "page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="dlcv_diffusion {__version__}">
<title>{escape(title)}</title>
<style>
{colours}
{css}</style>
</head>
<body>
{glyphs}
<main style="--code-columns:{widest}">
{body}
</main>
</body>
</html>
"""
