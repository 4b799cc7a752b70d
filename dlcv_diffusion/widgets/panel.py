"""The front end of every explorer: controls and a picture in the browser, kept in step with the kernel by anywidget.

`panel.js` draws it with the browser's own controls, which keyboards and screen readers know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any, Literal

import anywidget
import traitlets

HERE = files(__package__)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One control of a panel.

    - kind: a slider over numbers with a box to type them into, buttons to choose by, a list, one line, several, a file.
    - label: the words before it. values, texts: what can be chosen, and how it is written.
    - most: the largest number that can be typed, by default the largest value; between: numbers between the values may
      be typed too; whole: only whole ones. live: it is told while it is dragged, not only when it is let go.
    - play: a button that runs through the values. random: a button for any whole number below 10,000.
    - hint: a tooltip. insert: words with a button each that puts them at the text's end. accept: kinds of file.
    """

    kind: Literal["range", "choice", "select", "text", "area", "file"]
    label: str
    values: Sequence[Any] = ()
    texts: Sequence[str] = ()
    most: float | None = None
    between: bool = True
    whole: bool = False
    live: bool = True
    play: bool = False
    random: bool = False
    hint: str = ""
    insert: Sequence[str] = field(default_factory=list)
    accept: str = ""


class Panel(anywidget.AnyWidget):
    """Controls, and what was answered: see `panel.js`. `moved` counts what the reader did; `answered`: what is known.

    - state: "done"; "busy": the picture is of before; "draft": a better one follows; "stopped"; "error".
    """

    _esm = (HERE / "panel.js").read_text(encoding="utf-8")
    _css = (HERE / "panel.css").read_text(encoding="utf-8")

    fields = traitlets.List().tag(sync=True)
    start = traitlets.Dict().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    moved = traitlets.Int(0).tag(sync=True)
    compare = traitlets.Bool(False).tag(sync=True)
    comparing = traitlets.Unicode("").tag(sync=True)

    answered = traitlets.Int(0).tag(sync=True)
    state = traitlets.Unicode("done").tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    picture = traitlets.Bytes(b"").tag(sync=True)
    beside = traitlets.Bytes(b"").tag(sync=True)
    size = traitlets.List([0, 0]).tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    beside_alt = traitlets.Unicode("").tag(sync=True)
    beside_label = traitlets.Unicode("").tag(sync=True)
    area = traitlets.Unicode("").tag(sync=True)
    line = traitlets.Unicode("").tag(sync=True)
    steps = traitlets.Unicode("").tag(sync=True)
    facts = traitlets.Unicode("").tag(sync=True)
    code = traitlets.Unicode("").tag(sync=True)

    def __init__(self, fields: Mapping[str, Field], values: Mapping[str, Any], **words: str) -> None:
        super().__init__(fields=as_dicts(fields), start=dict(values), values=dict(values), **words)

    def on_message(self, act: Callable[[dict[str, Any], Sequence[memoryview]], None]) -> None:
        """Call `act` with what the reader asks for, {"do": …}, and the contents of files."""
        self.on_msg(lambda _, message, buffers: act(message, buffers))

    def say(self, **traits: Any) -> None:
        """Set several traits, which the browser hears of at once."""
        with self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)


def as_dicts(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    return [{"name": name, **asdict(each)} for name, each in fields.items()]
