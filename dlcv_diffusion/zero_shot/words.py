"""Words that somebody typed, as classes; and what is typed there first."""

import re
from collections.abc import Iterable, Sequence

from ..emoji.captions import SINGLE, phrase
from ..emoji.world import load_world
from ..errors import check
from ..models.clip import Clip
from .pictures import Pictures
from .templates import COURSE

SEPARATOR = re.compile(r"[,，、;；\n]")
ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
DETERMINER = "an?|the|this|that|these|those|my|our|your|his|her|its|their|one|some|many|each|every|no"
NEW_PHRASE = (
    "about|above|against|and|are|as|at|behind|beside|between|by|called|containing|depicting|for|from|has|holding|in|"
    "inside|is|like|named|near|next|of|on|or|over|shows|showing|than|that|titled|to|under|was|which|with|without"
)
DETERMINED = re.compile(rf"\b(?:{DETERMINER})(?:\s+(?!(?:{NEW_PHRASE})\b)[\w'’-]+)*\s+\{{\}}", re.IGNORECASE)
"""In a template, an article or another word of its kind for what stands at {}: "a small {}", not "a photo of {}"."""

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


def words_of(words: str | Sequence[str]) -> list[str]:
    """The same of a text or a list of words.

    Raises `UserError` as `words_in` does, and for a list of what is no text, or holds what separates words.

    >>> words_of(["a fox", "an owl"])
    ['a fox', 'an owl']
    """
    if isinstance(words, str):
        return words_in(words)
    given = list(words) if isinstance(words, Iterable) else [words]
    strange = next((word for word in given if not isinstance(word, str)), None)
    check(all(isinstance(word, str) for word in given), f'{strange!r} is no text; give words: ["a fox", "an owl"]')
    split = next((word for word in given if SEPARATOR.search(word.strip())), "")
    check(not split, f"'{split[:60]}' is one word of the list, but a comma, semicolon or new line separates words")
    return words_in("\n".join(given))


def bare(word: str) -> str:
    """A word as it can be looked up: without an article or what separates words, in small letters.

    >>> bare("An Owl"), bare("tench, Tinca")
    ('owl', 'tench tinca')
    """
    return ARTICLE.sub("", one_word(word)).casefold()


def one_word(name: str) -> str:
    """A class's name as it can be typed: what would separate words becomes a space.

    >>> one_word("tench, Tinca")
    'tench Tinca'
    """
    return " ".join(SEPARATOR.sub(" ", name).split())


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
    seen = [pictures.classes[label] for label in pictures.labels.tolist()]
    names = {one_word(name): None for name in [*seen, *pictures.classes] if one_word(name)}
    if not DETERMINED.search(template):
        world = load_world()
        names = {name if ARTICLE.match(name) else phrase(world, name): None for name in names}
    alike = "the pictures' classes are one word, '{}', but for commas and articles; give words of your own"
    check(len(names) > 1, alike.format("".join(names)))
    return list(names)[:FIRST_WORDS]


def unknown_names(clip: Clip, words: Sequence[str]) -> list[str]:
    """The words that are not, and do not hold as whole words, the name of a thing that a model says it was trained on.

    A model says its things' names and no more: it may well have read synonyms and plurals of them. [] of a model that
    says none.

    >>> unknown_names(clip, ["a fox", "a fox on a blue background", "a skyscraper"])   # doctest: +SKIP
    ['a skyscraper']
    """
    names = [re.escape(bare(name)) for name in clip.facts.get("classes") or () if bare(name)]
    known = re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)")
    return [word for word in words if not known.search(one_word(word).casefold())] if names else []
