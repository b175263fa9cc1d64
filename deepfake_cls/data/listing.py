"""List folders and read CSV tables. No image file is opened."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_cls.data.decode import image_suffixes
from deepfake_cls.errors import InputError

_MAX_PROBLEMS = 20


def entries(count: int) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{count} {'entry' if count == 1 else 'entries'}"


def indented(problems: Sequence[str]) -> str:
    """Format problems as indented lines: the first 20, then the number of the others."""
    lines = [f"\n  {problem}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"\n  and {len(problems) - _MAX_PROBLEMS} more")
    return "".join(lines)


@dataclass(frozen=True)
class Folder:
    """Names in one folder, each list sorted. ``others`` includes hidden entries."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def scan(path: Path) -> Folder:
    """List a folder in one pass, without a system call for each file.

    Raises:
        InputError: If the folder cannot be read.
    """
    folder = Folder()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    folder.others.append(entry.name)
                elif entry.is_dir():
                    folder.folders.append(entry.name)
                elif _is_image(entry):
                    folder.images.append(entry.name)
                else:
                    folder.others.append(entry.name)
    except OSError as error:
        raise InputError(f"{path} cannot be listed: {error.strerror or error}.") from error
    for names in (folder.images, folder.folders, folder.others):
        names.sort()
    return folder


def _is_image(entry: os.DirEntry[str]) -> bool:
    if stem_and_suffix(entry.name)[1] not in image_suffixes():
        return False
    # A broken link counts, so that it is reported as a missing image. A pipe does not: reading it would hang.
    return entry.is_file() or entry.is_symlink()


def read_csv(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a comma-separated table with a header, in UTF-8.

    Args:
        path: The file.
        columns: Columns that the header must have exactly once; other columns are allowed.

    Returns:
        The header; and for each row that is not blank its line number and its cells, stripped of spaces.

    Raises:
        InputError: If the file cannot be read, is not such a table, or has no rows.
    """
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected comma-separated values.") from error
    if any(header.count(column) != 1 for column in columns):
        raise InputError(f"{path}: the first line is {','.join(header)!r}; expected {','.join(columns)!r}.")
    rows = [(line, cells) for line, cells in rows if cells not in ([], [""])]
    if not rows:
        raise InputError(f"{path} has no rows below its header; expected a row for each image.")
    return header, rows


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the table in UTF-8.") from error


def stem_and_suffix(name: str) -> tuple[str, str]:
    """Split a file name into its stem and its suffix, in lower case with its dot."""
    stem, _, suffix = name.rpartition(".")  # pathlib takes ten times as long
    return (stem, f".{suffix.lower()}") if stem else (name, "")
