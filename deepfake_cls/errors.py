"""Errors that are no fault of the program: a wrong input, an input that cannot be used, a signal, a closed pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """An input of the user is wrong.

    The message names the key, file or value, what was expected, and what to do. Entry points print it without a
    traceback.
    """

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


@contextmanager
def closed_pipe_allowed() -> Iterator[None]:
    """End quietly if nobody reads the output, as in ``deepfake-cls train --help | head -1``."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at the end fails again
        if isinstance(error.__context__, SystemExit):
            raise error.__context__ from None
