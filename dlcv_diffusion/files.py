"""Files and folders are written whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .errors import UserError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, on failure removed.

    A reader, or a process that was killed half-way, sees the old file or the new one and never a part.
    The parent folder is made if it is missing. What a killed process left is found by `remove_partials`.

    Raises `UserError` where the folder cannot be made or written, or the disk is full.

    >>> with atomic_write("out/a.txt") as temporary:   # doctest: +SKIP
    ...     temporary.write_text("whole")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:12]}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_partials(folder: str | Path) -> None:
    """Remove what an `atomic_write` into this folder left behind when its process was killed."""
    for partial in Path(folder).glob(".*.partial*"):
        partial.unlink(missing_ok=True)


@contextmanager
def staging_folder(out: str | Path, folders: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder inside `out`; on success its files are moved to the same places in `out`, else removed.

    - folders: folders below `out` that will be needed, made on both sides at once, so that what cannot be written is
      found out before the work.

    Files of the same names are replaced, others stay. After a failure `out` is as it was.

    Raises `UserError` where `out` cannot be made or written, or the disk is full.

    >>> with staging_folder("out", ["mnistm"]) as staging:   # doctest: +SKIP
    ...     image.save(staging / "mnistm" / "0_001.png")
    """
    out = Path(out)
    staging = None
    wanted = [out / name for name in folders] or [out]
    made = [folder for each in wanted for folder in (each, *each.parents) if not folder.exists()]  # deepest first
    try:
        for folder in wanted:
            folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
        for name in folders:
            (staging / name).mkdir(parents=True)
        yield staging
        moves = [(file, out / file.relative_to(staging)) for file in sorted(staging.rglob("*")) if file.is_file()]
        for _, target in moves:  # all that can fail comes before the first move
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        for file, target in moves:
            file.replace(target)
    except OSError as error:
        raise _refusal(error.filename or out, error) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # only an empty folder can be removed
                folder.rmdir()


def _refusal(path: str | Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write '{path}': {reason}; choose a folder you may write to, with free space")
