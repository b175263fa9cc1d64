"""Text from outside, such as file names, made harmless for a terminal, a CSV file and a spreadsheet."""

from __future__ import annotations

import re

# Control characters, marks that reverse the direction of text, line separators, and bytes that are not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A spreadsheet runs a cell that begins with one of these, in half or full width; a semicolon may begin a new cell.
_FORMULA = re.compile(r"(^|;)(\s*)([=+\-@＝＋－＠])")
_NUMBER = re.compile(r"[+-]?[0-9.]+")


def printable(text: str, keep: str = "") -> str:
    r"""Write unsafe characters as ``\x1b`` or ``\udcff``, except those in ``keep``."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def csv_cell(text: str) -> str:
    r"""Escape a cell so that it is printable, valid UTF-8 and no formula; different texts stay different.

    Unsafe characters and the first character of a formula become ``\xNN`` or ``\uNNNN``, and a backslash becomes two.
    ``cell.encode("latin-1", "backslashreplace").decode("unicode_escape")`` gives the text back.
    """
    text = printable(text.replace("\\", "\\\\"))
    if _NUMBER.fullmatch(text):
        return text
    return _FORMULA.sub(lambda match: f"{match[1]}{match[2]}{_escaped(match[3])}", text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
