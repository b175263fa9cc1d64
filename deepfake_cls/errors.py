"""The one kind of error that is the input's fault and not the program's."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong; the message is all they need to see.

    The message names the file, the key or the value, what was expected, and how to mend it. Entry points print
    it without a traceback.
    """
