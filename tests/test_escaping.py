from __future__ import annotations

import pytest

from deepfake_cls.escaping import csv_cell, printable


def original(cell: str) -> str:
    """The text that ``csv_cell`` has escaped, as its docstring says."""
    return cell.encode("latin-1", "backslashreplace").decode("unicode_escape")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("holiday/IMG 1 (é, 日本).png", "holiday/IMG 1 (é, 日本).png"),
        ("-5", "-5"),
        ("=1", r"\x3d1"),
        (" +1", r" \x2b1"),
        ("＝1", r"\uff1d1"),
        ("a\\x0ab", r"a\\x0ab"),
        ("a\nb", r"a\x0ab"),
        ("\u202egnp.exe\udc80😀", r"\u202egnp.exe\udc80😀"),
    ],
)
def test_cells_are_harmless_and_reversible(text: str, expected: str) -> None:
    assert csv_cell(text) == expected
    assert original(expected) == text
    assert printable(csv_cell(text)) == csv_cell(text)
