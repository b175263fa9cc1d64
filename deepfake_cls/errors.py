"""Errors that are no fault of the program: a wrong input, an input that cannot be used, a signal."""

from __future__ import annotations


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
