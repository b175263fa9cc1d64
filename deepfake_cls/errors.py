"""Errors that are no fault of the program: a wrong input, an input that cannot be used, a signal; texts of others."""

from __future__ import annotations

import textwrap

LONGEST_REASON = 200  # characters


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


def reason(error: BaseException) -> str:
    """The first line of an error's message, cut after a word if it is long; without a message the error's type."""
    line = str(error).strip().partition("\n")[0]
    return textwrap.shorten(line, LONGEST_REASON, placeholder=" …") or type(error).__name__
