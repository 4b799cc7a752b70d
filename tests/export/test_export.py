"""`export_notebook` and `dlcv export`: one file that holds all that a notebook shows. How it looks, a browser tests."""

import base64
import re

import nbformat
import numpy as np
import pytest

from dlcv_diffusion import UserError
from dlcv_diffusion.export import export_notebook
from dlcv_diffusion.export.mathematics import Mathematics
from dlcv_diffusion.figures import png_bytes
from dlcv_diffusion.files import PARTIAL

LIVE = {"model_id": "0" * 32, "version_major": 2, "version_minor": 0}
PNG = base64.b64encode(
    png_bytes(np.zeros((4, 4, 3), np.uint8), {"Description": "Two <foxes>, $x_T$. seed = 3"})
).decode()
PLAIN = base64.b64encode(png_bytes(np.zeros((4, 4, 3), np.uint8))).decode()


@pytest.fixture
def write(tmp_path):
    """Write a notebook of Markdown cells, or of outputs, each below a line of code."""

    def write(*cells, name="a.ipynb"):
        v4, notebook = nbformat.v4, nbformat.v4.new_notebook()
        for cell in cells:
            if isinstance(cell, str):
                notebook.cells.append(v4.new_markdown_cell(cell))
            else:
                outputs = [v4.new_output("display_data", data=cell)]
                notebook.cells.append(v4.new_code_cell("draw()", outputs=outputs, execution_count=1))
        nbformat.write(notebook, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def page(write, tmp_path):
    def page(*cells, **options):
        exported = export_notebook(write(*cells), tmp_path / "a.html", **options)
        return exported.path.read_text(encoding="utf-8")

    return page


def labels(html):
    return re.findall(r'<svg role="img" aria-label="([^"]*)" class="(\w+)"', html)


def seen(html):
    """The words of a page, without what is in tags."""
    return re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]*>", "", html, flags=re.DOTALL)


def test_equations_are_drawn_wherever_they_stand(page):
    html = page(
        "# A title\n\nThe step $x_t$ and\n\n$$\\frac{a}{b}$$\n\n- in a list $\\eta$\n\n| a |\n| - |\n| $y < 1$ |\n",
        "<details><summary>Why $z$?</summary>\n\nSince $$\\begin{cases}1 & x\\\\ 2 & y\\end{cases}$$\n\n</details>",
        {"text/latex": "$\\displaystyle w^2$", "text/plain": "w**2"},
    )
    drawn = labels(html)
    assert [tex for tex, _ in drawn] == [
        "x_t",
        "\\frac{a}{b}",
        "\\eta",
        "y &lt; 1",
        "z",
        drawn[5][0],
        "\\displaystyle w^2",
    ]
    assert drawn[1][1] == "equation" and drawn[0][1] == "symbols" and "cases" in drawn[5][0]
    assert "$" not in seen(html) and "\\" not in seen(html) and html.count("<details>") == html.count("</details>") == 1
    ids = re.findall(r'<symbol id="([^"]+)"', html)
    used = set(re.findall(r'href="#(\w+_\d+)"', html))
    assert len(ids) == len(set(ids)) and used == set(ids)


def test_dollars_in_code_and_money_are_no_equations(page):
    html = page("Type `echo $HOME$`, or\n\n```bash\nA=$B $C\n```\n\n<p>5$ and 6$, or <code>$x$</code></p>")
    assert labels(html) == []


def test_what_cannot_be_set_stays_as_tex_and_is_told(write, tmp_path, dlcv):
    path = write("See $\\unheardof{x}$ and $y$.")
    exported = export_notebook(path, tmp_path / "a.html")
    assert exported.unset == ["\\unheardof{x}"]
    assert '<code class="tex">\\unheardof{x}</code>' in exported.path.read_text(encoding="utf-8")
    assert "not drawn" in dlcv(f"export {path} --out b.html")[1]


@pytest.mark.parametrize("tex", [r"\big\lVert x \big\rVert^2", r"\mathbb E_x", r"\hat x_0 \sim \tilde y", r"a = -1"])
def test_the_parser_s_gaps_are_filled(tex):
    maths = Mathematics()
    assert maths.draw(tex).startswith("<svg") and maths.failed == []


def test_a_hat_is_as_wide_as_its_letter():
    """The library's own is wider, and leaves a gap before the letter."""

    def width(tex):
        return float(re.search(r"width:([\d.]+)em", Mathematics().draw(tex))[1])

    assert width(r"\hat x") < width("x") + 0.25


def test_the_still_of_an_explorer_takes_the_place_of_its_live_view(page):
    widget = {"application/vnd.jupyter.widget-view+json": LIVE}
    html = page({**widget, "image/png": PNG, "text/plain": "VBox()"}, {**widget, "text/plain": "VBox()"})
    assert html.count("<img") == 1 and "<script" not in html and "VBox" not in seen(html)
    assert "needs a running kernel" in html


def test_pictures_have_words(page):
    html = page(
        "## Noise",
        {"image/png": PNG, "text/plain": "<figure: other>"},
        {"image/png": PLAIN, "text/plain": "<figure: A grid>"},
        {"image/png": PLAIN, "text/plain": "<figure: >"},
    )
    alts = re.findall(r'<img[^>]*alt="([^"]*)"', html, re.DOTALL)
    assert alts == ["Two &lt;foxes&gt;, x_T. seed = 3", "A grid", "Figure, in the section “Noise”"]


def test_files_beside_the_notebook_are_taken_in(page, tmp_path):
    (tmp_path / "fox.png").write_bytes(base64.b64decode(PLAIN))
    html = page('![a fox](fox.png)\n\n<img src="fox.png" width="10">\n\n![far](https://example.org/far.png)')
    assert html.count("data:image/png;base64," + PLAIN) == 2 and 'alt="a fox"' in html
    assert not re.search(r'(src|href)="(?!data:|#|https://example.org)', html)
    assert '<a href="https://example.org/far.png">far</a>' in html and "<img" in html


def test_notebooks_that_are_exported_together_lead_to_each_other(write, dlcv, tmp_path):
    write("[next](b.ipynb), [end](b.ipynb#End), [other](c.ipynb)", name="a.ipynb")
    write("# B", name="b.ipynb")
    code, out, err = dlcv("export a.ipynb b.ipynb --out pages")
    assert (code, err) == (0, "") and out.split() == ["pages/a.html", "pages/b.html"]
    html = (tmp_path / "pages" / "a.html").read_text(encoding="utf-8")
    assert 'href="b.html"' in html and 'href="b.html#End"' in html and 'href="c.ipynb"' in html
    assert "<title>B</title>" in (tmp_path / "pages" / "b.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("none.ipynb", "'none.ipynb' is not there; give a notebook"),
        ("broken.ipynb", "'broken.ipynb' is no notebook that can be read; give a notebook of Jupyter"),
        ("lost.ipynb", "shows the picture 'lost.png', which is not there"),
        ("a.ipynb lost.ipynb --out a.html", "'a.html' is one file for 2 notebooks; give a folder"),
        ("a.ipynb sub/a.ipynb", "two notebooks are called 'a'"),
        ("a.ipynb --out a.ipynb/a.html", "cannot write"),
    ],
)
def test_bad_input_is_one_sentence(write, dlcv, tmp_path, words, said):
    write("# A")
    write("![lost](lost.png)", name="lost.ipynb")
    (tmp_path / "broken.ipynb").write_text("{}")
    code, out, err = dlcv(f"export {words}")
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".html" or PARTIAL.fullmatch(path.name)]


def test_an_error_in_the_middle_leaves_the_old_page(write, tmp_path):
    path = write("# A")
    export_notebook(path, tmp_path / "a.html")
    before = (tmp_path / "a.html").read_bytes()
    write("![lost](lost.png)")
    with pytest.raises(UserError):
        export_notebook(path, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == before


def test_a_picture_that_was_pasted_into_the_text_is_there(write, tmp_path):
    path = write("Look: ![mine](attachment:p.png)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0]["attachments"] = {"p.png": {"image/png": PLAIN}}
    nbformat.write(notebook, path)
    html = export_notebook(path, tmp_path / "a.html").path.read_text(encoding="utf-8")
    assert f"data:image/png;base64,{PLAIN}" in html and 'alt="mine"' in html


def test_names_of_files_may_have_spaces_and_umlauts(page, tmp_path):
    for name in ("größe.png", "a b.png"):
        (tmp_path / name).write_bytes(base64.b64decode(PLAIN))
    html = page("![x](größe.png) ![y](<a b.png>)")
    assert html.count(f"data:image/png;base64,{PLAIN}") == 2


def test_scripts_and_styles_of_the_network_are_left_out(page):
    away = '<script src="https://example.org/a.js"></script><link rel="stylesheet" href="//example.org/b.css">'
    html = page({"text/html": f"<b>kept</b>{away}", "text/plain": "a"})
    assert "<b>kept</b>" in html and "example.org" not in html
