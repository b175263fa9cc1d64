"""``data=unibuc``: a table of image ids for each split, and beside it a folder with the images.

``train.csv`` and ``validation.csv`` have the columns ``image_id,label``, ``test.csv`` has ``image_id``. The images lie
in a folder of the table's name and are found by id, whatever their suffix. All tables but the first are optional.
"""

from __future__ import annotations

import itertools
import logging
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from deepfake_cls.config import UnibucConfig
from deepfake_cls.data.listing import listing, read_csv, scan, stem_and_suffix
from deepfake_cls.data.manifest import STANDARD_SPLITS, Split
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)


@source("unibuc")
class UnibucSource(FileSource):
    """CSV tables and a folder of images for each split."""

    Config = UnibucConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See `FileSource`."""
        if not (root / "train.csv").is_file():
            found = scan(root)
            hint = " It looks like data=folder." if found.images or "train" in found.folders else ""
            raise InputError(
                f"{root} does not look like data=unibuc: there is no train.csv in it (image_id,label), with the "
                f"images in {root / 'train'}.{hint}"
            )
        tables: dict[str, Table] = {}
        for name in STANDARD_SPLITS:
            path, folder = root / f"{name}.csv", root / name
            if not path.is_file():
                continue
            if not folder.is_dir() and name == "test":
                _log.warning("%s is there, its images in %s are not: the split test is left out", path, folder)
                continue
            if not folder.is_dir():
                raise InputError(f"{path} is there, but not the folder of its images, {folder}.")
            tables[name] = read_table(path, folder, labelled=name != "test", allow_missing=self.skips_bad_images)
        problems = [problem for table in tables.values() for problem in table.problems]
        problems = problems or label_problems(tables["train"], tables.get("validation"))
        if problems:
            raise InputError(f"{root} does not follow the layout data=unibuc:{listing(problems)}")
        classes = tuple(str(label) for label in range(max(tables["train"].labels) + 1))
        return classes, [
            Split(name, tuple(table.ids), np.array(table.labels, np.int64), tuple(table.paths))
            for name, table in tables.items()
        ]


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
    header, rows = read_csv(path, ("image_id", "label") if labelled else ("image_id",))
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
            self.stems.setdefault(stem_and_suffix(name)[0], []).append(name)

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
