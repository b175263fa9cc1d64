"""``data=hf``: a Hugging Face data set on disk, read by the package ``datasets``.

``data.root`` is a folder of ``save_to_disk``, a folder of parquet files, or an ``imagefolder``. No code of the data set
runs, nothing is downloaded, and nothing is written to the root. The package converts parquet files once to a file of
its own in ``data.cache``, which it maps into memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL
from numpy.typing import NDArray

from deepfake_cls.config import HfConfig
from deepfake_cls.data.decode import DECODE_VERSION, DecodeError, decode
from deepfake_cls.data.entries import cache_folder
from deepfake_cls.data.manifest import Split, split_name
from deepfake_cls.data.named import NamedImage, cell_text, in_order, make_splits
from deepfake_cls.data.readers import Reader, size_and_time
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError, reason


@source("hf")
class HfSource(FileSource):
    """A Hugging Face data set on disk."""

    Config = HfConfig
    config: HfConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See ``FileSource``."""
        config, root = self.config, root.resolve()  # the package resolves links too
        splits = self._load(root)
        labels = {name: _texts(split, config.label) for name, split in splits.items()}
        groups = {name: _texts(split, config.group) for name, split in splits.items()}
        images = [
            NamedImage(split_name(name), image_id, labels[name][row], groups[name][row])
            for name, split in splits.items()
            for row, image_id in enumerate(_ids(split, name, config.image, root))
        ]
        named = {image.class_name for image in images if image.class_name is not None}
        features = [split.features[config.label] for split in splits.values() if config.label in split.features]
        # The order of a ClassLabel is kept; names without images are left out.
        order = dict.fromkeys(name for feature in features for name in getattr(feature, "names", ()))
        return make_splits(images, classes=tuple(name for name in order if name in named) or in_order(named))

    def reader(self, split: Split, size: tuple[int, int] | None) -> Reader:
        """See ``Source``."""
        from datasets import Image, concatenate_datasets

        assert split.rows is not None
        name, root = self.config.image, self._root().resolve()
        parts = [part.select_columns([name]) for part in self._load(root).values()]
        images = concatenate_datasets([part.cast_column(name, Image(decode=False)) for part in parts])
        if size is None and self.config.size is not None:
            size = (self.config.size[0], self.config.size[1])
        return Rows(images, name, split.rows, root, size, self.config.resize, self.config.reencode)

    def _load(self, root: Path) -> dict[str, Any]:
        """The data set's splits, each a ``datasets.Dataset``, in alphabetical order.

        Raises:
            InputError: If the package is missing, or the folder is no such data set or lacks a column.
        """
        splits = _load(root, cache_folder(self.config.cache) / "datasets")
        keys = {"image": self.config.image, "label": self.config.label, "group": self.config.group}
        for key, column in keys.items():
            # The test split may have no labels.
            has = [column is None or column in split.features for split in splits.values()]
            if not (all(has) if key == "image" else any(has)):
                names = ", ".join(dict.fromkeys(name for split in splits.values() for name in split.features))
                null = " or null" * (key != "image")
                raise InputError(
                    f"data.{key}={column}: the data set has no such column; its columns are {names}: write"
                    f" data.{key}=NAME{null}."
                )
        return splits


def _load(root: Path, cache: Path) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise InputError("data=hf needs the package datasets: pip install 'deepfake-cls[hf]'.") from error
    from unittest.mock import patch

    quiet = not (sys.stderr.isatty() or datasets.are_progress_bars_disabled())
    if quiet:
        datasets.disable_progress_bars()
    try:
        # Without these settings, the package reports each use of a format to a server.
        with patch.multiple(datasets.config, HF_HUB_OFFLINE=True, HF_UPDATE_DOWNLOAD_COUNTS=False):
            if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
                found = datasets.load_from_disk(str(root))
            else:
                # Only these two formats are read: the name of the folder itself would run a script in it.
                form = "parquet" if next(root.rglob("*.parquet"), None) is not None else "imagefolder"
                found = datasets.load_dataset(form, data_dir=str(root), cache_dir=str(cache))
    except Exception as error:  # the package raises any exception for another folder
        raise InputError(
            f"{root} cannot be read by data=hf ({reason(error)}); expected a folder of save_to_disk, parquet files, or"
            " an imagefolder."
        ) from error
    finally:
        if quiet:
            datasets.enable_progress_bars()
    splits = found if isinstance(found, dict) else {str(found.split or "train"): found}
    return {name: splits[name] for name in sorted(splits)}


def _texts(split: Any, column: str | None) -> list[str | None]:
    """The cells of a column as text, classes by their names; None where a value is unknown."""
    if column is None or column not in split.features:
        return [None] * len(split)
    names = getattr(split.features[column], "names", None)
    cells = split.select_columns([column])[:][column]
    if names is not None:
        return [names[cell] if cell is not None and cell >= 0 else None for cell in cells]
    try:
        return [cell_text(cell) or None for cell in cells]
    except ValueError as error:
        raise InputError(f"The column {column} of the data set {error}.") from error


def _ids(split: Any, name: str, column: str, root: Path) -> Iterator[str]:
    """An id for each image: its path below the root, or its split, its row and the name of its file."""
    from datasets import Image

    images = split.select_columns([column]).cast_column(column, Image(decode=False))
    paths = (path for chunk in images.data.column(column).chunks for path in chunk.field("path").to_pylist())
    for row, path in enumerate(paths):
        in_root = path and Path(path).is_absolute() and Path(path).is_relative_to(root)
        own = f"-{Path(path).name}" if path else ""
        yield Path(path).relative_to(root).as_posix() if in_root else f"{name}-{row:06d}{own}"


@dataclass(frozen=True, eq=False)
class Rows(Reader):
    """Rows of a data set.

    Attributes:
        images: A ``datasets.Dataset`` with one column, the encoded images.
        column: Its name.
        rows: int64 (N,), the rows of the images.
        root: The folder that files have to be in, without links.
        size: See ``Reader``.
        resize: Resize images of another size instead of refusing them.
        reencode: See ``decode``.
    """

    doing: ClassVar[str] = "Decoding"
    images: Any
    column: str
    rows: NDArray[np.int64]
    root: Path
    size: tuple[int, int] | None = None
    resize: bool = False
    reencode: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """See ``Reader``."""
        return decode(self.encoded(row), size, resize=self.resize, reencode=self.reencode)

    def where(self, row: int) -> str:
        """See ``Reader``."""
        return f"row {self.rows[row]} of {self.root}"

    def encoded(self, row: int) -> Path | bytes:
        """See ``Reader``; DecodeError if there is no image, or it is a file out of the root."""
        cell = self.images[int(self.rows[row])][self.column] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if not cell.get("path"):
            raise DecodeError("has no image")
        path = self.root / str(cell["path"])
        if not path.resolve().is_relative_to(self.root):
            raise DecodeError(f"is the file {path}, which is out of data.root: copy it")
        return path

    def content(self) -> Iterator[str]:
        """Names, sizes and modification times of all files, and the rows."""
        reencode = "" if self.reencode is None else f" {self.reencode}"
        yield f"hf {DECODE_VERSION} {PIL.__version__} {self.size} {self.resize} {self.column}{reencode}"
        for path in sorted(self.root.rglob("*")):
            yield f"{path}\0{size_and_time(path)}"
        yield self.rows.tobytes().hex()
