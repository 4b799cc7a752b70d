"""Any prompt, with learnt words or without, any guidance: a text-to-image model to play with."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import check
from ..figures import ReportFigure, describe, enlarged, image_grid, png_bytes, png_size, tile
from ..guidance import guidance_weight, guided
from ..models.text_to_image import TextToImage, as_text_to_image
from ..noise import checked_seeds, seeded_noise
from ..recent import Recent
from ..samplers import Step, dpm_solver
from ..widgets.live import Live, captioned, hinted, sentence_of
from ..widgets.panel import Field

TYPING = 0.3  # seconds without a key before a prompt is drawn
DRAFT_STEPS = 5
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
        self.page, self._facts = page, {"model": sd.name, "steps": steps, **facts}
        self._pictures, self._typed = Recent(64), prompt

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
        for step in self._sampled(prompt, seed, scale, self.steps):
            yield step
        self._pictures[prompt, seed, scale] = self.sd.decode(step.x)

    def _sampled(self, prompt: str, seed: int, scale: float, steps: int) -> Iterator[Step]:
        condition = self.sd.encode_prompts([prompt]).expand(self.count, -1, -1)
        noise = seeded_noise((self.count, *self.sd.shape), range(seed, seed + self.count), self.sd.device)
        return dpm_solver(guided(self.sd, condition, guidance_weight(scale)), noise, steps=steps)

    @cached_property
    def still(self) -> ReportFigure:
        """A row for each of the still prompts, all of the first seeds."""
        rows = torch.cat([self.picture(prompt, self.seed, self.scale) for prompt in self.prompts])
        facts = self._all_facts(self.seed, self.scale)
        words = {**self.page, "caption": hinted(self.page["caption"])}
        return image_grid(rows, columns=self.count, row_labels=self.prompts, **words, facts=facts)

    def _all_facts(self, seed: int, scale: float) -> dict[str, Any]:
        return {**self._facts, "guidance scale": float(scale), "seeds": range(seed, seed + self.count)}

    # --- the live view ------------------------------------------------------------------------------------

    def _fields(self) -> dict[str, Field]:
        low, high, step = SCALES
        scales = [low + step * i for i in range(round((high - low) / step) + 1)]
        scales = sorted({*scales, self.scale})
        seeds = [*range(20), *([self.seed] if self.seed >= 20 else [])]
        return {
            "prompt": Field(kind="text", label="prompt", hint="what is drawn", insert=self.words),
            "scale": Field(
                kind="range", label="guidance scale", values=scales, texts=[f"{s:g}" for s in scales], play=True
            ),
            "seed": Field(
                kind="range",
                label="seed of the first",
                values=seeds,
                texts=[*map(str, seeds)],
                most=MOST_SEED,
                whole=True,
                random=True,
            ),
        }

    def _start(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "scale": self.scale, "seed": self.seed}

    def _show(self, drafts: bool = True) -> Iterator[float | None]:
        """Draw the prompt where the controls stand; yields after every step of the sampler."""
        panel = self.panel
        asked, moved = dict(panel.values), panel.moved
        before, self._typed = self._typed, asked["prompt"]
        panel.answered = moved
        if drafts and self._typed != before:
            panel.state = "busy"
            yield TYPING
        try:
            key = prompt, seed, scale = asked["prompt"].strip(), int(asked["seed"]), float(asked["scale"])
            if key not in self._pictures and drafts:
                self.sd.tokens([prompt])  # what cannot be read is found out now
                panel.say(state="busy", line="drawing …")
                if self.steps >= 2 * DRAFT_STEPS:
                    for step in self._sampled(prompt, seed, scale, DRAFT_STEPS):
                        guess = step.x
                        yield None
                    self._send(key, self.sd.decode(guess), state="draft", line="a draft, drawing …")
            for number, _ in enumerate(self._steps(prompt, seed, scale), start=1):
                if drafts and number % 4 == 0:
                    panel.steps = f"step {number} of {self.steps}"
                yield None
            self._send(key, self._pictures[key], state="done", line=self._note(prompt))
        except Exception as error:  # ipywidgets would swallow it, and the controls would seem dead
            panel.say(answered=moved, state="error", line=sentence_of(error))

    def _note(self, prompt: str) -> str:
        """How the prompt is read, token by token: a word in pieces is one that the model does not know."""
        pieces = self.sd.tokenizer.tokenize(prompt)
        read = " · ".join(piece.removesuffix("</w>") for piece in pieces) or "nothing: the empty prompt"
        return f"read as {read}"

    def _send(self, key: tuple[str, int, float], images: Tensor, **said: str) -> None:
        prompt, seed, scale = key
        picture = np.asarray(tile(images, min(self.count, 4)))
        zoom = max(1, WIDEST // picture.shape[1])
        png = png_bytes(enlarged(picture, zoom))
        facts = describe(self._all_facts(seed, scale))
        self.panel.say(
            picture=png,
            size=[*png_size(png).values()],
            alt=f"{self.count} picture{'s' if self.count > 1 else ''} of the prompt: {prompt}",
            facts=captioned(self.page["caption"], facts),
            code=f"explorer.picture({prompt!r}, seed={seed}, scale={scale:g})",
            **said,
        )
        self._shown = key, images

    def _file(self) -> tuple[str, bytes]:
        (prompt, seed, scale), images = self._shown
        facts = {"prompt": prompt, **self._all_facts(seed, scale)}
        return f"prompt_seed={seed}.png", image_grid(
            images, columns=min(self.count, 4), **self.page, facts=facts
        ).to_png()
