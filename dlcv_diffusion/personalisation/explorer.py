"""Any prompt, with learnt words or without, any guidance: a text-to-image model to play with."""

import base64
import html
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import ipywidgets
import numpy as np
import torch
from einops import repeat
from torch import Tensor

from ..errors import check
from ..figures import ReportFigure, describe, image_grid, png_bytes, tile
from ..guidance import guidance_weight, guided
from ..models.text_to_image import TextToImage, as_text_to_image
from ..noise import checked_seeds, seeded_noise
from ..recent import Recent
from ..samplers import Step, dpm_solver
from ..widgets.live import Live, in_words

TYPING = 0.3  # seconds without a key before a prompt is drawn
BETWEEN_DRAFTS = 0.12  # seconds: a draft has to be decoded
SCALES = (1.0, 10.0, 0.5)  # first, last and step of the guidance scale's slider
WIDEST = 560  # screen pixels of the pictures
MOST_SEED = 2**32 - 1_000


def prompt_explorer(
    model: Any,
    prompt: str = "a fox",
    *,
    words: Sequence[str] | None = None,
    seed: int = 0,
    scale: float = 3.0,
    count: int = 4,
    steps: int = 15,
    still: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
    facts: dict[str, Any] | None = None,
) -> "PromptExplorer":
    """Type a prompt, choose guidance and seed, and see what the model draws; buttons put learnt words into the prompt.

    - model: a `TextToImage`, or a `StableDiffusionPipeline` of diffusers. prompt: the first one.
    - words: those that have a button, by default what `load_concepts` added.
    - seed: of the first picture; the others take the next ones. scale: Stable Diffusion's guidance scale, 1 … 10.
    - count: pictures, 1 … 8. steps: of DPM-Solver++. still: prompts of the still picture, by default the first alone.
    - title, caption, facts: of the still picture and below the live one.

    Raises `UserError` for a prompt that is too long, and for numbers out of range.

    >>> prompt_explorer(sd, "a <new1> on a blue background")   # doctest: +SKIP
    """
    sd = as_text_to_image(model)
    low, high, _ = SCALES
    check(low <= scale <= high, f"the guidance scale is {scale:g}; choose one from {low:g} to {high:g}")
    check(1 <= count <= 8 and steps >= 1, f"{count} pictures of {steps} steps; give 1 to 8, and 1 step or more")
    for name, given in (("still", still), ("words", words)):
        check(not isinstance(given, str), f"{name} is a list of texts, such as {name}=[{given!r}]")
    seed = checked_seeds([seed])[0]
    check(seed <= MOST_SEED, f"the seed is {seed}; the pictures take the next ones too, so choose at most {MOST_SEED}")
    prompts = [prompt, *(still or [prompt])]
    sd.tokens(prompts)  # what cannot be read is found out now
    words = learnt_words(sd) if words is None else list(words)
    page, facts = {"title": title, "caption": caption}, dict(facts or {})
    return PromptExplorer(sd, prompts[0], prompts[1:], words, seed, scale, count, steps, page, facts)


def learnt_words(sd: TextToImage) -> list[str]:
    """The words that were added to a model, each once, however many vectors it has.

    >>> learnt_words(sd)   # doctest: +SKIP
    ['<new1>', '<new2>']
    """
    special = set(sd.tokenizer.all_special_tokens)
    added = [token for token in sd.tokenizer.added_tokens_encoder if token not in special]
    return [token for token in added if not _is_further(token, added)]


def _is_further(token: str, added: Sequence[str]) -> bool:
    first, _, number = token.rpartition("_")
    return number.isdecimal() and first in added


class PromptExplorer(Live):
    """What `prompt_explorer` makes; `picture` computes what it shows."""

    def __init__(
        self,
        sd: TextToImage,
        prompt: str,
        still: Sequence[str],
        words: Sequence[str],
        seed: int,
        scale: float,
        count: int,
        steps: int,
        page: dict[str, str],
        facts: dict[str, Any],
    ) -> None:
        self.sd, self.prompt, self.prompts, self.words = sd, prompt, list(still), list(words)
        self.seed, self.scale, self.count, self.steps = seed, scale, count, steps
        self._page, self._facts = page, {"model": sd.name, "steps": steps, **facts}
        self._pictures, self._typed, self._last = Recent(64), False, ""

    def picture(self, prompt: str, seed: int, scale: float) -> Tensor:
        """The finished pictures, uint8 (count, 3, H, W), as the live view shows them. They are kept: for a model that
        has changed since, such as by `load_concepts`, make a new explorer.

        >>> explorer.picture("a <new1>", seed=0, scale=3.0).shape   # doctest: +SKIP
        torch.Size([4, 3, 64, 64])
        """
        for _ in self._steps(prompt, seed, scale):
            pass
        return self._pictures[prompt, seed, scale]

    def _steps(self, prompt: str, seed: int, scale: float) -> Iterator[Step]:
        """Draw, unless it is kept; the steps of the sampler on the way."""
        if (prompt, seed, scale) in self._pictures:
            return
        condition = self.sd.encode_prompts([prompt]).expand(self.count, -1, -1)
        noise = seeded_noise((self.count, *self.sd.shape), range(seed, seed + self.count), self.sd.device)
        for step in dpm_solver(guided(self.sd, condition, guidance_weight(scale)), noise, steps=self.steps):
            yield step
        self._pictures[prompt, seed, scale] = self.sd.decode(step.x)

    @cached_property
    def still(self) -> ReportFigure:
        """A row for each of the still prompts, all of the first seeds."""
        rows = torch.cat([self.picture(prompt, self.seed, self.scale) for prompt in self.prompts])
        facts = self._all_facts(self.seed, self.scale)
        return image_grid(rows, columns=self.count, row_labels=self.prompts, **self._page, facts=facts)

    def _all_facts(self, seed: int, scale: float) -> dict[str, Any]:
        seeds = str(seed) if self.count == 1 else f"{seed} … {seed + self.count - 1}"
        return {**self._facts, "guidance scale": f"{scale:g}", "seeds": seeds}

    @property
    def controls(self) -> dict[str, ipywidgets.Widget]:
        """What is typed into and moved in the live view: prompt, scale, seed.

        >>> explorer.controls["prompt"].value = "an owl"   # doctest: +SKIP
        """
        self.widget  # noqa: B018 - built when it is first asked for
        return {"prompt": self._prompt, "scale": self._scale, "seed": self._seed}

    @cached_property
    def widget(self) -> ipywidgets.VBox:
        """The live view: a box of controls, pictures and words."""
        self._join_loop()
        wide = {"layout": {"width": "auto", "max_width": "640px"}, "style": {"description_width": "13ch"}}
        half = {**wide, "layout": {"width": "430px", "max_width": "100%"}}
        self._prompt = ipywidgets.Text(self.prompt, description="prompt", tooltip="what is drawn", **wide)
        low, high, step = SCALES
        said = {"description": "guidance scale", "tooltip": "how much the prompt counts; 1: no guidance"}
        self._scale = ipywidgets.FloatSlider(
            self.scale, min=low, max=high, step=step, readout_format=".1f", **said, **half
        )
        said = {"description": "seed", "tooltip": "of the first picture's noise"}
        self._seed = ipywidgets.BoundedIntText(self.seed, min=0, max=MOST_SEED, **said, **half)
        self._prompt.observe(self._on_typing, names="value")
        for control in (self._scale, self._seed):
            control.observe(self._moved, names="value")
        buttons = [self._button(word) for word in self.words]
        other = ipywidgets.Button(description="other noise", tooltip="the next seeds", layout={"width": "auto"})
        other.on_click(lambda _: setattr(self._seed, "value", self._seed.value + self.count))
        self._image, self._line = ipywidgets.HTML(), ipywidgets.HTML(layout={"min_height": "2em"})
        for _ in self._show(drafts=False):
            pass
        title = [ipywidgets.HTML(f"<b>{html.escape(self._page['title'])}</b>")] if self._page["title"] else []
        row = {"layout": {"flex_flow": "row wrap"}}
        learnt = [ipywidgets.HBox([ipywidgets.HTML("learnt words:&nbsp;"), *buttons], **row)] if buttons else []
        rows = [ipywidgets.HBox([self._scale], **row), ipywidgets.HBox([self._seed, other], **row)]
        return ipywidgets.VBox([*title, self._prompt, *learnt, *rows, self._image, self._line])

    def _button(self, word: str) -> ipywidgets.Button:
        """Puts a word at the prompt's end."""
        button = ipywidgets.Button(description=word, tooltip=f"put {word} into the prompt", layout={"width": "auto"})
        button.on_click(lambda _: setattr(self._prompt, "value", f"{self._prompt.value.rstrip()} {word}".lstrip()))
        return button

    def _on_typing(self, change: Any) -> None:
        self._typed = True
        self._moved()

    def _show(self, drafts: bool = True) -> Iterator[float | None]:
        """Draw the prompt where the controls stand; yields after every step of the sampler."""
        if self._typed:
            self._typed = False
            yield TYPING
        try:
            prompt, seed, scale = self._prompt.value.strip(), self._seed.value, self._scale.value
            words, shown = self._note(prompt), time.monotonic()
            for number, step in enumerate(self._steps(prompt, seed, scale), start=1):
                if drafts and number < self.steps and time.monotonic() - shown > BETWEEN_DRAFTS:
                    self._send(self.sd.decode(step.x0), prompt, f"{words} · step {number} of {self.steps}")
                    shown = time.monotonic()
                yield None
            facts = describe(self._all_facts(seed, scale))
            said = f"{self._page['caption'].rstrip('. ')}. " if self._page["caption"] else ""
            self._send(self._pictures[prompt, seed, scale], prompt, f"{said}{words}. {facts}")
        except Exception as error:  # ipywidgets would swallow it, and the controls would seem dead
            self._image.value = self._last.replace("opacity:1", "opacity:.4")
            self._line.value = _line(f"⚠ {in_words(error)}", "alert")

    def _note(self, prompt: str) -> str:
        """How the prompt is read, token by token: a word in pieces is one that the model does not know."""
        pieces = self.sd.tokenizer.tokenize(prompt)
        read = " · ".join(piece.removesuffix("</w>") for piece in pieces) or "nothing: the empty prompt"
        return f"read as {read}"

    def _send(self, images: Tensor, prompt: str, words: str) -> None:
        picture = np.asarray(tile(images, min(self.count, 4)))
        zoom = max(1, WIDEST // picture.shape[1])
        source = base64.b64encode(png_bytes(repeat(picture, "h w c -> (h down) (w across) c", down=zoom, across=zoom)))
        alt = html.escape(f"{self.count} pictures of the prompt: {prompt}", quote=True)
        style = f"width:{picture.shape[1] * zoom}px;max-width:100%;margin:4px 0;opacity:1"
        self._last = f'<img alt="{alt}" src="data:image/png;base64,{source.decode()}" style="{style}">'
        self._image.value, self._line.value = self._last, _line(words)


def _line(words: str, role: str = "status") -> str:
    return f'<div role="{role}" style="line-height:1.4;max-width:640px">{html.escape(words)}</div>'
