"""Errors that are no fault of the program: a wrong input, an input that cannot be used, a signal; texts of others."""

from __future__ import annotations

import errno
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_REASON = 200  # characters


class InputError(ValueError):
    """An input of the user is wrong.

    The message names the key, file or value, what was expected, and what to do. Entry points print it without a
    traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in place of a traceback."""
        return [f"error: {self}"]


class OutputError(OSError):
    """An output cannot be written. The message names the output, the reason, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows in place of a traceback."""
        return [f"error: {self}"]


class IncompleteError(Exception):
    """The work is done and its output is written, but some inputs could not be used: exit status 3."""


class Interrupted(BaseException):
    """A signal stopped the training after a checkpoint was saved; the message says where it is and how to resume."""

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal


def reason(error: BaseException) -> str:
    """The first line of an error's message, cut after a word if it is long; without a message the error's type."""
    line = str(error).strip().partition("\n")[0]
    return textwrap.shorten(line, LONGEST_REASON, placeholder=" …") or type(error).__name__


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITING = _FULL | {errno.EROFS}  # errors that only writing raises
_OPENING = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EIO}


@contextmanager
def writing(output: str | Path, instead: str = "choose another folder", *, also_reads: bool = False) -> Iterator[None]:
    """Make errors of writing name the output that the user knows, in place of a temporary file or of nothing.

    Args:
        output: The file or folder that the block writes.
        instead: What to do, other than to free space on a full disk.
        also_reads: Whether the block also reads files: then errors that reading can raise pass.

    Raises:
        OutputError: If the file system refuses to write. Other errors of the block pass.
    """
    try:
        yield
    except Exception as error:
        refused = error if isinstance(error, OSError) else error.__cause__  # some loggers raise errors of their own
        numbers = _WRITING if also_reads else _WRITING | _OPENING
        if isinstance(error, InputError) or not isinstance(refused, OSError) or refused.errno not in numbers:
            raise
        space = "free some space, or " if refused.errno in _FULL else ""
        file = next((folder for folder in Path(output).parents if folder.is_file()), None)
        why = refused.strerror if file is None else f"{file} is a file"
        raise OutputError(f"{output} cannot be written: {why}; {space}{instead}.") from error
