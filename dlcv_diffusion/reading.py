"""Files that others wrote: whatever goes wrong while one is read becomes one sentence about it."""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

REFUSALS = {
    errno.ENOENT: "is not there",
    errno.ENOTDIR: "is not a folder, or lies below what is none",
    errno.EISDIR: "is a folder, not a file",
    errno.EACCES: "may not be read: its permissions, or those of its folder, do not allow it",
    errno.ELOOP: "is a link that leads back to itself",
    errno.ENAMETOOLONG: "has a name that is too long",
}
"""What the operating system says, in words."""


@contextmanager
def reading(path: str | Path, otherwise: str, advice: str) -> Iterator[None]:
    """Raise "'path' …; advice" as `UserError` for any exception inside, and keep libraries' warnings about it quiet.

    What the operating system refuses is said as it is (`REFUSALS`), of the very file that it refused; for all else
    the sentence says `otherwise`, such as "is not a whole .npz file".

    >>> with reading("none.csv", "is not a list", "give another"):
    ...     open("none.csv")
    Traceback (most recent call last):
    dlcv_diffusion.errors.UserError: 'none.csv' is not there; give another
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UserError:
        raise
    except Exception as error:  # a damaged file makes its reader raise anything: struct.error, KeyError, MemoryError
        if isinstance(error, OSError) and error.strerror:
            path = error.filename or path
            otherwise = REFUSALS.get(error.errno, f"cannot be read: {error.strerror}")
            if error.errno == errno.ENOENT and os.path.islink(path):
                otherwise = "is a link to what is not there"
        raise UserError(f"'{path}' {otherwise}; {advice}") from error
