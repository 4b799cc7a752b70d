"""Files are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, on failure removed.

    A reader, or a process that was killed half-way, sees the old file or the new one and never a part.
    The parent folder is made if it is missing.

    Raises `UserError` where the folder cannot be made or written, or the disk is full.

    >>> with atomic_write("out/a.txt") as temporary:   # doctest: +SKIP
    ...     temporary.write_text("whole")
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".partial{path.suffix}")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write '{path}': {reason}; choose a folder you may write to, with free space") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
