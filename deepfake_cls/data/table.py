"""``data=table``: a table names each image with its label, and optionally its split and its group.

The content of the file says which of these it is:

- CSV or TSV with a header.
- A JSON list of objects, such as ForensicHub's ``[{"path": "a.png", "label": 1}, ...]``.
- JSON Lines: an object in each line.
- A JSON list of pairs of an image and its mask, such as IMDLBenCo's ``[["Tp/1.jpg", "Gt/1.jpg"], ["Tp/2.jpg",
  "Negative"], ...]``. The class is ``authentic`` for ``Negative``, else ``manipulated``; no mask is read.
"""

from __future__ import annotations

import functools
import json
import posixpath
from pathlib import Path
from typing import Any, NamedTuple

from deepfake_cls.config import TableConfig
from deepfake_cls.data.listing import Folder, indented, locate, read_csv, read_text, scan
from deepfake_cls.data.manifest import Split, split_name
from deepfake_cls.data.named import NamedImage, cell_text, make_splits
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError, reason

_OPTIONAL = ("split", "group")


class _Row(NamedTuple):
    """A row of a table: where it is, such as ``line 3``, and its cells by column."""

    where: str
    cells: dict[str, Any]


@source("table")
class TableSource(FileSource):
    """A table of image files."""

    Config = TableConfig
    config: TableConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See ``FileSource``."""
        path = locate(self.config.table, root, "data.table")
        rows = _read(path)
        columns = self._columns(path, rows)
        files = _Files(root)
        images, problems, row_of = list[NamedImage](), list[str](), dict[str, str]()
        for row in rows:
            try:
                image = _image(row.cells, columns, files, self.skips_bad_images)
                if row_of.setdefault(image.image_id, row.where) != row.where:
                    raise ValueError(f"{image.image_id} is the image of {row_of[image.image_id]} again; list it once")
            except (OSError, ValueError) as error:  # OSError: the path is too long
                problems.append(f"{row.where}: {error}")
            else:
                images.append(image)
        if problems:
            raise InputError(f"{path} cannot be used with data.root={root}:{indented(problems)}")
        return make_splits(images, root)

    def _columns(self, path: Path, rows: list[_Row]) -> dict[str, str]:
        """The columns that the table has, by their meaning."""
        found = dict.fromkeys(name for row in rows for name in row.cells)
        columns: dict[str, str] = {}
        for meaning, default in TableConfig().columns.items():
            name = self.config.columns.get(meaning, default)
            if name is None or (name == default and meaning in _OPTIONAL and name not in found):
                continue
            if len(found) == 1 and ";" in next(iter(found)):
                raise InputError(f"{path}: the cells of the first line are separated by ;, expected a comma or a tab.")
            if str(name) not in found:
                raise InputError(
                    f"{path} has no column {name!r} for the {meaning}; it has {', '.join(found)}: write"
                    f" data.columns.{meaning}=NAME{'' if meaning == 'path' else ', or null'}."
                )
            columns[meaning] = str(name)
        if "path" not in columns:
            raise InputError("data.columns.path=null: expected the column of the paths.")
        return columns


def _image(cells: dict[str, Any], columns: dict[str, str], files: _Files, allow_missing: bool) -> NamedImage:
    """The image of a row; ValueError says what is wrong with the row."""
    texts = {meaning: _text(cells.get(name), name) for meaning, name in columns.items()}
    if "split" in columns and not texts.get("split"):
        raise ValueError(f"{columns['split']} is missing; expected train, validation, test, or another name of a split")
    split = split_name(texts.get("split") or "train")
    label = texts.get("label") or None
    if label is None and "label" in columns and split == "train":
        raise ValueError(f"{columns['label']} is missing; expected a label for each image of train")
    image_id = files.find(texts["path"], allow_missing)
    return NamedImage(split, image_id, label, texts.get("group") or None)


def _text(cell: Any, column: str) -> str:
    try:
        return cell_text(cell)
    except ValueError as error:
        raise ValueError(f"{column} {error}") from error


class _Listed(NamedTuple):
    """The entries of a folder. ``outside``: it is reached by a link out of the root, and not listed."""

    images: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    outside: bool = False


class _Files:
    """The files below a folder, each folder of which is listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self.inside = root, root.resolve()
        self._listed = functools.cache(self._list)

    def find(self, text: str, allow_missing: bool) -> str:
        """Return the path of a file below the root.

        Args:
            text: The path in the table: relative to the root, or absolute.
            allow_missing: Accept a path in the root that names no file.

        Raises:
            ValueError: If it is missing, leads out of the root, or names no file.
        """
        if not text:
            raise ValueError("the path is missing")
        path = posixpath.normpath(text.replace("\\", "/"))
        if path.startswith("/"):
            path = path.removeprefix(f"{self.root}/").removeprefix(f"{self.inside}/")
        if path.startswith(("/", "../")) or path == "..":
            raise ValueError(f"{text} leads out of data.root; expected a file in it")
        prefix, name = posixpath.split(path)
        folder = self._listed(prefix)
        if folder.outside or (name in folder.links and not self._is_inside(path)):
            raise ValueError(f"{text} leads out of data.root by a link; copy the file, or choose a data.root above it")
        if name not in folder.images and not allow_missing and not (self.root / path).is_file():
            raise ValueError(f"there is no file {path} in data.root")
        return path

    def _list(self, prefix: str) -> _Listed:
        if not self._is_inside(prefix):
            return _Listed(outside=True)
        found = scan(self.root / prefix) if (self.root / prefix).is_dir() else Folder()
        return _Listed(frozenset(found.images), frozenset(found.links))

    def _is_inside(self, path: str) -> bool:
        return (self.root / path).resolve().is_relative_to(self.inside)


def _read(path: Path) -> list[_Row]:
    """The rows of a table.

    Raises:
        InputError: If the file cannot be read, is no such table, or has no rows.
    """
    text = read_text(path)
    if text.lstrip()[:1] == "[":
        rows = _json_list(path, text)
    elif text.lstrip()[:1] == "{":
        rows = _json_lines(path, text)
    else:
        first = text.partition("\n")[0]
        header, lines = read_csv(path, (), "\t" if "\t" in first else ",")
        if len({*header}) < len(header):
            raise InputError(f"{path}: the first line is {first!r}; expected different names of columns.")
        wide = [line for line, cells in lines if len(cells) > len(header)]
        if wide:
            raise InputError(
                f"{path}, line {wide[0]}: more cells than the {len(header)} columns; quote a cell that contains"
                " the separator."
            )
        rows = [_Row(f"line {line}", dict(zip(header, cells, strict=False))) for line, cells in lines]
    if not rows:
        raise InputError(f"{path} has no rows; expected a row for each image.")
    return rows


def _json_list(path: Path, text: str) -> list[_Row]:
    entries = _json(path, text)
    rows = []
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, list) and len(entry) == 2:
            entry = {"path": entry[0], "label": "authentic" if entry[1] == "Negative" else "manipulated"}
        if not isinstance(entry, dict):
            raise InputError(
                f'{path}, entry {number}: expected an object such as {{"path": ..., "label": ...}}, or a pair of an'
                " image and its mask."
            )
        rows.append(_Row(f"entry {number}", entry))
    return rows


def _json_lines(path: Path, text: str) -> list[_Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            entry = _json(path, line, number)
            if not isinstance(entry, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object in each line.")
            rows.append(_Row(f"line {number}", entry))
    return rows


def _json(path: Path, text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = getattr(error, "lineno", 1) if line is None else line
        what = "a list" if line is None else "an object in each line"
        raise InputError(f"{path}, line {where}: not JSON ({reason(error)}); expected {what}.") from error
