"""``data=unibuc``: for each split a table of image ids, and a folder of the same name that contains the images.

``train.csv`` and ``validation.csv`` have the columns ``image_id,label``; ``test.csv`` has ``image_id``. An image is
found by its id, with any suffix. Only ``train.csv`` is required.
"""

from __future__ import annotations

import itertools
import logging
import posixpath
import re
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np

from deepfake_cls.config import UnibucConfig
from deepfake_cls.data.listing import indented, read_csv, scan, stem_and_suffix
from deepfake_cls.data.manifest import STANDARD_SPLITS, Split
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)


@source("unibuc")
class UnibucSource(FileSource):
    """One CSV table and one folder of images for each split."""

    Config = UnibucConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See ``FileSource``."""
        if not (root / "train.csv").is_file():
            top = scan(root)
            hint = " It looks like data=folder." if top.images or "train" in top.folders else ""
            raise InputError(
                f"{root} does not look like data=unibuc: it has no train.csv (image_id,label) with the images in "
                f"{root / 'train'}.{hint}"
            )
        tables: dict[str, list[_Row]] = {}
        problems: list[str] = []
        for name in STANDARD_SPLITS:
            path, folder = root / f"{name}.csv", root / name
            if not path.is_file():
                continue
            if not folder.is_dir() and name == "test":
                _log.warning("%s exists, but its images in %s do not: the split test is omitted", path, folder)
                continue
            if not folder.is_dir():
                raise InputError(f"{path} exists, but the folder of its images, {folder}, does not.")
            tables[name], row_problems = _read_table(path, folder, name != "test", self.skips_bad_images)
            problems += row_problems
        problems = problems or _label_problems(root, tables)
        if problems:
            raise InputError(f"{root} does not follow the layout data=unibuc:{indented(problems)}")
        classes = tuple(str(label) for label in range(max(row.label for row in tables["train"]) + 1))
        return classes, [
            Split(
                name,
                tuple(row.image_id for row in rows),
                np.array([row.label for row in rows], np.int64),
                tuple(row.path for row in rows),
            )
            for name, rows in tables.items()
        ]


class _Row(NamedTuple):
    """A row of a table; the label is −1 if the table has none."""

    line: int
    image_id: str
    label: int
    path: Path


def _read_table(path: Path, folder: Path, labelled: bool, allow_missing: bool) -> tuple[list[_Row], list[str]]:
    """Read a table of image ids and find their files in the folder.

    With ``allow_missing``, an id without a file gets a path that does not exist; otherwise it is a problem.

    Returns:
        The rows, and a message for each row that is wrong.
    """
    table: list[_Row] = []
    problems: list[str] = []
    files = _ImageFiles(folder)
    line_of_file: dict[str, int] = {}
    header, rows = read_csv(path, ("image_id", "label") if labelled else ("image_id",))
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        image_id = file = row.get("image_id", "")
        label, problem = -1, ""
        try:
            if len(cells) > len(header):
                raise ValueError(f"{len(cells)} cells; expected {len(header)} (quote a cell that contains a comma)")
            if labelled:
                label = _parse_label(row.get("label", ""))
            file = files.find(image_id)
        except FileNotFoundError as error:
            problem = "" if allow_missing else str(error)
        except ValueError as error:
            problem = str(error)
        if not problem and line_of_file.setdefault(file, line) != line:
            problem = f"image_id {image_id!r} is the image of line {line_of_file[file]} again; list it once"
        if problem:
            problems.append(f"{path}, line {line}: {problem}")
        table.append(_Row(line, image_id, label, folder / file))
    return table, problems


def _label_problems(root: Path, tables: dict[str, list[_Row]]) -> list[str]:
    """Check that the labels of train are 0 to C−1, each with an image, and that validation has no other labels."""
    labels = {row.label for row in tables["train"]}
    count = max(labels) + 1
    # Only five are listed: one mistyped label can leave millions of classes empty.
    empty = ", ".join(map(str, itertools.islice((label for label in range(count) if label not in labels), 5)))
    problems = []
    if empty:
        problems.append(f"{root / 'train.csv'}: empty class {empty}: labels go up to {count - 1}, each needs an image")
    problems += [
        f"{root / 'validation.csv'}, line {row.line}: label {row.label} does not occur in train.csv"
        for row in tables.get("validation", ())
        if row.label >= count
    ]
    return problems


class _ImageFiles:
    """The image files of one folder, by name and by stem."""

    def __init__(self, path: Path) -> None:
        folder = scan(path)
        self.path = path
        self.names = {*folder.images, *folder.others}
        self.names_by_stem: dict[str, list[str]] = {}
        for name in folder.images:
            self.names_by_stem.setdefault(stem_and_suffix(name)[0], []).append(name)

    def find(self, image_id: str) -> str:
        """Return the file name of an id: a file name with or without its suffix.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the id is missing, ambiguous, or a path out of the folder.
        """
        if not image_id:
            raise ValueError("image_id is missing")
        if image_id in self.names:
            return image_id
        names = self.names_by_stem.get(image_id, [])
        if len(names) > 1:
            raise ValueError(
                f"image_id {image_id!r} can mean {' or '.join(names)} in {self.path}; remove one, or write "
                "the suffix in the table"
            )
        if not names and _leads_out(image_id):
            raise ValueError(f"image_id {image_id!r} leads out of {self.path}; expected a file in it")
        if not names:
            raise FileNotFoundError(f"there is no image {image_id!r} in {self.path}, with any suffix")
        return names[0]


def _leads_out(image_id: str) -> bool:
    path = posixpath.normpath(image_id.replace("\\", "/"))
    return path == ".." or path.startswith(("../", "/")) or bool(PureWindowsPath(image_id).drive)


def _parse_label(text: str) -> int:
    if not text:
        raise ValueError("label is missing; expected an integer from 0 up")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"label {text!r}: expected an integer from 0 up")
    return int(text)
