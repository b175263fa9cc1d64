"""Folders and tables on disk: names listed, rows read, ids matched to files. No image file is opened."""

from __future__ import annotations

import csv
import io
import itertools
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

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
    named = _stem_and_suffix(entry.name)[1] in image_suffixes()
    return named and (entry.is_file() or entry.is_symlink())


@dataclass(frozen=True)
class Table:
    """The rows of one table, and what is wrong with them.

    Attributes:
        path: The table's file.
        ids: Image ids, in the table's order.
        labels: Labels as they were read; −1 where the table has none, or where it is wrong.
        paths: The image files.
        lines: Line of each row in the file, for messages.
        problems: One line of text for each thing that is wrong.
    """

    path: Path
    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_table(path: Path, folder: Path, *, labelled: bool, allow_missing: bool) -> Table:
    """Read a table of image ids and find their files.

    Args:
        path: CSV with the columns ``image_id`` and, if ``labelled``, ``label``; others are ignored.
        folder: Where the images lie. An id is a file's name, with or without its suffix.
        labelled: Whether labels are wanted.
        allow_missing: Give an id without a file a path that does not exist, instead of reporting it.

    Returns:
        The rows. Nothing in them may be used while there are ``problems``.

    Raises:
        InputError: The file is no such table at all, or has no rows.
    """
    table = Table(path)
    images = _Images(folder)
    seen: dict[str, int] = {}
    header, rows = _read_csv(path, ("image_id", "label") if labelled else ("image_id",))
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        image_id = file = row.get("image_id", "")
        label, wrong = -1, ""
        try:
            if len(cells) > len(header):
                raise ValueError(f"{len(cells)} cells, {len(header)} are expected; quote a comma within a cell")
            if labelled:
                label = _label(row.get("label", ""))
            file = images.find(image_id)
        except FileNotFoundError as error:
            wrong = "" if allow_missing else str(error)
        except ValueError as error:
            wrong = str(error)
        if not wrong and seen.setdefault(file, line) != line:
            wrong = f"image_id {image_id!r} is the image of line {seen[file]} again; list it once"
        if wrong:
            table.problems.append(f"{path}, line {line}: {wrong}")
        table.ids.append(image_id)
        table.labels.append(label)
        table.paths.append(folder / file)
        table.lines.append(line)
    return table


def label_problems(train: Table, validation: Table | None) -> list[str]:
    """What is wrong with the labels of tables that have no problems row by row.

    The labels of ``train`` must be 0 to C−1, each with an image; ``validation`` may have no others.
    """
    labels = set(train.labels)
    count = max(train.labels) + 1
    # A few are named: one mistyped label can leave millions of classes empty.
    empty = ", ".join(map(str, itertools.islice((n for n in range(count) if n not in labels), 5)))
    problems = []
    if empty:
        problems.append(f"{train.path}: empty class {empty}: labels go up to {count - 1}, each needs an image")
    if validation is not None:
        problems += [
            f"{validation.path}, line {line}: label {label} does not occur in {train.path.name}"
            for line, label in zip(validation.lines, validation.labels, strict=True)
            if label >= count
        ]
    return problems


class _Images:
    """The image files of one folder, by name and by stem."""

    def __init__(self, folder: Path) -> None:
        found = scan(folder)
        self.folder = folder
        self.names = {*found.images, *found.others}
        self.stems: dict[str, list[str]] = {}
        for name in found.images:
            self.stems.setdefault(_stem_and_suffix(name)[0], []).append(name)

    def find(self, image_id: str) -> str:
        """The file of an id; FileNotFoundError where there is none, ValueError where the id is no good."""
        if not image_id:
            raise ValueError("image_id is missing")
        if image_id in self.names:
            return image_id
        names = self.stems.get(image_id, [])
        if len(names) > 1:
            raise ValueError(
                f"image_id {image_id!r} can mean {' or '.join(names)} in {self.folder}; remove one, or write "
                "the suffix in the table"
            )
        if not names and _leads_out(image_id):
            raise ValueError(f"image_id {image_id!r} leads out of {self.folder}; name a file in it")
        if not names:
            raise FileNotFoundError(f"there is no image {image_id!r} in {self.folder}, with any suffix")
        return names[0]


def _leads_out(image_id: str) -> bool:
    inside = posixpath.normpath(image_id.replace("\\", "/"))
    return inside == ".." or inside.startswith(("../", "/")) or bool(PureWindowsPath(image_id).drive)


def _label(text: str) -> int:
    if not text:
        raise ValueError("label is missing; an integer from 0 up is expected")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"label {text!r} is no integer from 0 up")
    return int(text)


def _read_csv(path: Path, columns: tuple[str, ...]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and line number and stripped cells of each row that is not blank."""
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
        raise InputError(f"{path} has no rows below its header: the split {path.stem} is empty.")
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


def _stem_and_suffix(name: str) -> tuple[str, str]:
    stem, _, suffix = name.rpartition(".")  # pathlib takes ten times as long
    return (stem, f".{suffix.lower()}") if stem else (name, "")
