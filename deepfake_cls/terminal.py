"""Tables and questions on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from deepfake_cls.errors import InputError


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Print a table; cells of the columns in ``whole`` are never broken over lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column in whole, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Wide enough that a folder or command is not wrapped if the output is a file.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)
    console.print(table)


def delete(
    going: Sequence[tuple[Path, int]], remove: Callable[[Path], str], key: str, yes: bool, remark: str = ""
) -> None:
    """Show folders with their sizes, ask whether to delete them, and delete them.

    Args:
        going: The folders and their sizes in bytes.
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
    if not yes and not sys.stdin.isatty():
        raise InputError(f"{key}: nothing was deleted; without a terminal, confirm with yes=true.")
    folders = f"{len(going)} folder{'s' * (len(going) != 1)}"
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
    """Bytes of all files in a folder; links count as links."""
    files = (Path(parent, name) for parent, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)


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
