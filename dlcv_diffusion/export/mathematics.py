"""Equations as drawings: TeX becomes SVG, set in STIX Two, so that a page needs neither MathJax nor a font."""

import re
from html import escape
from xml.etree import ElementTree

SIZE = 20.0  # the drawing's own units for one em
EM = 1.08  # STIX is small beside the page's letters
BEFORE_PARSING = (
    (re.compile(r"\\(?:[lr]?Vert\b|\|)"), "‖"),  # which the parser does not know after \big
    (re.compile(r"\\mathbb\s+([A-Za-z])"), r"\\mathbb{\1}"),
)
AFTER_PARSING = (
    (  # a sign is no difference
        re.compile(
            r"(<math[^>]*><mrow>|<mo[^>]*>(?:&#x000(?:3D|28|5B|3C|3E|2C);|&#x02248;|[=(\[<>,])</mo>)<mo>&#x02212;</mo>"
        ),
        r'\1<mo form="prefix" lspace="0em" rspace="0em">&#x02212;</mo>',
    ),
    (re.compile("<mi>&#x0007E;</mi>"), "<mo>&#x0223C;</mo>"),  # "is distributed as" is an operator
    (  # hats and tildes as wide as one letter
        re.compile(r"(<mover[^>]*><mi[^>]*>[^<]*</mi>)<mo[^>]*>(&#x00302;|&#x0007E;)</mo>"),
        r"\1<mi>\2</mi>",
    ),
)
"""What the parser or the drawing makes of some TeX, put right."""


class Mathematics:
    r"""The equations of one page. Every letter is drawn once, in `glyphs`, which the page holds beside the equations.

    - failed: what could not be read, and stands on the page as TeX.

    >>> maths = Mathematics()
    >>> maths.draw(r"\sqrt{x_t}")[:17]
    '<svg role="img" a'
    """

    def __init__(self) -> None:
        self._glyphs: dict[str, str] = {}
        self._drawn_so_far: list[str] = []
        self.failed: list[str] = []

    def place(self, tex: str, *, block: bool = False) -> str:
        """A mark that `placed` replaces by the drawing: what reads and writes HTML meanwhile leaves it as it is."""
        self._drawn_so_far.append(self.draw(tex, block=block))
        return f"\ue000{len(self._drawn_so_far) - 1}\ue001"

    def placed(self, html: str) -> str:
        """HTML with drawings in the place of marks."""
        return re.sub("\ue000(\\d+)\ue001", lambda mark: self._drawn_so_far[int(mark[1])], html)

    def draw(self, tex: str, *, block: bool = False) -> str:
        """An equation as an `<svg>` whose text alternative is its TeX; `block` for one that stands alone."""
        try:
            return self._drawn(" ".join(tex.split()), block)
        except Exception:  # whatever a parser of foreign text may raise
            self.failed.append(tex)
            return f'<code class="tex">{escape(tex)}</code>'

    def glyphs(self) -> str:
        """The letters of all equations drawn so far, as an invisible `<svg>`."""
        return f'<svg class="glyphs" aria-hidden="true" width="0" height="0">{"".join(self._glyphs.values())}</svg>'

    def _drawn(self, written: str, block: bool) -> str:
        from ziamath import Math
        from ziamath.tex import tex2mml

        tex = written
        for pattern, instead in BEFORE_PARSING:
            tex = pattern.sub(instead, tex)
        mathml = tex2mml(tex, inline=not block)
        for pattern, instead in AFTER_PARSING:
            mathml = pattern.sub(instead, mathml)
        unknown = re.search(r">\s*\\[A-Za-z]+", mathml)
        if unknown:
            raise ValueError(f"unknown command {unknown[0]}")
        root = Math(mathml, size=SIZE).svgxml()
        for symbol in root.findall("symbol"):
            self._glyphs.setdefault(symbol.attrib["id"], _written(symbol))
            root.remove(symbol)
        for part in root.iter():
            if part.attrib.get("fill") == "black":
                part.attrib["fill"] = "currentColor"
        width, height = (float(root.attrib[side]) / SIZE * EM for side in ("width", "height"))
        _, top, _, whole = map(float, root.attrib["viewBox"].split())
        below = "" if block else f";vertical-align:{-(top + whole) / SIZE * EM:.3f}em"
        inside = "".join(map(_written, root))
        head = f'role="img" aria-label="{escape(written)}" class="{"equation" if block else "symbols"}"'
        shape = f'viewBox="{root.attrib["viewBox"]}" style="width:{width:.3f}em;height:{height:.3f}em{below}"'
        return f"<svg {head} {shape}>{inside}</svg>"


def _written(element: ElementTree.Element) -> str:
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", ElementTree.tostring(element, encoding="unicode"))
