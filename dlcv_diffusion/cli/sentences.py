"""What went wrong as one sentence: what the parser, the operating system and torch say, in plain words."""

import errno
import re

import typer

from ..errors import UserError

UsageError = typer.BadParameter.__base__  # click's; newer versions of typer have their own click inside

OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What can go wrong when the standard output is a pipe, or was led into a file."""


def sentence(error: Exception) -> str | None:
    """What to tell the user; None for an error of the package's own, whose traceback is needed.

    >>> sentence(FileNotFoundError(2, "No such file or directory", "noise"))
    "'noise': No such file or directory; give another file or folder, or fix this one"
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, UsageError):
        return _of_the_parser(error)
    if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error), re.IGNORECASE):
        return "there is not enough memory; choose a smaller size, count or batch size"
    if of_the_output(error):
        return f"cannot write to the standard output: {error.strerror}; redirect it elsewhere"
    if isinstance(error, OSError):  # a file's or a network's
        where = f"{error.filename!r}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}; give another file or folder, or fix this one"
    return None


def of_the_output(error: Exception) -> bool:
    """Whether the standard output could not be written, rather than a file."""
    return isinstance(error, OSError) and error.filename is None and error.errno in OUTPUT_ERRORS


def _of_the_parser(error: Exception) -> str:
    said = error.format_message()
    if said.startswith("Usage: "):  # a group without a verb
        return said
    said = said.replace("Value error, ", "").replace("Input should be", "it should be").rstrip(".")
    return f"{said[0].lower()}{said[1:]}; see `{error.ctx.command_path if error.ctx else 'dlcv'} --help`"
