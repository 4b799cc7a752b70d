"""Code of others, which may fail in any way."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from textwrap import shorten

from ..errors import UserError


@contextmanager
def foreign(what: str, advice: str) -> Iterator[None]:
    """Whatever is raised inside becomes a `UserError`, "`what`: the error; `advice`".

    >>> with foreign("UNet() in 'UNet.py' fails", "mend it"):
    ...     {}["width"]
    Traceback (most recent call last):
    dlcv_diffusion.errors.UserError: UNet() in 'UNet.py' fails: KeyError: 'width'; mend it
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        said = shorten(f"{type(error).__name__}: {error}", 240, placeholder=" …")
        raise UserError(f"{what}: {said}; {advice}") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Without what libraries below warn, log and count in bars: one sentence, or none, comes from here.

    >>> with quietly():
    ...     warnings.warn("read me")
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with suppress(ImportError):
        import transformers.utils.logging  # noqa: F401 – what reads files imports it anyway
    libraries = [sys.modules.get(f"{name}.utils.logging") for name in ("transformers", "diffusers")]
    shown = [bars for bars in libraries if bars is not None and bars.is_progress_bar_enabled()]
    try:
        for bars in shown:
            bars.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for bars in shown:
            bars.enable_progress_bar()
        logging.disable(disabled)
