"""A training run as its user sees it: a bar on a terminal, lines in a log, and a way to stop it and to go on."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import speaks

if TYPE_CHECKING:
    from ..training import TrainState

EVERY = 30.0
"""Seconds between two lines of a log."""
NOTHING = "there is no checkpoint in '{}' to go on from; the run begins with step 1"
STOPPED = 130
"""The exit code after Ctrl-C."""


def show_training(
    begin: Callable[[], Iterator["TrainState"]],
    out: Path,
    model: str = "model.safetensors",
    *,
    data: str,
    resume: bool = False,
) -> None:
    """Run a training, and say where it stands and, at the end, where its weights are.

    - begin: reads the data and gives the run. out: its folder; model: the file or folder in it that it leaves.
    - data: what it trains on, in words. resume: whether it was to go on from a checkpoint.

    A first Ctrl-C lets the step end and keeps it in a checkpoint; a second one stops at once.
    """
    from accelerate import PartialState

    last, checkpoint = None, out / "checkpoint.safetensors"
    progress = _Progress()
    with _interrupts() as stop:
        try:
            new = resume and not checkpoint.exists()
            states = begin()
            for last in states:
                if not stop.waits:  # the first step is done: all was checked, and there is something to keep
                    stop.waits = True
                    progress.begin(f"data: {data}", *([NOTHING.format(out)] if new else []))
                progress.show(last)
                if stop.asked:
                    with suppress(KeyboardInterrupt):
                        states.throw(KeyboardInterrupt)
                    raise KeyboardInterrupt
            stop.waits = False
        except KeyboardInterrupt:
            progress.close()
            _tell_how_to_go_on(checkpoint, last if stop.asked else None)
            raise typer.Exit(STOPPED) from None
    progress.close()
    PartialState().destroy_process_group()
    if speaks():
        print(f"trained weights: {out / model}")


def _tell_how_to_go_on(checkpoint: Path, kept: "TrainState | None") -> None:
    if not speaks():
        return
    if kept is not None and checkpoint.exists():
        said = f"kept: step {kept.step:,} of {kept.steps:,}, in '{checkpoint}'; the same command with --resume goes on"
    elif checkpoint.exists():
        said = f"the last checkpoint is '{checkpoint}'; the same command with --resume goes on from it"
    else:
        said = "nothing was kept, since there is no checkpoint yet; the same command begins anew"
    print(f"dlcv: {said}", file=sys.stderr)


class _Progress:
    """A bar where the standard error is a terminal, and lines where the standard output is none."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.logs = speaks() and not sys.stdout.isatty()
        self.began = self.said = 0.0
        self.first = 0

    def begin(self, *lines: str) -> None:
        if speaks():
            print(*lines, sep="\n", flush=True)

    def show(self, state: "TrainState") -> None:
        from tqdm import tqdm

        if self.bar is None:
            how = {"unit": "step", "smoothing": 0.05, "disable": None if speaks() else True}
            self.bar = tqdm(total=state.steps, initial=state.step - 1, **how)
            self.began, self.first = time.monotonic(), state.step
        self.bar.set_postfix_str(f"loss {state.loss:.4f}, {state.images_per_second:.0f} img/s", refresh=False)
        self.bar.update()
        now = time.monotonic()
        if self.logs and (now - self.said >= EVERY or state.step in (self.first, state.steps)):
            self.said = now
            print(self.line(state, now), flush=True)  # a log is read while it grows

    def line(self, state: "TrainState", now: float) -> str:
        """Where a run stands.

        >>> from types import SimpleNamespace
        >>> state = SimpleNamespace(step=500, steps=8900, loss=0.05, images_per_second=256.4)
        >>> _Progress().line(state, 1000.0)
        'step 500 of 8,900, loss 0.0500, 256 img/s, 4:40:00 left'
        """
        words = f"step {state.step:,} of {state.steps:,}, loss {state.loss:.4f}, {state.images_per_second:.0f} img/s"
        done, remain = state.step - self.first, state.steps - state.step
        if not done or not remain:
            return words
        return f"{words}, {_duration((now - self.began) / done * remain)} left"

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _duration(3725.4)
    '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class _Stop:
    """Whether Ctrl-C was pressed, and whether it `waits` for the end of a step."""

    asked = waits = False


@contextmanager
def _interrupts() -> Iterator[_Stop]:
    """Let the first Ctrl-C wait for the step to end: in the middle of one, weights and moments do not fit together.

    Of several processes each would end after another step, so there, as in a thread, it stops at once.
    """
    stop = _Stop()

    def note(*_: Any) -> None:
        if stop.asked or not stop.waits:
            stop.asked = False  # nothing is kept any more
            raise KeyboardInterrupt
        stop.asked = True
        print("\ndlcv: stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script, which Ctrl-C is not for
        yield stop
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
