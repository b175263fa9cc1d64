"""The two ways in which a run ends early without a fault in the program."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong; the message is all they need to see.

    The message names the file, the key or the value, what was expected, and how to mend it. Entry points print
    it without a traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"error: {self}"]


class Interrupted(BaseException):
    """A signal asked for a stop, and a checkpoint was written.

    Args:
        signal: The signal's number.
        message: What was kept and how to go on.
    """

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal
