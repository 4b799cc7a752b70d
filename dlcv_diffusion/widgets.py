"""Sliders over the functions of this package, for notebooks, with a still picture for those who read on
paper.

An explorer draws a picture for each position of its slider. The positions are listed beforehand, pictures
are kept, and the picture keeps its size. What it hands to the notebook holds two things at once: the live
widget, and a still PNG of a few chosen positions. Where there is no kernel or no ipywidgets (GitHub,
nbviewer, an export to HTML or PDF) the still is shown.

    step_explorer(ddpm(denoise, x_T, schedule, seeds=[0]))        # through the reverse process
    guidance_explorer(lambda w: last(ddim(guided(model, labels, w), x_T, schedule, steps=20)).x)

The slider is moved with the mouse or, once it has the focus, with the arrow keys.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .errors import UserError
from .figures import ReportFigure, image_grid, png_bytes, png_size, tile, to_rgb

WIDEST, TALLEST = 700, 360  # screen pixels of a live picture
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
    """

    values: Sequence[Any]
    description: str
    label: Callable[[Any], str] = "{:g}".format
    start: Any = None
    live: bool = True
    play: bool = False


class Explorer:
    """Sliders, and the picture that they choose. The explorers below are made of it, and so can others be.

    - draw: called with one keyword for each control, returns images (N, C, H, W) or (C, H, W), of one size
      always.
    - controls: by the name of the keyword.
    - still: the positions that the still picture shows: values, or with several controls one tuple of
      values each.
    - describe: words below the picture, called as `draw` is.
    - columns: images a row, where a picture holds several.
    - zoom: screen pixels an image pixel; by default the largest whole number that fits.
    - cache: how many pictures are kept; those not looked at for the longest time go first.
    - words: title, caption and facts of the still picture, as `figures.image_grid` takes them.

    What `draw` raises while a slider is moved is written below the picture, and the slider goes on working.
    Raises `UserError` for a slider without values, or with a start that is none of them.

    >>> controls = {"grey": Control([0, 255], "level of grey")}
    >>> explorer = Explorer(lambda grey: np.full((3, 8, 8), grey, np.uint8), controls, still=[0, 255])
    >>> explorer.picture(255).shape
    (8, 8, 3)
    """

    def __init__(
        self,
        draw: Callable[..., Picture],
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
        self.still_positions = [tuple(chosen) if len(controls) > 1 else (chosen,) for chosen in still]
        self._draw, self._describe, self._columns, self._zoom, self._words = (
            draw,
            describe,
            columns,
            zoom,
            words,
        )
        self.picture = lru_cache(maxsize=cache)(self._picture)

    def png(self, *position: Any) -> bytes:
        """The live picture at a position, one value for each control, as the browser gets it."""
        picture = self.picture(*position)
        zoom = self._zoom or max(1, min(WIDEST // picture.shape[1], TALLEST // picture.shape[0]))
        return png_bytes(picture.repeat(zoom, axis=0).repeat(zoom, axis=1))

    @cached_property
    def still(self) -> ReportFigure:
        """The figure of the still positions: side by side where they are narrow enough, else stacked."""
        panels = np.stack([self.picture(*position) for position in self.still_positions])
        labels = [self._label(position) for position in self.still_positions]
        height, width = panels.shape[1:3]
        side_by_side = width <= 2 * height and len(panels) * width <= WIDEST
        layout = {"column_labels": labels} if side_by_side else {"row_labels": labels, "columns": 1}
        return image_grid(panels.transpose(0, 3, 1, 2), **layout, **self._words)

    @cached_property
    def widget(self) -> Any:
        """The box of sliders and picture; None where ipywidgets is not installed."""
        try:
            import ipywidgets
        except ImportError:
            return None
        self._sliders, rows = [], []
        for control in self.controls.values():
            slider = ipywidgets.SelectionSlider(
                options=[(control.label(value), value) for value in control.values],
                value=control.values[0] if control.start is None else control.start,
                description=control.description,
                continuous_update=control.live,
                style={"description_width": "initial"},
                layout={"width": "440px"},
            )
            slider.observe(self._show, names="value")
            self._sliders.append(slider)
            rows.append(slider)
            if control.play:
                player = ipywidgets.Play(max=len(control.values) - 1, value=slider.index, interval=150)
                ipywidgets.jslink((player, "value"), (slider, "index"))
                rows[-1] = ipywidgets.HBox([slider, player])
        self._image = ipywidgets.Image(format="png")
        self._line = ipywidgets.HTML()
        self._show()
        return ipywidgets.VBox([*rows, self._image, self._line])

    def _show(self, change: Any = None) -> None:
        position = tuple(slider.value for slider in self._sliders)
        try:
            png = self.png(*position)
            self._image.value = png
            width, height = (f"{side}px" for side in png_size(png).values())
            self._image.layout.width, self._image.layout.height = width, height
            words = self._describe(**self._named(position)) if self._describe else ""
        except Exception as error:  # ipywidgets would swallow it, and the slider would seem dead
            words = f"{self._label(position)}: {type(error).__name__}: {error}"
        self._line.value = html.escape(words)

    def _picture(self, *position: Any) -> np.ndarray:
        return tile(self._draw(**self._named(position)), self._columns)

    def _named(self, position: tuple) -> dict[str, Any]:
        return dict(zip(self.controls, position, strict=True))

    def _label(self, position: tuple) -> str:
        parts = zip(self.controls.items(), position, strict=True)
        return ", ".join(f"{name} = {control.label(value)}" for (name, control), value in parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        data, metadata = self.still._repr_mimebundle_()
        live = {} if self.widget is None else self.widget._repr_mimebundle_()
        return {**live, **data}, metadata


def step_explorer(
    steps: Callable[[int], Picture] | Iterable[Any],
    timesteps: Sequence[int] | None = None,
    *,
    images: int | Sequence[int] = 0,
    start: int | None = None,
    still: Sequence[int] | None = None,
    description: str = "timestep t",
    **options: Any,
) -> Explorer:
    """A slider through timesteps, forwards through noising or backwards through sampling.

    - steps: one of
      a sampler, or a list of its steps: below x, as it is after the step t, stands the x0 that the network
      predicts; a list of pictures, one for each of `timesteps`; a function from t to a picture, asked for
      when the slider gets there.
    - timesteps: the slider's positions from left to right; of a sampler's steps they are known.
    - images: which images of a sampler's batch.
    - start: the first position, by default the leftmost; still: the timesteps in the still picture, six by
      default.
    - options: `describe`, `columns`, `zoom`, `cache`, `title`, `caption`, `facts`, see `Explorer`.

    Raises `UserError` where timesteps and pictures are not as many.

    >>> step_explorer(lambda t: schedule.add_noise(x0, eps, t), range(0, 350, 10))  # doctest: +SKIP
    """
    draw = steps
    if not callable(steps):
        pictures = list(steps)
        if timesteps is None and all(hasattr(step, "t") for step in pictures):
            chosen = [images] if isinstance(images, int) else list(images)
            timesteps = [int(step.t) for step in pictures]
            pictures = [_x_and_x0(step, chosen) for step in pictures]
            options.setdefault("columns", len(chosen))
        if timesteps is None or len(timesteps) != len(pictures):
            raise UserError(f"{len(pictures)} pictures for {len(timesteps or [])} timesteps; give one for each")
        draw = dict(zip(map(int, timesteps), pictures, strict=True)).__getitem__
    elif timesteps is None:
        raise UserError("a function from t to a picture needs the timesteps to go through; give timesteps=…")
    timesteps = [int(t) for t in timesteps]
    if still is None and timesteps:
        still = [timesteps[i] for i in sorted(set(np.linspace(0, len(timesteps) - 1, 6).round().astype(int)))]
    control = Control(timesteps, description, label=str, start=start, play=True)
    return Explorer(lambda t: draw(t), {"t": control}, still or [], **options)


def guidance_explorer(
    sample: Callable[[float], Picture],
    weights: Sequence[float] = tuple(step / 2 for step in range(13)),
    *,
    start: float = 2.0,
    still: Sequence[float] = (0, 2, 4, 6),
    description: str = "guidance w",
    **options: Any,
) -> Explorer:
    """A slider over the guidance weight w, from no guidance (0) to too much.

    - sample: from w to images (N, C, H, W), of the same noises each time, so that only w makes the
      difference. It is called when the slider is let go at a new w, and for the still picture.
    - weights: the slider's positions; start: the first one; still: the weights in the still picture.
    - options: `describe`, `columns`, `zoom`, `cache`, `title`, `caption`, `facts`, see `Explorer`.

    >>> guidance_explorer(
    ...     lambda w: last(ddim(guided(model, labels, w), x_T, schedule, steps=20)).x, columns=10
    ... )  # doctest: +SKIP
    """
    control = Control([float(w) for w in weights], description, start=float(start), live=False)
    return Explorer(lambda w: sample(w), {"w": control}, [float(w) for w in still], **options)


def _x_and_x0(step: Any, images: Sequence[int]) -> np.ndarray:
    rows = [to_rgb(step.x[index])[0] for index in images] + [to_rgb(step.x0[index])[0] for index in images]
    return np.stack(rows).transpose(0, 3, 1, 2)
