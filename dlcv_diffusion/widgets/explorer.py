"""The picture that sliders choose, drawn without ever lagging behind them (`live`)."""

import html
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import ipywidgets
import numpy as np
from einops import rearrange, repeat

from ..errors import check
from ..figures import ReportFigure, image_grid, png_bytes, png_size, tile
from ..recent import Recent
from .controls import Control
from .live import Live, in_words

WIDEST, TALLEST = 700, 360  # screen pixels of a live picture
BETWEEN_DRAFTS = 0.08  # seconds: drafts that come faster are not shown, since encoding them takes time, too
Picture = Any  # images (N, C, H, W) or (C, H, W): uint8, or float in [-1, 1]


class Explorer(Live):
    """Sliders, and the picture that they choose; every explorer is made of it.

    - draw: called with one keyword for each control, returns images (N, C, H, W) or (C, H, W) of one size; or an
      iterator of such images, each of which is shown; or a sampler, whose x0 is shown on the way, and x at the end;
      or a pair: one of these two, and how many steps it takes.
    - controls: by keyword. describe: words below the picture, called as `draw` is.
    - still: positions of the still picture, one value or, with several controls, a tuple each; by default the start.
    - columns: images a row. zoom: screen pixels an image pixel. cache: how many pictures are kept.
    - words: title, caption and facts of the still picture, as in `image_grid`.

    What `draw` raises, and what cannot be shown, becomes a sentence below the picture.

    >>> controls = {"grey": Control([0, 255], "level of grey")}
    >>> explorer = Explorer(lambda grey: np.full((3, 8, 8), grey, np.uint8), controls, still=[0, 255])
    >>> explorer.picture(255).shape
    (8, 8, 3)
    """

    def __init__(
        self,
        draw: Callable[..., Picture | Iterator[Any] | tuple[Iterator[Any], int]],
        controls: Mapping[str, Control],
        still: Sequence[Any],
        *,
        describe: Callable[..., str] | None = None,
        columns: int | None = None,
        zoom: int | None = None,
        cache: int = 128,
        **words: Any,
    ) -> None:
        self.controls, self.pictures = dict(controls), Recent(cache)
        still = [tuple(chosen) if len(controls) > 1 else (chosen,) for chosen in still]
        start = tuple(control.start for control in controls.values())
        self.still_positions = [self._position(chosen) for chosen in still or [start]]
        self._draw, self._describe, self._columns, self._zoom, self._words = draw, describe, columns, zoom, words

    def picture(self, *position: Any) -> np.ndarray:
        """The finished picture (H, W, 3) at a position, one value for each control."""
        position = self._position(position)
        if position not in self.pictures:
            for _ in self._drafts(position):
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
        return image_grid(rearrange(panels, "n h w c -> n c h w"), **layout, **self._words)

    @cached_property
    def widget(self) -> Any:
        """The live view: a box of sliders, picture and words."""
        self._join_loop()
        room = {"description_width": f"{max(len(control.description) for control in self.controls.values()) + 1}ch"}
        self._sliders, rows = [], []
        for control in self.controls.values():
            common = {
                "options": [(control.label(value), value) for value in control.values],
                "value": control.start,
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

    def _show(self, drafts: bool = True) -> Iterator[None]:
        """Show the picture where the sliders stand, and yield after every step of a sampler."""
        position = tuple(slider.value for slider in self._sliders)
        try:
            words = self._describe(**self._named(position)) if self._describe else ""
            shown = -math.inf
            for item, done, total in self._drafts(position) if position not in self.pictures else ():
                if drafts and done != total and time.monotonic() - shown > BETWEEN_DRAFTS:
                    self._send(tile(getattr(item, "x0", item), self._columns), words, f"step {done} of {total or '…'}")
                    shown = time.monotonic()
                yield
            self._send(self.pictures[position], words)
        except Exception as error:  # ipywidgets would swallow it, and the slider would seem dead
            self._line.value = html.escape(f"{self._label(position)}: {in_words(error)}")

    def _send(self, picture: np.ndarray, words: str, progress: str = "") -> None:
        """A draft's words go before it, a finished picture's after it, so that no draft is called finished."""
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
        drawn, total = self._draw(**self._named(position)), 0
        if isinstance(drawn, tuple):
            drawn, total = drawn
        done, item = 0, None
        for done, item in enumerate(drawn if isinstance(drawn, Iterator) else [drawn], start=1):
            yield item, done, total
        check(done, "no picture came; a sampler can be run only once, so make a new one in the function")
        self.pictures[position] = tile(getattr(item, "x", item), self._columns)

    def _png(self, picture: np.ndarray) -> bytes:
        zoom = self._zoom or max(1, min(WIDEST // picture.shape[1], TALLEST // picture.shape[0]))
        return png_bytes(repeat(picture, "h w c -> (h down) (w across) c", down=zoom, across=zoom))

    # --- words --------------------------------------------------------------------------------------------

    def _position(self, values: Sequence[Any]) -> tuple:
        return tuple(control.find(value) for control, value in zip(self.controls.values(), values, strict=True))

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
        pairs = [[self._written(name, position) for name in self._varying()] for position in self.still_positions]
        for row, column in [(0, 1), (1, 0)] if len(pairs[0]) == 2 else []:
            down, across = (list(dict.fromkeys(pair[index] for pair in pairs)) for index in (row, column))
            if [(pair[row], pair[column]) for pair in pairs] == list(product(down, across)):
                return down, across
        return None
