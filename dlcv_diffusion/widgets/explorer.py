"""The picture that sliders choose, drawn without ever lagging behind them (`live`)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from einops import rearrange

from ..errors import check
from ..figures import ReportFigure, describe, enlarged, image_grid, png_bytes, png_size, tile
from ..recent import Recent
from .controls import Control
from .live import Live, captioned, hinted, plain, sentence_of
from .panel import Field

WIDEST, TALLEST = 700, 360  # screen pixels of a live picture
IDLE = 0.02  # seconds without a move, after which the draft of the next one is drawn
BETWEEN_DRAFTS = 0.1  # seconds: what comes faster is not shown, since encoding it takes time, too
LATE = 0.6  # of a sampler's steps: its x̂0 before them is nearer to the mean of all pictures than to its own
DRAWING = "drawing …"
Picture = Any  # images (N, C, H, W) or (C, H, W): uint8, or float in [-1, 1]
Draw = Callable[..., Picture | Iterator[Any] | tuple[Iterator[Any], int]]


class Explorer(Live):
    """Sliders, and the picture that they choose; every explorer is made of it.

    - draw: called with one keyword for each control, returns images (N, C, H, W) or (C, H, W) of one size; or an
      iterator of such images, each better than the one before; or a sampler, whose x is shown at the end, and x̂0 in the
      last two fifths of its steps; or a pair: one of these two, and how many steps it takes.
    - controls: by keyword. describe: words below the picture, called as `draw` is.
    - still: positions of the still picture, one value or, with several controls, a tuple each; by default the start.
    - draft: as `draw`, and quicker: it is shown until the picture itself is there. code: called as `draw`, gives Python
      that makes the picture again. facts_at: as well, the facts of a position, beside `facts` and the controls' values.
    - columns: images a row. zoom: screen pixels an image pixel. cache: how many pictures are kept.
    - words: title, caption and facts of the still picture, as in `image_grid`; live they stand around the picture, too.

    What `draw` raises, and what cannot be shown, becomes a sentence below the picture.

    >>> controls = {"grey": Control([0, 255], "level of grey")}
    >>> explorer = Explorer(lambda grey: np.full((3, 8, 8), grey, np.uint8), controls, still=[0, 255])
    >>> explorer.picture(255).shape
    (8, 8, 3)
    """

    def __init__(
        self,
        draw: Draw,
        controls: Mapping[str, Control],
        still: Sequence[Any],
        *,
        describe: Callable[..., str] | None = None,
        draft: Draw | None = None,
        code: Callable[..., str] | None = None,
        facts_at: Callable[..., Mapping[str, Any]] | None = None,
        columns: int | None = None,
        zoom: int | None = None,
        cache: int = 128,
        **words: Any,
    ) -> None:
        self.controls, self.pictures = dict(controls), Recent(cache)
        still = [tuple(chosen) if len(controls) > 1 else (chosen,) for chosen in still]
        start = tuple(control.start for control in controls.values())
        self.still_positions = [self._position(chosen) for chosen in still or [start]]
        self._draw, self._draft, self._describe, self._code, self._facts_at = draw, draft, describe, code, facts_at
        self._columns, self._zoom, self._words = columns, zoom, words
        self._drafts, self._last, self._asked_for = Recent(max(cache, 3)), (), ()
        self._stepwise = False
        first, control = next(iter(controls.items()))
        varied = len(control.values) > 1
        self._comparing = f"beside {self._written(first, start)}, where this slider stood first" if varied else ""

    @property
    def page(self) -> Mapping[str, str]:
        return {name: plain(self._words.get(name, "")) for name in ("title", "caption")}

    def picture(self, *position: Any) -> np.ndarray:
        """The finished picture (H, W, 3) at a position, one value for each control."""
        position = self._position(position)
        if position not in self.pictures:
            for _ in self._steps(position):
                pass
        return self.pictures[position]

    def png(self, *position: Any) -> bytes:
        """The live picture at a position, as the browser gets it."""
        return self._png(self.picture(*position))

    @cached_property
    def still(self) -> ReportFigure:
        """The figure of the still positions: a table of two controls, or side by side where they fit, else stacked."""
        panels = np.stack([self.picture(*position) for position in self.still_positions])
        height, width = panels.shape[1:3]
        labels = [self._label(position) for position in self.still_positions]
        if table := self._table():
            layout = dict(zip(("row_labels", "column_labels"), table, strict=True))
        elif width <= 2 * height and len(panels) * width <= WIDEST:
            layout = {"column_labels": labels}
        else:
            layout = {"row_labels": labels, "columns": 1}
        words = {**self._words, "caption": hinted(self._words.get("caption", ""))}
        return image_grid(rearrange(panels, "n h w c -> n c h w"), **layout, **words)

    # --- the live view ------------------------------------------------------------------------------------

    def _fields(self) -> dict[str, Field]:
        return {name: control.field() for name, control in self.controls.items()}

    def _start(self) -> dict[str, Any]:
        return {name: control.start for name, control in self.controls.items()}

    def _show(self, drafts: bool = True) -> Iterator[float | None]:
        """Show the picture where the sliders stand, and yield after every step of a sampler."""
        panel, moved, position = self.panel, self.panel.moved, None
        try:
            position = self._position([panel.values[name] for name in self.controls])
            wanted = [position]
            if panel.compare:
                wanted.insert(0, (next(iter(self.controls.values())).start, *position[1:]))
            found = {each: self.pictures[each] for each in wanted if each in self.pictures}
            missing = dict.fromkeys(each for each in wanted if each not in found)
            before, self._asked_for = self._asked_for, position
            drawn_ahead = position in missing and position in self._drafts
            if drafts and missing and not drawn_ahead:
                panel.say(answered=moved, state="busy", line=DRAWING)
            if drafts and position in missing:
                yield from self._guess(position)
                if position in self._drafts:
                    draft = {"state": "draft", "line": f"a draft, {DRAWING}"}
                    self._send(position, self._corrected(position), answered=moved, **draft)
            for each in missing:
                yield from self._refine(each, drafts and each == position)
                found[each] = self.pictures[each]
            self._send(*(part for each in wanted[::-1] for part in (each, found[each])), answered=moved)
            self._last = position
            if drafts:
                yield from self._guess(position)  # what a draft's error is, see `_corrected`
                if self._stepwise and self._next(before, position) not in self.pictures:
                    yield IDLE
                    yield from self._guess(self._next(before, position))
        except Exception as error:  # ipywidgets would swallow it, and the slider would seem dead
            where = f"{self._label(position)}: " if position else ""
            panel.say(answered=moved, state="error", line=f"{where}{sentence_of(error)}")

    def _guess(self, position: tuple) -> Iterator[None]:
        """Draw a draft, if there is one, and keep it; without one the picture comes all the same."""
        if self._draft is None or position in self._drafts:
            return
        with suppress(Exception):
            drawn, total = self._started(self._draft, position)
            self._stepwise = total > 1  # one that is drawn at one go would hold up the next move
            items: list[Any] = []
            for item in drawn:
                items = [item]
                yield
            for item in items:
                self._drafts[position] = tile(getattr(item, "x", item), self._columns)

    def _next(self, before: tuple, position: tuple) -> tuple:
        """Where the next move leads if it is like the last one; the position itself where there is no such place."""
        onward = []
        for control, was, now in zip(self.controls.values(), before or position, position, strict=True):
            places = [*control.values]
            stride = places.index(now) - places.index(was) if {was, now} <= {*places} else 0
            place = places.index(now) + stride if stride else -1
            onward.append(places[place] if 0 <= place < len(places) else now)
        return tuple(onward)

    def _corrected(self, position: tuple) -> np.ndarray:
        """The draft. If it is nearer to the last draft than that one was to its finished picture: that picture and the
        change between the two drafts, whose errors are alike.
        """
        draft = self._drafts[position].astype(int)
        if self._last in self._drafts and self._last in self.pictures:
            before, finished = self._drafts[self._last].astype(int), self.pictures[self._last].astype(int)
            alike = before.shape == draft.shape == finished.shape
            if alike and np.square(draft - before).sum() < np.square(finished - before).sum():
                draft = finished + draft - before
        return draft.clip(0, 255).astype(np.uint8)

    def _refine(self, position: tuple, drafts: bool) -> Iterator[None]:
        """Draw a picture; say how far it is, and, without a draft, show what is near enough to it."""
        shown, drafts = time.monotonic(), drafts and self._draft is None
        for item, done, total in self._steps(position):
            if done != total and time.monotonic() - shown > BETWEEN_DRAFTS:
                self.panel.steps, shown = f"step {done} of {total or '…'}", time.monotonic()
                if drafts and (done > LATE * total if total else not hasattr(item, "x0")):
                    picture = tile(getattr(item, "x0", item), self._columns)
                    self._send(position, picture, state="draft", line=DRAWING)
            yield

    def _send(
        self, position: tuple, picture: np.ndarray, *beside: Any, state: str = "done", line: str = "", **traits: Any
    ) -> None:
        """Pictures and all the words that belong to them, at once; beside them another position and its picture."""
        named, said, png = self._named(position), {}, self._png(picture)
        if beside:
            other, reference = beside
            said = {"beside": self._png(reference), "beside_label": self._all(other), "beside_alt": self._alt(other)}
        if state == "done":
            line = self._describe(**named) if self._describe else ""
        self.panel.say(
            state=state,
            line=line,
            picture=png,
            size=[*png_size(png).values()],
            alt=self._alt(position),
            label=self._all(position),
            facts=captioned(self.page["caption"], describe(self._facts(position))),
            code=self._code(**named) if self._code else f"explorer.picture({', '.join(map(repr, position))})",
            **said,
            **traits,
        )
        self._shown = position, picture

    def _file(self) -> tuple[str, bytes]:
        position, picture = self._shown
        words = {**self._words, "facts": self._facts(position), "zoom": 1}
        figure = image_grid(rearrange(self._enlarged(picture), "h w c -> 1 c h w"), **words)
        name = "_".join(f"{name}={value}" for name, value in self._named(position).items())
        return f"{name}.png", figure.to_png()

    # --- drawing ------------------------------------------------------------------------------------------

    def _steps(self, position: tuple) -> Iterator[tuple[Any, int, int]]:
        """Draw: yields what comes, how many there have been and will be (0: unknown), and keeps the last."""
        drawn, total = self._started(self._draw, position)
        done, item = 0, None
        for done, item in enumerate(drawn, start=1):
            yield item, done, total
        check(done, "no picture came; a sampler can be run only once, so make a new one in the function")
        self.pictures[position] = tile(getattr(item, "x", item), self._columns)

    def _started(self, draw: Draw, position: tuple) -> tuple[Iterator[Any], int]:
        drawn = draw(**self._named(position))
        drawn, total = drawn if isinstance(drawn, tuple) else (drawn, 0)
        if drawn is None:
            return iter(()), 0
        return drawn if isinstance(drawn, Iterator) else iter([drawn]), total

    def _png(self, picture: np.ndarray) -> bytes:
        return png_bytes(self._enlarged(picture), level=1)

    def _enlarged(self, picture: np.ndarray) -> np.ndarray:
        return enlarged(picture, self._zoom or max(1, min(WIDEST // picture.shape[1], TALLEST // picture.shape[0])))

    # --- words --------------------------------------------------------------------------------------------

    def _position(self, values: Sequence[Any]) -> tuple:
        return tuple(control.find(value) for control, value in zip(self.controls.values(), values, strict=True))

    def _named(self, position: tuple) -> dict[str, Any]:
        return dict(zip(self.controls, position, strict=True))

    def _label(self, position: tuple) -> str:
        """What tells the position from the other still ones, or all of it."""
        varying = self._varying() if position in self.still_positions else []
        return ", ".join(self._written(name, position) for name in varying or self.controls)

    def _all(self, position: tuple) -> str:
        return ", ".join(self._written(name, position) for name in self.controls)

    def _alt(self, position: tuple) -> str:
        return ": ".join(part for part in (self.page["title"] or "picture", self._all(position)) if part)

    def _facts(self, position: tuple) -> dict[str, Any]:
        """What made the picture at a position: its own values in the place of those of the still picture."""
        named = self._named(position)
        own = {self.controls[name].symbol or name: value for name, value in named.items()}
        given = {name: value for name, value in self._words.get("facts", {}).items() if name not in {*own, *named}}
        return {**given, **(self._facts_at(**named) if self._facts_at else own)}

    def _varying(self) -> list[str]:
        columns = zip(self.controls, zip(*self.still_positions, strict=True), strict=True)
        return [name for name, values in columns if len(set(values)) > 1]

    def _written(self, name: str, position: tuple) -> str:
        control = self.controls[name]
        value = control.label(self._named(position)[name])
        return value if control.buttons else f"{control.symbol or name} = {value}"

    def _table(self) -> tuple[list[str], list[str]] | None:
        """Labels of rows and columns, where the still positions are all pairs of the values of two controls."""
        pairs = [[self._written(name, position) for name in self._varying()] for position in self.still_positions]
        for row, column in [(0, 1), (1, 0)] if len(pairs[0]) == 2 else []:
            down, across = (list(dict.fromkeys(pair[index] for pair in pairs)) for index in (row, column))
            if [(pair[row], pair[column]) for pair in pairs] == list(product(down, across)):
                return down, across
        return None
