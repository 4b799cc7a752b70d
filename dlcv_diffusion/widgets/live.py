"""What every explorer stands on: a live panel with a still picture behind it, and moves that never queue up.

A move of a control reaches the kernel as a message, in newer JupyterLabs on a thread of its own (a subshell). Drawing
there would make later moves queue up, or run a network beside the cell that trains it. So a move only asks the event
loop of the cells for a task, which draws step by step, lets other messages in between, and is cancelled by the next
move. Without an event loop, as in a test, a move draws at once.

The still picture is an output of its own: JupyterLab shows a widget rather than a picture beside it, and of a widget
whose kernel is gone only an error. While the panel lives, a style sheet hides the still picture.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from IPython import get_ipython
from IPython.display import HTML, display

from ..errors import UserError
from ..figures import ReportFigure
from .panel import Field, Panel

DONE = object()
PAUSE = 0.001  # seconds between two steps for the messages that are waiting
GREEK = {"alpha": "α", "beta": "β", "epsilon": "ε", "varepsilon": "ε", "eta": "η", "sigma": "σ", "tau": "τ"}
LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
HINT = "Run this cell to move the controls"
CHILD = ".jp-OutputArea-child"
DEAD = f"{CHILD}:has(+ {CHILD} img) .jupyter-widgets:not(:has(*))"
STYLE = f"""<style>
{CHILD}:has(.dlcv-explorer) + {CHILD} {{ display: none; }}
{DEAD} {{ font-size: 0; }}
{DEAD}::after {{ content: "{HINT}"; font-size: 13px; }}
</style>"""
"""A living panel hides the output behind it; a dead one is two words of an error, in whose place stands what to do."""


class Live(ABC):
    """The base of explorers. A subclass has

    - `still`, a `ReportFigure`, and `page`: title, caption of the live view;
    - `_fields()` and `_start()`, the controls and their first values, and `_show(moved)`, which answers where they
      stand: a generator that yields wherever it may be given up, and what it yields, if anything, is how many seconds
      to wait for the next move;
    - `_file()`: name and PNG of what is seen, to be downloaded; `_upload(name, content)` where files are taken.
    """

    still: ReportFigure
    page: Mapping[str, str]
    _comparing = ""
    _loop: asyncio.AbstractEventLoop | None = None
    _unheard = False
    _task: asyncio.Task | None = None

    @cached_property
    def panel(self) -> Panel:
        """The live view, with its first answer."""
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        panel = Panel(self._fields(), self._start(), title=self.page.get("title", ""), comparing=self._comparing)
        self.__dict__["panel"] = panel  # what follows answers into it
        for _ in self._show(drafts=False):
            pass
        panel.observe(self._moved, names=["values", "moved", "compare"])
        panel.on_message(self._asked)
        return panel

    def move(self, **values: Any) -> None:
        """Set controls by name, as a reader would.

        >>> explorer.move(eta=0.5)   # doctest: +SKIP
        """
        self.panel.values = {**self.panel.values, **values}

    @abstractmethod
    def _fields(self) -> dict[str, Field]: ...

    @abstractmethod
    def _start(self) -> dict[str, Any]: ...

    @abstractmethod
    def _show(self, drafts: bool = True) -> Iterator[float | None]: ...

    @abstractmethod
    def _file(self) -> tuple[str, bytes]: ...

    def _upload(self, name: str, content: bytes) -> None:  # noqa: B027 - few have such a control
        """Take a file from the reader, in any thread; without a control for files none comes."""

    # --- what the reader does: called in whatever thread its message comes ---------------------------------

    def _moved(self, change: Any = None) -> None:
        if self._loop is not None and self._loop.is_running():
            self._unheard = True
            self._loop.call_soon_threadsafe(self._begin)
        else:
            for _ in self._show():
                pass

    def _asked(self, message: Mapping[str, Any], buffers: Sequence[memoryview] = ()) -> None:
        asked = message.get("do")
        if asked == "upload":
            self._upload(str(message.get("name")), bytes(buffers[0]))
            self._moved()
        elif self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._do, asked, message.get("view"))
        else:
            self._do(asked, message.get("view"))

    # --- in the thread of the cells -------------------------------------------------------------------------

    def _do(self, asked: str | None, view: Any = None) -> None:
        if asked == "stop":
            unheard = self.panel.answered < self.panel.moved
            if self._task is not None and not self._task.done() and (unheard or self.panel.state in ("busy", "draft")):
                self._task.cancel()
                seen = "what is seen is a draft" if self.panel.state == "draft" else "the picture is of before"
                line = f"stopped: {seen}; move a control to go on"
                self.panel.say(answered=self.panel.moved, state="stopped", line=line)
        elif asked == "download":
            try:
                name, png = self._file()
            except Exception as error:  # ipywidgets would swallow it
                self.panel.say(line=sentence_of(error))
            else:
                self.panel.send({"file": name, "view": view}, [png])

    def _begin(self) -> None:
        if not self._unheard:
            return  # one move tells of several traits, and is answered once
        self._unheard = False
        if self._task is not None:
            self._task.cancel()
        self._task = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        with closing(self._show()) as steps:
            while True:
                with _a_core_for_the_browser():
                    pause = next(steps, DONE)
                if pause is DONE:
                    return
                await asyncio.sleep(pause or PAUSE)

    # --- outputs --------------------------------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        if not _run_by_a_program():
            display(HTML(STYLE))
            bundle, _ = self.panel._repr_mimebundle_()
            display({**bundle, "text/plain": ""}, raw=True)
        try:
            display(self.still)
        except UserError as error:  # the controls may still have positions that can be drawn
            print(error)


def captioned(*parts: str) -> str:
    """Parts of a caption as sentences, without a full stop at its end.

    >>> captioned("One face.", "", "η = 0")
    'One face. η = 0'
    """
    return ". ".join(part.rstrip(". ") for part in parts if part)


def hinted(caption: str) -> str:
    """The still picture's caption: where nothing answers, it says what to do.

    >>> hinted("DDIM")
    'DDIM. Run this cell to move the controls'
    """
    return captioned(caption, HINT)


def plain(words: str) -> str:
    """Words for a page that draws no mathematics: of `$…$` the letters, with accents and indices as Unicode has them.

    >>> plain("the predicted $x_0$, $\\hat{x}_0$ and $\\eta$")
    'the predicted x₀, x̂₀ and η'
    """
    return re.sub(r"\$([^$]+)\$", lambda found: _letters(found[1]), words)


def _letters(tex: str) -> str:
    tex = re.sub(r"\\hat\s*\{?\s*(\w)\s*\}?", "\\1\u0302", tex)
    tex = re.sub(r"\\(\w+)", lambda found: GREEK.get(found[1], found[1]), tex)
    tex = re.sub(r"_\{?(\d+)\}?", lambda found: found[1].translate(LOWERED), tex)
    return tex.replace("{", "").replace("}", "")


def sentence_of(error: Exception) -> str:
    """An error as a line says it: a user's mistake is a sentence already.

    >>> sentence_of(MemoryError("too many images")), sentence_of(UserError("give fewer"))
    ('MemoryError: too many images', 'give fewer')
    """
    return f"{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}"


@contextmanager
def _a_core_for_the_browser() -> Iterator[None]:
    """One thread less: the browser lays out the page meanwhile, and a thread that waits for a core holds up all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_by_a_program() -> bool:
    """Whether nbconvert, nbclient or papermill runs this cell: they do not let it ask for input.

    A page that nbconvert makes shows a widget in place of the still picture, and is blank without a network.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return not request.get("content", {}).get("allow_stdin", True)
