"""Folders and tables on disk: names listed, rows read. No image file is opened."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_cls.data.decode import image_suffixes
from deepfake_cls.errors import InputError

_LISTED = 20


def listing(problems: Sequence[str]) -> str:
    """Problems as indented lines: the first 20, then how many more there are."""
    lines = [f"\n  {problem}" for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"\n  and {len(problems) - _LISTED} more")
    return "".join(lines)


@dataclass(frozen=True)
class Folder:
    """What one folder holds, each list sorted; hidden entries are among ``others``."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def scan(path: Path) -> Folder:
    """List a folder in one pass: entry types come with the names, so the disk is not asked file by file.

    Raises:
        InputError: The folder cannot be read.
    """
    found = Folder()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    found.others.append(entry.name)
                elif entry.is_dir():
                    found.folders.append(entry.name)
                elif _is_image(entry):
                    found.images.append(entry.name)
                else:
                    found.others.append(entry.name)
    except OSError as error:
        raise InputError(f"{path} cannot be listed: {error.strerror or error}.") from error
    for names in (found.images, found.folders, found.others):
        names.sort()
    return found


def _is_image(entry: os.DirEntry[str]) -> bool:
    # A link that leads nowhere counts, so that it is reported as missing; a pipe would hang who reads it.
    named = stem_and_suffix(entry.name)[1] in image_suffixes()
    return named and (entry.is_file() or entry.is_symlink())


def read_csv(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a table in UTF-8, comma-separated, with a header.

    Args:
        path: The file.
        columns: Columns that the header must have once each; others may stand beside them.

    Returns:
        The header; and of each row that is not blank its line number and its cells, without spaces around them.

    Raises:
        InputError: The file cannot be read, is no such table, or has no rows.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; comma-separated values are expected.") from error
    if any(header.count(column) != 1 for column in columns):
        found, expected = ",".join(header), ",".join(columns)
        raise InputError(f"{path} has the columns {found!r} in its first line; {expected!r} is expected.")
    rows = [(line, cells) for line, cells in rows if cells not in ([], [""])]
    if not rows:
        raise InputError(f"{path} has no rows below its header; a row for each image is expected.")
    return header, rows


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the table with the encoding UTF-8.") from error


def stem_and_suffix(name: str) -> tuple[str, str]:
    """A file's name without its suffix, and the suffix in lower case with its dot."""
    stem, _, suffix = name.rpartition(".")  # pathlib takes ten times as long
    return (stem, f".{suffix.lower()}") if stem else (name, "")
