"""Any words, any picture, any temperature: zero-shot classification to play with."""

import html
import io
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import ipywidgets
from torch import Tensor

from ..errors import check
from ..figures import ReportFigure, describe
from ..images.pictures import open_picture
from ..models.clip import Clip
from ..recent import Recent
from ..widgets.live import Live, in_words
from .bars import bars_html, line_html, picture_html, small_html, warning_html
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
        self._page, self._facts = {"title": title, "caption": caption}, {"model": clip.name, **facts}
        self._reader, self._drawn = Reader(clip, pictures), Recent(MOST_PICTURES)  # HTML by picture
        self._uploaded: deque[dict[str, Any]] = deque(maxlen=1)  # the file that was not looked at yet
        self._typed, self._shown = False, None
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
        page, facts = dict(self._page), {**self._facts, "template": self.template}
        if refused:
            page["caption"] = f"{page['caption'].rstrip('. ')}. Left out, since not to be read: {', '.join(refused)}"
        taus = list(zip(self._written(self.temperatures), self.temperatures, strict=True))
        return temperatures_figure(pictures, self.words, cosines, taus, **page, true=true, facts=facts)

    def _written(self, temperatures: Sequence[float]) -> list[str]:
        """Temperatures in as many digits as it takes to tell them apart, three or more."""
        different = len(set(temperatures))
        digits = next((n for n in range(3, 17) if len({f"{value:.{n}g}" for value in temperatures}) == different), 17)
        return [f"τ = {value:.{digits}g}{', as learnt' if self._is_own(value) else ''}" for value in temperatures]

    @property
    def controls(self) -> dict[str, ipywidgets.Widget]:
        """What is typed into, chosen from and moved in the live view: words, template, picture, temperature.

        >>> explorer.controls["words"].value = "a fox, a wolf"   # doctest: +SKIP
        """
        self.widget  # noqa: B018 - built when it is first asked for
        found = (self._words, self._template, self._choice, self._slider)
        return dict(zip(("words", "template", "picture", "temperature"), found, strict=True))

    # --- the live view ------------------------------------------------------------------------------------

    @cached_property
    def widget(self) -> ipywidgets.VBox:
        """The live view: a box of controls, picture, bars and words."""
        self._join_loop()
        wide = {"layout": {"width": "auto", "max_width": "640px"}, "style": {"description_width": "13ch"}}
        half = {**wide, "layout": {"width": "430px", "max_width": "100%"}}
        self._words = ipywidgets.Textarea(
            ", ".join(self.words), description="words", rows=2, tooltip="words, with commas between them", **wide
        )
        said = "what CLIP reads; {} is where the word goes"
        self._template = ipywidgets.Text(self.template, description="template", tooltip=said, **wide)
        options = [(self._reader.label(row), row) for row in range(len(self.pictures))]
        self._choice = ipywidgets.Dropdown(options=options, description="picture", tooltip="the picture", **half)
        self._upload = ipywidgets.FileUpload(
            accept="image/*", description="upload your own", tooltip=GIVE, layout={"width": "auto"}
        )
        self._slider = self._log_slider(half)
        own = f"as learnt, τ = {self.clip.temperature:.3g}"
        self._reset = ipywidgets.Button(description=own, tooltip="back to the model's own", layout={"width": "auto"})
        for text in (self._words, self._template):
            text.observe(self._on_typing, names="value")
        for control in (self._choice, self._slider):
            control.observe(self._moved, names="value")
        self._upload.observe(self._on_upload, names="value")
        self._reset.on_click(lambda _: setattr(self._slider, "value", self.clip.temperature))
        self._picture = ipywidgets.HTML(layout={"margin": "8px 16px 0 0"})
        self._bars = ipywidgets.HTML(
            layout={"margin": "4px 0 0", "flex": "1 1 300px", "min_width": "0", "max_width": "560px"}
        )
        self._line, self._below = ipywidgets.HTML(layout={"min_height": "2em"}), ipywidgets.HTML()
        for _ in self._show():
            pass
        title = [ipywidgets.HTML(f"<b>{html.escape(self._page['title'])}</b>")] if self._page["title"] else []
        rows = [(self._choice, self._upload), (self._slider, self._reset), (self._picture, self._bars)]
        rows = [ipywidgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in rows]
        return ipywidgets.VBox([*title, self._words, self._template, *rows, self._line, self._below])

    def _log_slider(self, layout: dict[str, Any]) -> ipywidgets.FloatLogSlider:
        """A slider whose positions are 2 % of a decade apart; one of them is the model's own temperature."""
        own, first = math.log10(self.clip.temperature), math.log10(self.temperature)
        low = own - STEP * math.ceil((own - min(-3.0, own, first)) / STEP)
        words = {"description": "temperature τ", "tooltip": "the temperature τ", "readout_format": ".3g"}
        high = max(1.0, own, first)
        return ipywidgets.FloatLogSlider(self.temperature, min=low, max=high, step=STEP, **words, **layout)

    def _is_own(self, temperature: float) -> bool:
        return math.isclose(temperature, self.clip.temperature, rel_tol=1e-4)

    # --- handlers: called in any thread, so they only take a note ------------------------------------------

    def _on_typing(self, change: Any) -> None:
        self._typed = True
        self._moved()

    def _on_upload(self, change: Any) -> None:
        if change.new:
            self._uploaded.append(change.new[-1])
            self._moved()

    # --- the answer: steps in the thread of the cells -------------------------------------------------------

    def _show(self) -> Iterator[float | None]:
        """Answer: first the picture, then its bars; yields where a later move may take over."""
        if self._typed:
            self._typed = False
            yield TYPING
        refused = self._take_upload()
        if refused:
            self._line.value = warning_html(refused)
        try:
            picture, temperature = self._choice.value, self._slider.value
            self._reset.disabled = self._is_own(temperature)
            self._show_picture(picture)
            words, template = words_in(self._words.value), _one_template(self._template.value)
            texts = _texts(words, template)
            feature, embeddings = yield from self._reader.features(picture, texts)
            probabilities = scores(self.clip, feature, embeddings, temperature)[0].tolist()
            cosines = (feature @ embeddings.T)[0].tolist()
            self._shown = (words, cosines, probabilities, self._reader.true_word(picture, words))
            self._bars.value = bars_html(*self._shown)
            self._line.value = warning_html(refused) if refused else self._note(words, texts)
            facts = describe({**self._facts, "template": template, "τ": f"{temperature:.3g}"})
            self._below.value = small_html(f"{self._page['caption'].rstrip('. ')}. {facts}")
        except Exception as error:  # ipywidgets would swallow it, and the controls would seem dead
            self._line.value = warning_html("; ".join(said for said in (refused, in_words(error)) if said))
            if self._shown:
                self._bars.value = bars_html(*self._shown, faded=True)

    def _take_upload(self) -> str:
        """Choose the picture that was uploaded last; one that cannot be read changes nothing, and it is said why."""
        if not self._uploaded:
            return ""
        file = self._uploaded.pop()
        try:
            picture = open_picture(io.BytesIO(file["content"]), GIVE, file["name"], upright=True)
            for old in [key for key in self._drawn if isinstance(key, str)]:
                del self._drawn[old]
            key = self._reader.take(f"your own: {file['name']}", picture)
            self._choice.unobserve(self._moved, names="value")  # new options choose the first of them on the way
            self._choice.options = [*self._choice.options[: len(self.pictures)], (self._reader.read(key)[0], key)]
            self._choice.value = key
            self._choice.observe(self._moved, names="value")
        except Exception as error:  # as above
            return in_words(error)
        finally:
            self._upload.value = ()  # or the same file again would be no change
        return ""

    def _show_picture(self, picture: int | str) -> None:
        if picture not in self._drawn:
            name, pixels = self._reader.read(picture)
            self._drawn[picture] = picture_html(pixels, name)
        self._picture.value = self._drawn[picture]

    def _note(self, words: Sequence[str], texts: Sequence[str]) -> str:
        """What CLIP reads, and which words are no names that it says it knows."""
        new = unknown_names(self.clip, words)
        several = f"{', '.join(new[:5])}{' …' if len(new) > 5 else ''}"
        note = f" Not the name of a thing that it was trained on: {several}." if new else ""
        return line_html(f"CLIP reads “{texts[0]}” and so on.{note}")


def _one_template(template: str) -> str:
    """A template with its place as "{}"; neither "single" nor "ensemble" is one."""
    return template_list([template])[0]


def _texts(words: Sequence[str], template: str) -> list[str]:
    return [filled_in(template, word) for word in words]
