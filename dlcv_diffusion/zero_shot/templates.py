"""Templates: what becomes of a class's name before CLIP reads it."""

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import check
from ..models.clip import Clip
from ..reading import reading

COURSE = "A photo of a {}."
"""The course's own: "A photo of a {object}."."""

ENSEMBLE = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a blurry photo of a {}.",
    "a close-up photo of a {}.",
    "a small photo of a {}.",
    "a low resolution photo of a {}.",
    "a bright photo of a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
)
"""For models that bring no ensemble of their own; of photographs, as in the CLIP paper's section 3.1.4."""

PLACE = re.compile(r"\{\w*\}")


def template_list(templates: str | Sequence[str], clip: Clip | None = None) -> list[str]:
    """Templates as a list: of "single" the course's, of "ensemble" the model's own or else `ENSEMBLE`.

    Where the name goes stands "{}", or a word in braces as in "A photo of a {object}.".

    Raises `UserError` for none, and for one in which no place is left for the name.

    >>> template_list(["A photo of a {object}."])
    ['A photo of a {}.']
    """
    if templates == "single":
        return [COURSE]
    if templates == "ensemble":
        templates = (clip.facts.get("templates") if clip is not None else None) or ENSEMBLE
    templates = [templates] if isinstance(templates, str) else list(templates)
    check(templates, 'there is no template; give one such as "A photo of a {}."')
    lost = next((text for text in templates if not (isinstance(text, str) and PLACE.search(text))), None)
    check(lost is None, f"the template {str(lost)[:80]!r} has no place for the name; write {{}} where it goes")
    return [PLACE.sub("{}", text) for text in templates]


def read_templates(path: str | Path) -> list[str]:
    """Templates from a text file, one a line; empty lines and those that begin with # are left out.

    Raises `UserError` for a file that is missing or no text, and as `template_list` does.

    >>> read_templates("templates.txt")   # doctest: +SKIP
    ['a photo of a {}.', 'a sketch of a {}.']
    """
    with reading(path, "is not a text file in UTF-8", "give single, ensemble, or a file with one template a line"):
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    check(found, f"'{path}' holds no template; write one a line, such as: A photo of a {{}}.")
    return template_list(found)


def filled_in(template: str, name: str) -> str:
    """The template with the name in its place; other braces stay as they are.

    >>> filled_in("A photo of a {}.", "fox")
    'A photo of a fox.'
    """
    return name.join(template.split("{}"))
