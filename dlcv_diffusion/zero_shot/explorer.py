"""Any words, any picture, any temperature: zero-shot classification to play with."""

import io
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ..errors import check
from ..figures import ReportFigure, describe
from ..images.pictures import open_picture
from ..models.clip import Clip
from ..recent import Recent
from ..widgets.live import Live, captioned, hinted, sentence_of
from ..widgets.panel import Field, as_dicts
from .bars import bars_html, picture_html
from .classify import above_zero, scores
from .figures import temperatures_figure
from .pictures import Pictures
from .reader import Reader, finished
from .templates import filled_in, template_list
from .words import first_words, own_template, unknown_names, words_in, words_of

TYPING = 0.1  # seconds without a key before words are read
STEP = 0.02  # of the temperature's slider, in decades
MOST_PICTURES = 100
COOLER_AND_HOTTER = (1, 4, 16)
GIVE = "upload a PNG, JPEG or WebP"
CAPTION = (
    "p = softmax(cos / τ). Blue: the true class. Orange: predicted instead. "
    "Pink: the most probable, where the true class is not among the words"
)


def zero_shot_explorer(
    clip: Clip,
    pictures: Pictures,
    words: str | Sequence[str] | None = None,
    *,
    template: str | None = None,
    temperature: float | None = None,
    still: Sequence[float] | None = None,
    title: str = "",
    caption: str = CAPTION,
    facts: dict[str, Any] | None = None,
) -> "ZeroShotExplorer":
    """Type words, choose or upload a picture, and see p(word | picture) = softmax(cos / τ) (arXiv 2103.00020, 3.1.2).

    Bars stay in the order of the words; of more than ten words the ten most probable are shown. The still picture has
    three pictures at a few temperatures each: the first three, or in the third's place the next, up to the thirtieth,
    in which the words are wrong.

    - pictures: up to 100 to choose from; the first is shown first. words: 2 to 200, a list, or a text with commas, by
      default up to six of the pictures' classes. template: what CLIP reads, with {} for the word, by default one that
      suits the model.
    - temperature: τ > 0 where the slider starts, by default the model's own. still: temperatures of the still picture.
    - title, caption, facts: of the still picture and below the live one.

    Raises `UserError` for fewer than two words or more than 200, one that is there twice, is no text or too long for
    the model, a template without a place for the word, a temperature that is not above 0, none for the still picture,
    and more than 100 pictures.

    >>> pictures = load_pictures("emoji").subset(range(12))                          # doctest: +SKIP
    >>> zero_shot_explorer(load_clip("emoji"), pictures, "a fox, an owl, a castle")  # doctest: +SKIP
    """
    fits = len(pictures) <= MOST_PICTURES
    check(fits, f"{len(pictures)} pictures are too many to choose from; give some: pictures.subset(range(20))")
    template = _one_template(own_template(clip) if template is None else template)
    words = words_of(first_words(pictures, template) if words is None else words)
    own = clip.temperature
    start = above_zero(own if temperature is None else temperature)
    still = [factor * own for factor in COOLER_AND_HOTTER] if still is None else still
    listed = isinstance(still, Iterable) and list(still)
    check(listed, f"still is {still!r}; give the still picture's temperatures, one or more, such as [0.01, 0.1]")
    taus = [above_zero(value) for value in listed]
    return ZeroShotExplorer(clip, pictures, words, template, start, taus, title, caption, dict(facts or {}))


class ZeroShotExplorer(Live):
    """What `zero_shot_explorer` makes; `probabilities` computes what it shows.

    >>> explorer.probabilities(0, ["fox", "owl"], "A photo of a {}.", 0.01)   # doctest: +SKIP
    tensor([0.9820, 0.0180], dtype=torch.float64)
    """

    def __init__(
        self,
        clip: Clip,
        pictures: Pictures,
        words: Sequence[str],
        template: str,
        temperature: float,
        still: Sequence[float],
        title: str,
        caption: str,
        facts: dict[str, Any],
    ) -> None:
        self.clip, self.pictures, self.words, self.template = clip, pictures, list(words), template
        self.temperature, self.temperatures = temperature, list(still)
        self.page, self._facts = {"title": title, "caption": caption}, {"model": clip.name, **facts}
        self._reader, self._drawn = Reader(clip, pictures), Recent(MOST_PICTURES)  # HTML by picture
        self._uploaded: deque[tuple[str, bytes]] = deque(maxlen=1)  # the file that was not looked at yet
        self._typed, self._picture, self._bars = (), "", ""
        finished(self._reader.embeddings(_texts(words, template)))

    def probabilities(
        self, picture: int, words: str | Sequence[str], template: str, temperature: float | None = None
    ) -> Tensor:
        """softmax(cos / τ) of a picture over K words, (K,) float64, as the live view shows it. Features are kept.

        - picture: its row. words: 2 to 200, a list or a text. template: with {} for the word. temperature: τ > 0, the
          model's own by default.

        Raises `UserError` for a row that is not there, a picture that cannot be read, a temperature that is not above
        0, a template without a place for the word, and words as `zero_shot_explorer` does.
        """
        there = isinstance(picture, int) and 0 <= picture < len(self.pictures)
        check(there, f"there is no picture {picture!r}; give a row from 0 to {len(self.pictures) - 1}")
        texts = _texts(words_of(words), _one_template(template))
        return scores(self.clip, *finished(self._reader.features(picture, texts)), temperature)[0]

    @cached_property
    def still(self) -> ReportFigure:
        """Three pictures at some temperatures; the words are the same throughout."""
        rows, cosines, refused = self._reader.for_still(self.words, _texts(self.words, self.template))
        pictures = [self._reader.read(row) for row in rows]
        true = [self._reader.true_word(row, self.words) for row in rows]
        page, facts = dict(self.page), {**self._facts, "template": self.template}
        if refused:
            page["caption"] = f"{page['caption'].rstrip('. ')}. Left out, since not to be read: {', '.join(refused)}"
        page["caption"] = hinted(page["caption"])
        taus = list(zip(self._written(self.temperatures), self.temperatures, strict=True))
        return temperatures_figure(pictures, self.words, cosines, taus, **page, true=true, facts=facts)

    def _written(self, temperatures: Sequence[float]) -> list[str]:
        """Temperatures in as many digits as it takes to tell them apart, three or more."""
        different = len(set(temperatures))
        digits = next((n for n in range(3, 17) if len({f"{value:.{n}g}" for value in temperatures}) == different), 17)
        return [f"τ = {value:.{digits}g}{', as learnt' if self._is_own(value) else ''}" for value in temperatures]

    # --- the live view ------------------------------------------------------------------------------------

    def _fields(self) -> dict[str, Field]:
        rows = range(len(self.pictures))
        taus = self._temperatures()
        return {
            "words": Field(kind="area", label="words", hint="words, with commas between them"),
            "template": Field(kind="text", label="template", hint="what CLIP reads; {} is where the word goes"),
            "picture": Field(kind="select", label="picture", values=[*rows], texts=[*map(self._reader.label, rows)]),
            "file": Field(kind="file", label="or your own", accept="image/*"),
            "temperature": Field(
                kind="range",
                label=f"temperature τ (learnt: {self.clip.temperature:.3g})",
                values=taus,
                texts=[f"{tau:.3g}" for tau in taus],
            ),
        }

    def _start(self) -> dict[str, Any]:
        said = {"words": ", ".join(self.words), "template": self.template}
        return {**said, "picture": 0, "file": None, "temperature": self.temperature}

    def _temperatures(self) -> list[float]:
        """Those of the slider, 2 % of a decade apart; two of them are the model's own and the first."""
        own, first = math.log10(self.clip.temperature), math.log10(self.temperature)
        low, high = min(-3.0, own, first), max(1.0, own, first)
        steps = range(math.floor((low - own) / STEP), math.ceil((high - own) / STEP) + 1)
        spaced = {10 ** (own + STEP * step) for step in steps if step}
        return sorted({*spaced, self.clip.temperature, self.temperature})

    def _is_own(self, temperature: float) -> bool:
        return math.isclose(temperature, self.clip.temperature, rel_tol=1e-4)

    def _upload(self, name: str, content: bytes) -> None:
        self._uploaded.append((name, content))

    # --- the answer: steps in the thread of the cells -------------------------------------------------------

    def _show(self, drafts: bool = True) -> Iterator[float | None]:
        """Answer: first the picture, then its bars; yields where a later move may take over."""
        panel = self.panel
        asked, moved = dict(panel.values), panel.moved
        before, self._typed = self._typed, (asked["words"], asked["template"])
        panel.answered = moved
        if drafts and self._typed != before:
            panel.state = "busy"
            yield TYPING
        refused = self._take_upload()
        try:
            picture, temperature = panel.values["picture"], above_zero(asked["temperature"])
            self._picture = self._drawn_picture(picture)
            self._say(state="busy")
            words, template = words_in(asked["words"]), _one_template(asked["template"])
            texts = _texts(words, template)
            feature, embeddings = yield from self._reader.features(picture, texts)
            probabilities = scores(self.clip, feature, embeddings, temperature)[0].tolist()
            cosines = (feature @ embeddings.T)[0].tolist()
            self._bars = bars_html(words, cosines, probabilities, self._reader.true_word(picture, words))
            facts = describe({**self._facts, "template": template, "τ": f"{temperature:.3g}"})
            self._say(
                state="done",
                line=f"⚠ {refused}" if refused else self._note(words, texts),
                facts=captioned(self.page["caption"], facts),
                code="" if isinstance(picture, str) else self._code(picture, words, template, temperature),
            )
        except Exception as error:  # ipywidgets would swallow it, and the controls would seem dead
            self._say(state="error", line="; ".join(said for said in (refused, sentence_of(error)) if said))

    @staticmethod
    def _code(picture: int, words: Sequence[str], template: str, temperature: float) -> str:
        return f"explorer.probabilities({picture}, {', '.join(words)!r}, {template!r}, {temperature:.4g})"

    def _say(self, **traits: Any) -> None:
        bars = f'<div class="dlcv-bars">{self._bars}</div>'
        self.panel.say(area=f'<div class="dlcv-figures">{self._picture}{bars}</div>', **traits)

    def _take_upload(self) -> str:
        """Choose the picture that was uploaded last; one that cannot be read changes nothing, and it is said why."""
        if not self._uploaded:
            return ""
        name, content = self._uploaded.pop()
        try:
            picture = open_picture(io.BytesIO(content), GIVE, name, upright=True)
        except Exception as error:  # as above
            return sentence_of(error)
        for old in [key for key in self._drawn if isinstance(key, str)]:
            del self._drawn[old]
        key, fields = self._reader.take(f"your own: {name}", picture), self._fields()
        listed = fields["picture"]
        own = {"values": [*listed.values, key], "texts": [*listed.texts, self._reader.read(key)[0]]}
        fields["picture"] = replace(listed, **own)
        self.panel.unobserve(self._moved, names=["values"])  # it is being answered
        self.panel.say(fields=as_dicts(fields), values={**self.panel.values, "picture": key})
        self.panel.observe(self._moved, names=["values"])
        return ""

    def _drawn_picture(self, picture: int | str) -> str:
        if picture not in self._drawn:
            name, pixels = self._reader.read(picture)
            self._drawn[picture] = picture_html(pixels, name)
        return self._drawn[picture]

    def _file(self) -> tuple[str, bytes]:
        asked = self.panel.values
        words, template, picture = words_in(asked["words"]), _one_template(asked["template"]), asked["picture"]
        feature, embeddings = finished(self._reader.features(picture, _texts(words, template)))
        taus = list(zip(self._written([asked["temperature"]]), [asked["temperature"]], strict=True))
        true, facts = [self._reader.true_word(picture, words)], {**self._facts, "template": template}
        shown, cosines = [self._reader.read(picture)], feature @ embeddings.T
        figure = temperatures_figure(shown, words, cosines, taus, **self.page, true=true, facts=facts)
        return "zero_shot.png", figure.to_png()

    def _note(self, words: Sequence[str], texts: Sequence[str]) -> str:
        """What CLIP reads, and which words are no names that it says it knows."""
        new = unknown_names(self.clip, words)
        several = f"{', '.join(new[:5])}{' …' if len(new) > 5 else ''}"
        note = f" Not the name of a thing that it was trained on: {several}." if new else ""
        return f"CLIP reads “{texts[0]}” and so on.{note}"


def _one_template(template: str) -> str:
    """A template with its place as "{}"; neither "single" nor "ensemble" is one."""
    return template_list([template])[0]


def _texts(words: Sequence[str], template: str) -> list[str]:
    return [filled_in(template, word) for word in words]
