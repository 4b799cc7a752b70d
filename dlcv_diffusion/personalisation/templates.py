"""The sentences that a new word is learnt in: for a thing, and for a style (as arXiv 2208.01618, section 4)."""

from collections.abc import Sequence
from typing import Literal

from ..errors import check

Kind = Literal["object", "style"]

TEMPLATES: dict[str, tuple[str, ...]] = {
    "object": (
        *("a {}", "a picture of a {}", "an image of a {}", "a drawing of a {}", "a photo of a {}", "a photo of my {}"),
        *("a photo of one {}", "a close-up photo of a {}", "a small picture of a {}", "a nice {}", "the {}"),
    ),
    "style": (
        *("in the style of {}", "a picture in the style of {}", "an image in the style of {}"),
        *("a painting in the style of {}", "a drawing in the style of {}", "a small painting in the style of {}"),
        *("a close-up in the style of {}", "the picture in the style of {}"),
    ),
}
"""Neutral sentences: what they leave out, the new word has to say."""

BESIDE = "a {} next to a {}"
"""What a picture of two things says."""


def filled(templates: Sequence[str] | None, kind: str, word: str) -> list[str]:
    """The sentences with a word in the place of {}; those of the kind, "object" or "style", if none are given.

    Raises `UserError` for an unknown kind, and a sentence without a place for the word.

    >>> filled(["a photo of a {}"], "object", "<new1>")
    ['a photo of a <new1>']
    """
    check(kind in TEMPLATES, f"unknown kind of concept '{kind}'; choose one of {', '.join(TEMPLATES)}")
    chosen = TEMPLATES[kind] if templates is None else templates
    check(chosen and not isinstance(chosen, str), "templates are a list of sentences, such as ['a photo of a {}']")
    for template in chosen:
        check("{}" in template, f"the template '{template:.60}' has no {{}} where the new word goes; put one in")
    return [template.replace("{}", word) for template in chosen]
