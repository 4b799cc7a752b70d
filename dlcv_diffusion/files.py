"""Files and folders are written whole or not at all."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .errors import UserError, check

PARTIAL = re.compile(r"\..*\.[0-9a-f]{12}\.partial(\..*)?|\.partial-\w{8}")  # the names of files and folders half done


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` on success and removed on failure.

    A reader sees the old file or the new one, never a part. Missing folders are made. Raises `UserError` where the file
    cannot be written.

    >>> with atomic_write("out/a.txt") as temporary:   # doctest: +SKIP
    ...     temporary.write_text("whole")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:40]}.{uuid4().hex[:12]}.partial{path.suffix}")
    with _folders([path.parent], path):
        try:
            _check_replaceable(path)
            temporary.touch()
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def staging_folder(out: str | Path, folders: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder inside `out`; on success its files move to the same places, else `out` is as before.

    - folders: those below `out` that will be needed: what cannot be written is found out before the work.

    Files of the same names are replaced. Raises `UserError` where `out` cannot be written.

    >>> with staging_folder("out", ["mnistm"]) as staging:   # doctest: +SKIP
    ...     image.save(staging / "mnistm" / "0_001.png")
    """
    out = Path(out)
    wanted = [out / name for name in folders] or [out]
    with _folders(wanted):
        for folder in wanted:
            tempfile.TemporaryFile(dir=folder).close()  # a folder that cannot be written is found out now
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
        try:
            for name in folders:
                (staging / name).mkdir(parents=True)
            yield staging
            moves = [(file, out / file.relative_to(staging)) for file in sorted(staging.rglob("*")) if file.is_file()]
            for _, target in moves:  # all that can fail comes before the first move
                target.parent.mkdir(parents=True, exist_ok=True)
                _check_replaceable(target)
            for file, target in moves:
                file.replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def remove_partials(folder: str | Path) -> None:
    """Remove what writing into this folder, not into those below it, left behind when its process was killed.

    >>> remove_partials("runs/digits")   # doctest: +SKIP
    """
    for path in sorted(Path(folder).glob(".*partial*")):
        if PARTIAL.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextmanager
def _folders(folders: Sequence[Path], path: Path | None = None) -> Iterator[None]:
    """Make the folders, and remove those that are new and empty at the end; an error of the system is a `UserError`."""
    try:
        made = [each for folder in folders for each in (folder, *folder.parents) if not each.exists()]  # deepest first
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            yield
        finally:
            for folder in made:
                with suppress(OSError):  # only an empty folder can be removed
                    folder.rmdir()
    except OSError as error:
        what = f"'{path or error.filename or folders[0]}': {error.strerror or error}"
        raise UserError(f"cannot write {what}; choose a folder you may write to, with free space") from error


def _check_replaceable(path: Path) -> None:
    what = "Is a directory" if path.is_dir() else "Is no file"  # but a device such as /dev/null, or a pipe
    check(path.is_file() or not path.exists(), f"cannot write '{path}': {what}; give another name, or move it away")
