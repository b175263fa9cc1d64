"""List folders and read CSV tables. No image file is opened."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepfake_cls.data.decode import image_suffixes
from deepfake_cls.errors import InputError
from deepfake_cls.notation import override

_log = logging.getLogger(__name__)
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
    """Names in one folder, each list sorted. ``others`` includes hidden entries; ``links`` are also in another list."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def scan(path: Path) -> Folder:
    """List a folder in one pass, without a system call for each file.

    Raises:
        InputError: If the folder cannot be read.
    """
    folder = Folder()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    folder.links.append(entry.name)
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
    for names in (folder.images, folder.folders, folder.others, folder.links):
        names.sort()
    return folder


def _is_image(entry: os.DirEntry[str]) -> bool:
    if stem_and_suffix(entry.name)[1] not in image_suffixes():
        return False
    # A broken link counts, so that it is reported as a missing image. A pipe does not: reading it would hang.
    return entry.is_file() or entry.is_symlink()


def walk(root: Path) -> list[str]:
    """List the image files below a folder at any depth, as sorted paths relative to it.

    A link to a folder below the root is not followed, since the images in that folder have paths of their own.

    Raises:
        InputError: If a folder cannot be listed, or links lead out of the root.
    """
    inside, images, outside = root.resolve(), list[str](), list[str]()
    pending = [""]
    while pending:
        prefix = pending.pop()
        folder = scan(root / prefix)
        links = {name: (root / prefix / name).resolve() for name in folder.links}
        for name in (*folder.images, *folder.folders):
            if name in links and not links[name].is_relative_to(inside):
                outside.append(f"{prefix}{name} leads to {links[name]}")
            elif name in links and name in folder.folders:
                _log.warning("%s: the link %s to a folder in it is ignored", root, f"{prefix}{name}")
        images += [f"{prefix}{name}" for name in folder.images]
        pending += [f"{prefix}{name}/" for name in folder.folders if name not in links]
    if outside:
        raise InputError(
            f"{root} contains links that lead out of it; choose a data.root above the files, or copy them:"
            f"{indented(outside)}"
        )
    return sorted(images)


def locate(file: str, root: Path, key: str) -> Path:
    """The table of a key: a path that starts in the current folder or, if nothing is there, in the root.

    Raises:
        InputError: If there is no such file.
    """
    candidates = [Path(file).expanduser().absolute(), root / file]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise InputError(f"{override(key, file)}: there is no such file in the current folder or in {root}.")
    return found


def read_csv(
    path: Path, columns: tuple[str, ...], delimiter: str = ","
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a comma-separated table with a header, in UTF-8.

    Args:
        path: The file.
        columns: Columns that the header must have exactly once; other columns are allowed.
        delimiter: What separates the cells.

    Returns:
        The header; and for each row that is not blank its line number and its cells, stripped of spaces.

    Raises:
        InputError: If the file cannot be read, is not such a table, or has no rows.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; expected comma-separated values.") from error
    if any(header.count(column) != 1 for column in columns):
        expected = delimiter.join(columns)
        raise InputError(f"{path}: the first line is {delimiter.join(header)!r}; expected {expected!r}.")
    rows = [(line, cells) for line, cells in rows if cells not in ([], [""])]
    if not rows:
        raise InputError(f"{path} has no rows below its header; expected a row for each image.")
    return header, rows


def read_text(path: Path) -> str:
    """Read a table as text.

    Raises:
        InputError: If the file cannot be read or is not UTF-8.
    """
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
