"""Tables and questions on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from deepfake_cls.errors import InputError

LONGEST_WORD = 36  # columns that a word gets if the table is too wide
_GAP = 3  # columns between two cells, at most


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: Sequence[str] = (),
    omit: Sequence[str] = (),
    paths: str | None = None,
) -> None:
    """Print a table. A word is broken over lines only if it is very long, and a header never.

    Args:
        columns: The headers.
        rows: The cells.
        whole: Columns whose cells are never broken over lines.
        omit: Columns that a narrow terminal does not show, the first one first.
        paths: A column whose cells a narrow terminal cuts at their start.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # Wide enough that a folder or command is not wrapped if the output is a file.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
    cells = {column: [row[index] for row in rows] for index, column in enumerate(columns)} if (rows := [*rows]) else {}
    widths = {column: _needed(column, cells.get(column, []), column in whole) for column in columns}
    for column in omit:
        if sum(widths.values()) + _GAP * (len(widths) - 1) > console.width:
            widths.pop(column, None)
    if paths is not None:
        others = sum(width for column, width in widths.items() if column != paths)
        room = console.width - others - _GAP * (len(widths) - 1)
        cells[paths] = [_cut_start(text, room) for text in cells.get(paths, [])]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in widths:
        least = 1 if column == paths else widths[column]
        table.add_column(column, no_wrap=column in whole, overflow="fold", min_width=least)
    for index in range(len(rows)):
        table.add_row(*(cells[column][index] for column in widths))
    with console.capture() as printed:
        console.print(table)
    print(printed.get().partition("\n")[2], end="")  # the first line is empty: a reader of two lines wants the header


def _needed(header: str, cells: Iterable[str], whole: bool) -> int:
    """The width below which a column would break words, or with ``whole`` lines."""
    if whole:
        return max(map(len, [header, *cells]))
    words = [word for text in cells for word in text.split()]
    return max([*map(len, header.split()), *(min(len(word), LONGEST_WORD) for word in words)], default=1)


def _cut_start(text: str, width: int) -> str:
    """The end of a path, ``…/photos``, if the whole is wider than ``width``."""
    if len(text) <= width or width < 2:
        return text
    end = text[1 - width :]
    return f"…{end[max(end.find('/'), 0) :]}"


def delete(
    going: Sequence[tuple[Path, int]], remove: Callable[[Path], str], key: str, yes: bool, remark: str = ""
) -> None:
    """Show folders or files with their sizes, ask whether to delete them, and delete them.

    Args:
        going: The folders or files, and their sizes in bytes.
        remove: Deletes one; returns why it did not, or an empty string.
        key: The override that asks to delete.
        yes: Delete without asking.
        remark: A sentence below the list.

    Raises:
        InputError: Without a terminal and without ``yes=true``.
    """
    if not going:
        print(f"{key}: there is nothing to delete.")
        return
    for path, size in going:
        print(f"{path}  {size_text(size)}")
    if remark:
        print(remark)
    if not yes and (sys.stdin is None or not sys.stdin.isatty()):
        raise InputError(f"{key}: nothing was deleted; without a terminal, confirm with yes=true.")
    noun = "folder" if all(path.is_dir() for path, _ in going) else "item"
    folders = f"{len(going)} {noun}{'s' * (len(going) != 1)}"
    if not yes and not _confirmed(f"Delete {folders}, {size_text(sum(size for _, size in going))}?"):
        print("Nothing was deleted.")
        return
    gone = []
    for path, size in going:
        reason = remove(path)
        if reason:
            print(f"{path}: {reason}; not deleted.")
        else:
            gone.append(size)
    print(f"Deleted {len(gone)} of {folders}, {size_text(sum(gone))}.")


def _confirmed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count as links."""
    total = path.lstat().st_size if path.is_file() else 0
    for parent, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # a process that works there deletes temporary files
                total += Path(parent, name).lstat().st_size
    return total


def size_text(count: float) -> str:
    """Bytes for a reader: ``340 B``, ``1.2 MB``."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "B" or count >= 99.5 else f"{count:.1f} {units[0]}"


def age_text(seconds: float) -> str:
    """A time span in its largest unit: ``12 s``, ``5 min``, ``3 h``, ``20 d``."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
