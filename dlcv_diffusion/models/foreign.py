"""Code of others, which may fail in any way."""

from collections.abc import Iterator
from contextlib import contextmanager
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
