"""What every explorer stands on: an output that is live and still at once, and moves that never queue up.

A move of a control reaches the kernel as a message, in newer JupyterLabs on a thread of its own (a subshell). Drawing
there would make later moves queue up, or run a network beside the cell that trains it. So a move only asks the event
loop of the cells for a task, which draws step by step, lets other messages in between, and is cancelled by the next
move. Without an event loop, as in a test, a move draws at once.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

from IPython import get_ipython

from ..errors import UserError
from ..figures import ReportFigure

PAUSE = 0.001  # seconds between two steps for the messages that are waiting


class Live:
    """The base of explorers. A subclass has `still`, a `ReportFigure`; `widget`, which calls `_join_loop` when it is
    built and whose controls tell `_moved`; and `_show`, which answers where the controls stand: a generator that yields
    wherever it may be given up, and what it yields, if anything, is how many seconds to wait for the next move.
    """

    still: ReportFigure
    widget: Any
    _loop: asyncio.AbstractEventLoop | None = None
    _task: asyncio.Task | None = None

    def _show(self) -> Iterator[float | None]:
        raise NotImplementedError

    def _join_loop(self) -> None:
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def _moved(self, change: Any = None) -> None:
        """A control stands elsewhere; called in whatever thread its message comes."""
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
            for pause in steps:
                await asyncio.sleep(pause or PAUSE)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        try:
            data, metadata = self.still._repr_mimebundle_()
        except UserError as error:  # the controls may still have positions that can be drawn
            data, metadata = {"text/plain": str(error)}, {}
        live = {} if _run_by_a_program() else self.widget._repr_mimebundle_()
        return {**live, **data}, metadata


def in_words(error: Exception) -> str:
    """An error as a line says it: a user's mistake is a sentence already.

    >>> in_words(MemoryError("too many images")), in_words(UserError("give fewer"))
    ('MemoryError: too many images', 'give fewer')
    """
    return f"{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}"


def _run_by_a_program() -> bool:
    """Whether nbconvert, nbclient or papermill runs this cell: they do not let it ask for input.

    A page that nbconvert makes shows a widget in place of the still picture, and is blank without a network.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent() if kernel is not None else {}
    return not request.get("content", {}).get("allow_stdin", True)
