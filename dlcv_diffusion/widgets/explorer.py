"""Sliders, the picture that they choose, and how it is drawn without ever lagging behind them.

A move of a slider reaches the kernel as a message, and in newer JupyterLabs on a thread of its own (a
subshell). Drawing there would make later moves queue up, or run a network beside the cell that trains it. So
a move does no more than ask the event loop that built the widget, the one that runs the cells, for a task.
The task draws one step, shows it, gives the loop a moment for what has come in meanwhile, and goes on; the
next move cancels it between two steps. So there is one drawing at most, it is the one of the latest
position, and it waits for a cell that is running. Without an event loop, as in a test, a move draws at once.
"""

import asyncio
import html
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from operator import length_hint
from typing import Any

import numpy as np

from ..errors import UserError
from ..figures import ReportFigure, image_grid, png_bytes, png_size, tile

WIDEST, TALLEST = 700, 360  # screen pixels of a live picture
BETWEEN_DRAFTS = 0.08  # seconds: drafts that come faster are not shown, since encoding them takes time, too
BREATH = 0.001  # seconds between two steps for the messages that are waiting
Picture = Any  # images (N, C, H, W) or (C, H, W): uint8, or float in [-1, 1]


@dataclass(frozen=True)
class Control:
    """One slider.

    - values: what it goes through, in this order.
    - description: the words before it.
    - label: how a value is written behind it.
    - start: where it stands first; by default at the first value.
    - live: draw while it is being dragged; False waits until it is let go, for pictures that take their time.
    - play: a button beside it that runs through the values.
    - buttons: a button for each value instead of a slider, for a few words that explain themselves.
    - symbol: what the still picture calls it; by default the name of the keyword.
    """

    values: Sequence[Any]
    description: str
    label: Callable[[Any], str] = "{:g}".format
    start: Any = None
    live: bool = True
    play: bool = False
    buttons: bool = False
    symbol: str = ""

    @property
    def first(self) -> Any:
        """Where it stands first."""
        return self.values[0] if self.start is None else self.start


class Refining(Iterator):
    """A sampler of so many steps, for an explorer that says "step 7 of 20" while it works.

    >>> Refining(ddim(denoise, x_T, schedule, steps=20), 20)   # doctest: +SKIP
    """

    def __init__(self, steps: Iterator[Any], total: int) -> None:
        self.steps, self.left = steps, total

    def __next__(self) -> Any:
        step = next(self.steps)
        self.left = max(0, self.left - 1)
        return step

    def __length_hint__(self) -> int:
        return self.left


class Explorer:
    """Sliders, and the picture that they choose. The explorers of this package are made of it, and so can others be.

    - draw: called with one keyword for each control, returns images (N, C, H, W) or (C, H, W), of one size
      always; or an iterator of such images that get better, the last one final, each of which is shown; or a
      sampler, of whose steps x0 is shown, and x at the end (`Refining` tells how many there are).
    - controls: by the name of the keyword.
    - still: the positions that the still picture shows: values, or with several controls one tuple of
      values each; none: where the sliders stand first. All pairs of the values of two controls, row by row, make a
      table.
    - describe: words below the picture, called as `draw` is.
    - columns: images a row, where a picture holds several.
    - zoom: screen pixels an image pixel; by default the largest whole number that fits.
    - cache: how many pictures are kept; those not looked at for the longest time go first.
    - words: title, caption and facts of the still picture, as `figures.image_grid` takes them.

    Moving on gives up what is being drawn, between two of its pictures. What `draw` raises while a slider is
    moved is written below the picture, and the slider goes on working. Raises `UserError` for a slider
    without values, or with a start that is none of them.

    >>> controls = {"grey": Control([0, 255], "level of grey")}
    >>> explorer = Explorer(lambda grey: np.full((3, 8, 8), grey, np.uint8), controls, still=[0, 255])
    >>> explorer.picture(255).shape
    (8, 8, 3)
    """

    def __init__(
        self,
        draw: Callable[..., Picture | Iterator[Any]],
        controls: Mapping[str, Control],
        still: Sequence[Any],
        *,
        describe: Callable[..., str] | None = None,
        columns: int | None = None,
        zoom: int | None = None,
        cache: int = 128,
        **words: Any,
    ) -> None:
        for name, control in controls.items():
            if len(control.values) == 0:
                raise UserError(f"the slider '{name}' has no values to go through")
            if control.start is not None and control.start not in control.values:
                raise UserError(f"the slider '{name}' cannot start at {control.start}, which is not one of its values")
        self.controls = dict(controls)
        self.still_positions = [tuple(chosen) if len(controls) > 1 else (chosen,) for chosen in still] or [
            tuple(control.first for control in controls.values())
        ]
        self.kept = Kept(cache)
        self._draw, self._describe, self._columns, self._zoom, self._words = draw, describe, columns, zoom, words
        self._task: asyncio.Task | None = None

    def picture(self, *position: Any) -> np.ndarray:
        """The finished picture (H, W, 3) at a position, one value for each control."""
        if position not in self.kept:
            for _ in self._drafts(position):
                pass
        return self.kept[position]

    def png(self, *position: Any) -> bytes:
        """The live picture at a position, as the browser gets it."""
        return self._png(self.picture(*position))

    @cached_property
    def still(self) -> ReportFigure:
        """The figure of the still positions: a table, or side by side where they are narrow enough, else stacked."""
        panels = np.stack([self.picture(*position) for position in self.still_positions])
        height, width = panels.shape[1:3]
        labels = [self._label(position) for position in self.still_positions]
        if table := self._table():
            layout = dict(zip(("row_labels", "column_labels"), table, strict=True))
        elif width <= 2 * height and len(panels) * width <= WIDEST:
            layout = {"column_labels": labels}
        else:
            layout = {"row_labels": labels, "columns": 1}
        return image_grid(panels.transpose(0, 3, 1, 2), **layout, **self._words)

    @cached_property
    def widget(self) -> Any:
        """The box of sliders and picture; None where ipywidgets is not installed."""
        try:
            import ipywidgets
        except ImportError:
            return None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        room = {"description_width": f"{max(len(control.description) for control in self.controls.values()) + 1}ch"}
        self._sliders, rows = [], []
        for control in self.controls.values():
            common = {
                "options": [(control.label(value), value) for value in control.values],
                "value": control.first,
                "description": control.description,
                "layout": {"width": "440px"},
            }
            if control.buttons or len(control.values) == 1:  # a slider needs two ends
                slider = ipywidgets.ToggleButtons(**common, style={**room, "button_width": "6em"})
                slider.add_class("widget-inline-hbox")  # the label in line with those of the sliders
            else:
                slider = ipywidgets.SelectionSlider(**common, continuous_update=control.live, style=room)
            slider.observe(self._moved, names="value")
            self._sliders.append(slider)
            rows.append(slider)
            if control.play:
                player = ipywidgets.Play(max=len(control.values) - 1, value=slider.index, interval=150)
                ipywidgets.jslink((player, "value"), (slider, "index"))
                rows[-1] = ipywidgets.HBox([slider, player])
        self._image = ipywidgets.Image(format="png", layout={"object_fit": "contain", "object_position": "left top"})
        self._line = ipywidgets.HTML(layout={"min_height": "2em"})
        for _ in self._show(drafts=False):
            pass
        return ipywidgets.VBox([*rows, self._image, self._line])

    # --- drawing ------------------------------------------------------------------------------------------

    def _moved(self, change: Any = None) -> None:
        """A slider stands elsewhere; called in whatever thread its message comes."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._begin)
        else:
            for _ in self._show():
                pass

    def _begin(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        with closing(self._show()) as steps:
            for _ in steps:
                await asyncio.sleep(BREATH)

    def _show(self, drafts: bool = True) -> Iterator[None]:
        """Show the picture where the sliders stand, with a stop after every step of a sampler."""
        position = tuple(slider.value for slider in self._sliders)
        try:
            words = self._describe(**self._named(position)) if self._describe else ""
            shown = -math.inf
            for item, done, total in self._drafts(position) if position not in self.kept else ():
                if drafts and done != total and time.monotonic() - shown > BETWEEN_DRAFTS:
                    self._send(self._tiled(getattr(item, "x0", item)), words, f"step {done} of {total or '…'}")
                    shown = time.monotonic()
                yield
            self._send(self.kept[position], words)
        except Exception as error:  # ipywidgets would swallow it, and the slider would seem dead
            self._line.value = html.escape(f"{self._label(position)}: {type(error).__name__}: {error}")

    def _send(self, picture: np.ndarray, words: str, progress: str = "") -> None:
        """A draft's words go before it, a finished picture's behind it: so they never call a draft finished."""
        separator = " · " if words and progress else ""
        line = html.escape(words) + (f"<i>{separator}{progress}</i>" if progress else "")
        if progress:
            self._line.value = line
        png = self._png(picture)
        self._image.layout.width, self._image.layout.height = (f"{side}px" for side in png_size(png).values())
        self._image.value = png
        self._line.value = line

    def _drafts(self, position: tuple) -> Iterator[tuple[Any, int, int]]:
        """Draw: yields each draft, how many there have been and will be (0: unknown), and keeps the last."""
        drawn = self._draw(**self._named(position))
        if not isinstance(drawn, Iterator):
            drawn = iter([drawn])
        total, done, item = length_hint(drawn), 0, None
        for done, item in enumerate(drawn, start=1):
            yield item, done, total
        if not done:
            raise UserError("no picture came; a sampler can be run only once, so make a new one in the function")
        self.kept[position] = self._tiled(getattr(item, "x", item))

    def _tiled(self, images: Picture) -> np.ndarray:
        return tile(images, self._columns)

    def _png(self, picture: np.ndarray) -> bytes:
        zoom = self._zoom or max(1, min(WIDEST // picture.shape[1], TALLEST // picture.shape[0]))
        return png_bytes(picture.repeat(zoom, axis=0).repeat(zoom, axis=1))

    # --- words --------------------------------------------------------------------------------------------

    def _named(self, position: tuple) -> dict[str, Any]:
        return dict(zip(self.controls, position, strict=True))

    def _label(self, position: tuple) -> str:
        """What tells the position from the other still ones, or all of it."""
        varying = self._varying() if position in self.still_positions else []
        return ", ".join(self._written(name, position) for name in varying or self.controls)

    def _varying(self) -> list[str]:
        columns = zip(self.controls, zip(*self.still_positions, strict=True), strict=True)
        return [name for name, values in columns if len(set(values)) > 1]

    def _written(self, name: str, position: tuple) -> str:
        control = self.controls[name]
        value = control.label(self._named(position)[name])
        return value if control.buttons else f"{control.symbol or name} = {value}"

    def _table(self) -> tuple[list[str], list[str]] | None:
        """Labels of rows and columns, where the still positions are all pairs of the values of two controls."""
        places = {name: index for index, name in enumerate(self.controls)}
        for row, column in permutations(self._varying(), 2) if len(self._varying()) == 2 else ():
            pairs = [(position[places[row]], position[places[column]]) for position in self.still_positions]
            down, across = (list(dict.fromkeys(values)) for values in zip(*pairs, strict=True))
            if pairs == list(product(down, across)):
                firsts = self.still_positions[:: len(across)]
                rows = [self._written(row, position) for position in firsts]
                return rows, [self._written(column, position) for position in self.still_positions[: len(across)]]
        return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        data, metadata = self.still._repr_mimebundle_()
        live = {} if self.widget is None else self.widget._repr_mimebundle_()
        return {**live, **data}, metadata


class Kept(OrderedDict):
    """The last `most` pictures that were looked at, by position.

    >>> kept = Kept(2)
    >>> kept["a"], kept["b"] = 1, 2
    >>> looked_at = kept["a"]
    >>> kept["c"] = 3
    >>> list(kept)
    ['a', 'c']
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = max(1, most)

    def __getitem__(self, position: Any) -> Any:
        self.move_to_end(position)
        return super().__getitem__(position)

    def __setitem__(self, position: Any, picture: Any) -> None:
        super().__setitem__(position, picture)
        self.move_to_end(position)
        if len(self) > self.most:
            self.popitem(last=False)
