"""Any words, any picture, any temperature: zero-shot classification to play with."""

import html
import io
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError, check
from ..evaluation.encoder import finite
from ..figures import ReportFigure, describe
from ..images.pictures import open_picture
from ..models.clip import Clip
from ..recent import Recent
from ..widgets.live import Live, in_words
from .bars import bars_html, line_html, picture_html, small_html, warning_html
from .classify import state_of
from .figures import temperatures_figure
from .pictures import Pictures
from .templates import filled_in, template_list
from .words import bare, first_words, own_template, unknown_words, words_in

TYPING = 0.1  # seconds without a key before words are read
STEP = 0.02  # of the temperature's slider, in decades
TEXTS = 8  # texts encoded before the next move is looked for
MOST_PICTURES = 100
COOLER_AND_HOTTER = (1, 4, 16)
GIVE = "upload a PNG, JPEG or WebP"
CAPTION = (
    "p = softmax(cos / τ). Blue: the true class. Orange: read instead of it. "
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
    the first three pictures, at a few temperatures each.

    - pictures: up to 100 to choose from; the first is shown first. words: a list, or a text with commas, by default the
      pictures' classes. template: what CLIP reads, with {} for the word, by default one that suits the model.
    - temperature: τ > 0 where the slider starts, by default the model's own. still: temperatures of the still picture.
    - title, caption, facts: of the still picture and below the live one.

    Raises `UserError` for fewer than two words, one that is there twice or too long for the model, a template without
    a place for the word, a temperature that is not above 0, and more than 100 pictures.

    >>> pictures = load_pictures("emoji").subset(range(12))                          # doctest: +SKIP
    >>> zero_shot_explorer(load_clip("emoji"), pictures, "a fox, an owl, a castle")  # doctest: +SKIP
    """
    fits = len(pictures) <= MOST_PICTURES
    check(fits, f"{len(pictures)} pictures are too many to choose from; give some: pictures.subset(range(20))")
    template = template_list(template or own_template(clip))[0]
    words = first_words(pictures, template) if words is None else words
    words = words_in(words if isinstance(words, str) else "\n".join(words))
    own = clip.temperature
    start = own if temperature is None else temperature
    still = [factor * own for factor in COOLER_AND_HOTTER] if still is None else list(still)
    wrong = next((value for value in (start, *still) if not 0 < value < math.inf), None)
    check(wrong is None, f"the temperature is {wrong}; it must be above 0")
    return ZeroShotExplorer(clip, pictures, words, template, start, still, title, caption, dict(facts or {}))


class ZeroShotExplorer(Live):
    """What `zero_shot_explorer` makes; `probabilities` computes what it shows.

    >>> explorer.probabilities(0, ["fox", "owl"], "A photo of a {}.", 0.01)   # doctest: +SKIP
    tensor([0.9820, 0.0180])
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
        self.temperature, self.temperatures = temperature, still
        self._page, self._facts = {"title": title, "caption": caption}, {"model": clip.name, **facts}
        self._kept = Recent(1024)  # features (D,) by what was encoded
        self._own: dict[str, tuple[str, Image.Image]] = {}  # the picture that was uploaded last
        self._typed, self._shown = False, None
        for _ in self._encode_texts(self._texts(words, template)):
            pass

    # --- what is computed ---------------------------------------------------------------------------------

    def probabilities(self, picture: int | str, words: Sequence[str], template: str, temperature: float) -> Tensor:
        """(K,) float64: softmax(cos / τ) of a picture, by its row, over K words. Everything encoded is kept."""
        for _ in self._encode_texts(self._texts(words, template)):
            pass
        return _softmax(self._cosines(picture, self._texts(words, template)), temperature)

    def _texts(self, words: Sequence[str], template: str) -> list[str]:
        return [filled_in(template, word) for word in words]

    def _encode_texts(self, texts: Sequence[str]) -> Iterator[None]:
        """Encode the texts that are new, some at a time, and yield after each."""
        state = state_of(self.clip)
        new = [text for text in dict.fromkeys(texts) if (text, state) not in self._kept]
        for first in range(0, len(new), TEXTS):
            some = new[first : first + TEXTS]
            for text, feature in zip(some, self.clip.encode_texts(some).cpu(), strict=True):
                self._kept[text, state] = feature
            yield

    def _cosines(self, picture: int | str, texts: Sequence[str]) -> Tensor:
        """(K,) float64, of texts that were encoded."""
        state = state_of(self.clip)
        if (picture, state) not in self._kept:
            features = self.clip.encode_images([self._read(picture)[1]])
            self._kept[picture, state] = finite(features, "CLIP's features")[0].cpu()
        texts = torch.stack([self._kept[text, state] for text in texts])
        return (texts @ self._kept[picture, state]).double()

    def _read(self, picture: int | str) -> tuple[str, Image.Image]:
        """A picture's name and itself: a row of those given, or the one that was uploaded."""
        return self._own[picture] if isinstance(picture, str) else (self._label(picture), self.pictures.read(picture))

    def _label(self, row: int) -> str:
        return f"{self.pictures.files[row]}: {self._class(row)}"

    def _class(self, row: int) -> str:
        return self.pictures.classes[int(self.pictures.labels[row])]

    def _true(self, picture: int | str, words: Sequence[str]) -> str | None:
        """The word that names the picture's class, where it is known and there."""
        if isinstance(picture, str):
            return None
        return next((word for word in words if bare(word) == bare(self._class(picture))), None)

    @cached_property
    def still(self) -> ReportFigure:
        """The first three pictures at some temperatures; the words are the same throughout."""
        rows, texts = range(min(3, len(self.pictures))), self._texts(self.words, self.template)
        cosines = torch.stack([self._cosines(row, texts) for row in rows])
        named = {self._written(value): value for value in self.temperatures}
        pictures = dict(self._read(row) for row in rows)
        true = [self._true(row, self.words) for row in rows]
        facts = {**self._facts, "template": self.template}
        return temperatures_figure(pictures, self.words, cosines, named, **self._page, true=true, facts=facts)

    def _written(self, temperature: float) -> str:
        return f"τ = {temperature:.3g}{', as learnt' if self._is_own(temperature) else ''}"

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
        options = [(self._label(row), row) for row in range(len(self.pictures))]
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

    def _on_typing(self, change: Any) -> None:
        self._typed = True
        self._moved()

    def _on_upload(self, change: Any) -> None:
        """Take the picture in, and choose it; one that cannot be read changes nothing."""
        if not change.new:
            return
        name = change.new[-1]["name"]
        try:
            picture = open_picture(io.BytesIO(change.new[-1]["content"]), GIVE, name, upright=True)
        except UserError as error:
            self._line.value = warning_html(str(error))
            return
        key = f"upload {id(picture)}"
        self._own = {key: (f"your own: {name}", picture)}
        self._choice.unobserve(self._moved, names="value")  # new options choose the first of them on the way
        self._choice.options = [*self._choice.options[: len(self.pictures)], (self._own[key][0], key)]
        self._choice.value = key
        self._choice.observe(self._moved, names="value")
        self._moved()

    def _show(self) -> Iterator[float | None]:
        """Answer: first the picture, then its bars; yields where a later move may take over."""
        if self._typed:
            self._typed = False
            yield TYPING
        try:
            picture, temperature = self._choice.value, self._slider.value
            self._reset.disabled = self._is_own(temperature)
            self._show_picture(picture)
            words, template = words_in(self._words.value), template_list(self._template.value)[0]
            texts = self._texts(words, template)
            yield from self._encode_texts(texts)
            cosines = self._cosines(picture, texts)
            probabilities = _softmax(cosines, temperature).tolist()
            self._shown = (words, cosines.tolist(), probabilities, self._true(picture, words))
            self._bars.value = bars_html(*self._shown)
            self._line.value = self._note(words, texts)
            facts = describe({**self._facts, "template": template, "τ": f"{temperature:.3g}"})
            self._below.value = small_html(f"{self._page['caption'].rstrip('. ')}. {facts}")
        except Exception as error:  # ipywidgets would swallow it, and the controls would seem dead
            self._line.value = warning_html(in_words(error))
            if self._shown:
                self._bars.value = bars_html(*self._shown, faded=True)

    def _show_picture(self, picture: int | str) -> None:
        if (picture, "html") not in self._kept:
            name, pixels = self._read(picture)
            self._kept[picture, "html"] = picture_html(pixels, name)
        self._picture.value = self._kept[picture, "html"]

    def _note(self, words: Sequence[str], texts: Sequence[str]) -> str:
        """What CLIP reads, and which words it was not trained on."""
        new = unknown_words(self.clip, words)
        several = f"{', '.join(new[:5])}{' …' if len(new) > 5 else ''}"
        note = f" Not among the things that it was trained on: {several}." if new else ""
        return line_html(f"CLIP reads “{texts[0]}” and so on.{note}")


def _softmax(cosines: Tensor, temperature: float) -> Tensor:
    return (cosines / temperature).softmax(0)
