"""The properties and the appearance of all images of a split, read in parallel and cached beside the decoded images."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from deepfake_cls.data.appearance import Appearance, appearance_of, empty
from deepfake_cls.data.build import cores, progress_bar, run_chunks
from deepfake_cls.data.decode import DecodeError
from deepfake_cls.data.properties import Properties, alpha_of, digest_of_pixels, read_image
from deepfake_cls.data.readers import Reader
from deepfake_cls.errors import OutputError
from deepfake_cls.files import write_atomically

_log = logging.getLogger(__name__)
_VERSION = 2  # raise it when a property or the appearance is read in another way
_NAMES = tuple(entry.name for entry in fields(Properties))
_Columns: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
_Chunk: TypeAlias = tuple[range, list[tuple[Properties, Appearance | None]]]


@dataclass(frozen=True, eq=False)
class Inspection:
    """The properties of N images, as columns; an image of an embedded data set has a digest only.

    Attributes:
        columns: For each field of :class:`Properties` an array (N,), by its name.
    """

    columns: Mapping[str, np.ndarray[Any, np.dtype[Any]]]

    def __len__(self) -> int:
        return len(self.columns["bytes"])

    def __getitem__(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        return self.columns[name]

    def subset(self, rows: np.ndarray[Any, np.dtype[Any]]) -> Inspection:
        """The properties of some images: a mask (N,) or row numbers."""
        return Inspection({name: column[rows] for name, column in self.columns.items()})


def inspect(reader: Reader, cache: Path, workers: int | None = None, progress: bool = False) -> Inspection:
    """Read the properties of all images of a split; decode them to get the digests, unless they are in the cache.

    Args:
        reader: The images, of any size.
        cache: Folder of the cache, see ``entries.cache_folder``.
        workers: Threads or processes; None: one for each core.
        progress: Show a progress bar.

    Raises:
        InputError: If a worker process died.
    """
    return Inspection(_read(reader, cache, False, workers or cores(), progress))


def inspect_pixels(
    reader: Reader, cache: Path, workers: int | None = None, progress: bool = False
) -> tuple[Inspection, Appearance]:
    """Read the properties of all images of a split and their appearance, in one pass; for arguments see ``inspect``."""
    columns = _read(reader, cache, True, workers or cores(), progress)
    looks = {name: columns[name] for name in vars(empty(0))}
    return Inspection({name: columns[name] for name in _NAMES}), Appearance(**looks)


def _read(reader: Reader, cache: Path, looks: bool, workers: int, progress: bool) -> _Columns:
    """The columns of the properties, and with ``looks`` those of the appearance, from the cache or the images."""
    file = _file(reader, cache, looks)
    columns = _load(file, looks, len(reader))
    if columns is None:
        with _lock(file):
            columns = _load(file, looks, len(reader))  # another process may have written it meanwhile
            if columns is None:
                columns = _inspect(reader, looks, workers, progress)
                _save(file, columns)
                if looks:
                    _save(_file(reader, cache, False), {name: columns[name] for name in _NAMES})  # for a training
    return columns


def _file(reader: Reader, cache: Path, looks: bool) -> Path:
    """The file in the cache; its name is a hash of all that determines its content."""
    hasher = hashlib.sha256(f"{_VERSION}{' with appearance' if looks else ''}".encode())
    for part in reader.content():
        hasher.update(f"\n{part}".encode(errors="surrogateescape"))
    return cache / f"inspection-{hasher.hexdigest()[:32]}.npz"


def _lock(file: Path) -> AbstractContextManager[object]:
    """A lock, so that of several processes one reads the images; none if the cache cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file.with_suffix(".lock")).acquire()
    except OSError:
        return nullcontext()


def _load(file: Path, looks: bool, count: int) -> _Columns | None:
    """The cached columns of so many images; None if there are none, or the file is damaged."""
    expected = {name: np.zeros(0) for name in _NAMES} | (vars(empty(0)) if looks else {})
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in expected}
        with suppress(OSError):  # the cache may be read-only
            os.utime(file)  # when it was last used, for the command cache
    except Exception:  # numpy and zipfile raise any exception for a damaged file
        return None
    complete = all(columns[name].shape == (count, *column.shape[1:]) for name, column in expected.items())
    return columns if complete else None


def _save(file: Path, columns: _Columns) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]  # numpy's stub
    try:
        write_atomically(file, buffer.getbuffer(), "choose another folder with data.cache=PATH")
    except OutputError as error:  # the columns are complete without it
        _log.warning("%s", error)


def _inspect(reader: Reader, looks: bool, workers: int, progress: bool) -> _Columns:
    found: list[Properties] = [Properties()] * len(reader)
    appearance = vars(empty(len(reader))) if looks else {}
    with progress_bar(progress) as bar:
        task = bar.add_task("Inspecting", total=len(reader))
        for rows, results in run_chunks(reader, functools.partial(_inspect_rows, reader, looks), workers):
            for row, (properties, look) in zip(rows, results, strict=True):
                found[row] = properties
                for name, column in appearance.items() if look is not None else ():
                    column[row] = getattr(look, name)[0]
            bar.advance(task, len(rows))
    return {name: np.array([getattr(one, name) for one in found]) for name in _NAMES} | appearance


def _inspect_rows(reader: Reader, looks: bool, rows: range) -> _Chunk:
    """Read the properties of some images, and with ``looks`` their appearance; runs in a worker."""
    results = []
    for row in rows:
        properties, pixels = _read_row(reader, row)
        results.append((properties, appearance_of(pixels) if looks and pixels is not None else None))
    return rows, results


def _read_row(reader: Reader, row: int) -> tuple[Properties, NDArray[np.uint8] | None]:
    try:
        encoded = reader.encoded(row)
        if encoded is not None:
            return read_image(encoded)
        pixels, _ = reader.read(row, None)
    except DecodeError as error:
        return Properties(error=str(error)), None
    digest = digest_of_pixels(pixels)
    return Properties(height=pixels.shape[0], width=pixels.shape[1], alpha=alpha_of(pixels), digest=digest), pixels
