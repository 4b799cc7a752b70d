"""A picture and its bars as HTML, for the live view: quick to draw, of any width, and read out by screen readers."""

import base64
import html
import io
from collections.abc import Sequence

from matplotlib.colors import to_rgb
from PIL import Image

from .figures import PALE, bar_colours, percent, shown

BOX = 224
"""Screen pixels of the square that a picture is shown in."""

TABLE = "border-collapse:separate;border-spacing:0 3px;width:100%;font-size:14px;line-height:1.35"
NUMBER = "text-align:right;padding:2px 0 2px 12px;white-space:nowrap;font-variant-numeric:tabular-nums"
WORD = "text-align:left;padding:2px 6px;overflow-wrap:anywhere;width:100%"


def bars_html(
    words: Sequence[str],
    cosines: Sequence[float],
    probabilities: Sequence[float],
    true: str | None = None,
) -> str:
    """A table of words with their bars, probabilities and cosines; of many words those that `figures.shown` names.

    - true: see `figures.bar_colours`.

    >>> "<b>fox</b>" in bars_html(["fox", "owl"], [0.31, 0.25], [0.9, 0.1])
    True
    """
    colours, top = bar_colours(words, probabilities, true), max(probabilities)
    rows = []
    for place in shown(probabilities):
        word, share = html.escape(words[place]), probabilities[place]
        red, green, blue = (round(255 * part) for part in to_rgb(colours[place]))
        colour = f"rgba({red},{green},{blue},{PALE})"
        bar = f"background:linear-gradient(to right,{colour} {share:.2%},rgba(128,128,128,.12) {share:.2%})"
        name = f"▸ <b>{word}</b>" if share == top else word
        cells = (html.escape(percent(share)), f"{cosines[place]:.3f}".replace("-", "−"))
        numbers = "".join(f'<td style="{NUMBER}">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row" style="{WORD};font-weight:400;{bar}">{name}</th>{numbers}</tr>')
    heads = "".join(f'<th scope="col" style="{NUMBER};font-weight:400">{name}</th>' for name in ("p", "cos"))
    left_out = len(words) - len(rows)
    more = f"<caption style='caption-side:bottom;text-align:left'>and {left_out} less probable</caption>"
    head = f'<thead><tr><th scope="col" style="{WORD};font-weight:400">word</th>{heads}</tr></thead>'
    table = f'<table aria-label="probabilities" style="{TABLE}">{more if left_out else ""}{head}'
    return f"{table}<tbody>{''.join(rows)}</tbody></table>"


def picture_html(picture: Image.Image, name: str) -> str:
    """A picture in a square, and its name for those who cannot see it."""
    scale = BOX / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    buffer = io.BytesIO()
    small = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2)
    small.save(buffer, "PNG", compress_level=1)
    source = base64.b64encode(buffer.getvalue()).decode()
    style = f"width:{BOX}px;height:{BOX}px;object-fit:contain;object-position:left top;max-width:100%;margin:0"
    alt = html.escape(f"the picture {name}", quote=True)
    return f'<img alt="{alt}" src="data:image/png;base64,{source}" style="{style}">'
