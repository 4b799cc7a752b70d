"""Words that somebody typed, as classes; and what is typed there first."""

import re
from collections.abc import Sequence

from ..emoji.captions import SINGLE, phrase
from ..emoji.world import load_world
from ..errors import check
from ..models.clip import Clip
from .pictures import Pictures
from .templates import COURSE

SEPARATOR = re.compile(r"[,，、;；\n]")
ARTICLE = re.compile(r"(?:an?|the)\s+", re.IGNORECASE)
MOST_WORDS, FIRST_WORDS = 200, 6


def words_in(text: str) -> list[str]:
    """The words, or groups of words, of a text: between commas or semicolons, or one a line.

    Raises `UserError` for fewer than two, more than `MOST_WORDS`, or the same twice.

    >>> words_in("a fox, an owl\\na hot air balloon")
    ['a fox', 'an owl', 'a hot air balloon']
    """
    words = [" ".join(part.split()) for part in SEPARATOR.split(text)]
    words = [word for word in words if word]
    two = "type at least two words with a comma between them"
    check(words, f"there are no words to choose from; {two}")
    check(len(words) > 1, f"'{words[0]:.60}' alone has the probability 1, whatever is in the picture; {two}")
    check(len(words) <= MOST_WORDS, f"these are {len(words)} words; type at most {MOST_WORDS}")
    twice = next((word for word in words if words.count(word) > 1), None)
    check(twice is None, f"'{twice}' is there twice, and would share its probability with itself; take one out")
    return words


def bare(word: str) -> str:
    """A word as it can be looked up: without an article, in small letters.

    >>> bare("An Owl")
    'owl'
    """
    return ARTICLE.sub("", word.strip(), count=1).lower() if ARTICLE.match(word.strip()) else word.strip().lower()


def own_template(clip: Clip) -> str:
    """The template that suits a model: ours were told of "a fox", with the article that the word takes."""
    return SINGLE if SINGLE.format("a {}") in clip.facts.get("templates", ()) else COURSE


def first_words(pictures: Pictures, template: str) -> list[str]:
    """The pictures' classes in their order, and further ones, up to six; with an article where the template has none.

    >>> import torch
    >>> pictures = Pictures.of(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [1, 0], ["fox", "owl", "scissors"])
    >>> first_words(pictures, "a photo of {}."), first_words(pictures, "A photo of a {}.")
    (['an owl', 'a fox', 'scissors'], ['owl', 'fox', 'scissors'])
    """
    names = dict.fromkeys([pictures.classes[label] for label in pictures.labels.tolist()] + list(pictures.classes))
    names = [" ".join(SEPARATOR.sub(" ", name).split()) for name in names][:FIRST_WORDS]
    if re.search(r"\b(?:an?|the) \{\}", template, re.IGNORECASE):
        return names
    world = load_world()
    return [phrase(world, name) for name in names]


def unknown_words(clip: Clip, words: Sequence[str]) -> list[str]:
    """The words that are none of the things a model says it was trained on; [] of a model that does not say."""
    known = {name.lower() for name in clip.facts.get("classes", ())}
    return [word for word in words if bare(word) not in known] if known else []
