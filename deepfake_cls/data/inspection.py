"""The properties and the appearance of all images of a split, read in parallel and cached beside the decoded images."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.data.appearance import Appearance, appearance_of, empty
from deepfake_cls.data.build import cores, progress_bar, run_chunks
from deepfake_cls.data.decode import DecodeError
from deepfake_cls.data.properties import Properties, alpha_of, digest_of_pixels, read_image
from deepfake_cls.data.readers import Reader
from deepfake_cls.errors import OutputError
from deepfake_cls.files import write_atomically

_log = logging.getLogger(__name__)
_VERSION = 1  # raise it when a property or the appearance is read in another way
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
    file = _file(reader, cache, "inspection")
    columns = _load(file, _empty(), len(reader))
    return Inspection(columns or _inspect(reader, file, None, workers or cores(), progress)[0])


def inspect_pixels(
    reader: Reader, cache: Path, workers: int | None = None, progress: bool = False
) -> tuple[Inspection, Appearance]:
    """Read the properties of all images of a split and their appearance, in one pass; for arguments see ``inspect``."""
    file, looks_file = (_file(reader, cache, name) for name in ("inspection", "appearance"))
    columns, looks = _load(file, _empty(), len(reader)), _load(looks_file, vars(empty(0)), len(reader))
    if columns is None or looks is None:
        columns, looks = _inspect(reader, file, looks_file, workers or cores(), progress)
    return Inspection(columns), Appearance(**looks)


def _file(reader: Reader, cache: Path, name: str) -> Path:
    """The file in the cache; its name is a hash of all that determines the pixels."""
    hasher = hashlib.sha256(f"{_VERSION}".encode())
    for part in reader.content():
        hasher.update(f"\n{part}".encode(errors="surrogateescape"))
    return cache / f"{name}-{hasher.hexdigest()[:32]}.npz"


def _load(file: Path, expected: _Columns, count: int) -> _Columns | None:
    """The cached columns of so many images; None if there are none, or the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in expected}
    except Exception:  # numpy and zipfile raise any exception for a damaged file
        return None
    shapes = {name: (count, *column.shape[1:]) for name, column in expected.items()}
    return columns if all(columns[name].shape == shape for name, shape in shapes.items()) else None


def _save(file: Path, columns: _Columns) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)  # type: ignore[arg-type]  # numpy's stub
    try:
        write_atomically(file, buffer.getbuffer(), "choose another folder with data.cache=PATH")
    except OutputError as error:  # the columns are complete without it
        _log.warning("%s", error)


def _inspect(
    reader: Reader, file: Path, looks_file: Path | None, workers: int, progress: bool
) -> tuple[_Columns, _Columns]:
    """Read and save the properties, and the appearance if it has a file."""
    found: list[Properties] = [Properties()] * len(reader)
    looks = vars(empty(len(reader) if looks_file else 0))
    with progress_bar(progress) as bar:
        task = bar.add_task("Inspecting", total=len(reader))
        read = functools.partial(_inspect_rows, reader, looks_file is not None)
        for rows, results in run_chunks(reader, read, workers):
            for row, (properties, look) in zip(rows, results, strict=True):
                found[row] = properties
                for name, column in looks.items() if look is not None else ():
                    column[row] = getattr(look, name)[0]
            bar.advance(task, len(rows))
    columns = {name: np.array([getattr(one, name) for one in found]) for name in _empty()}
    _save(file, columns)
    if looks_file is not None:
        _save(looks_file, looks)
    return columns, looks


def _empty() -> _Columns:
    return {entry.name: np.zeros(0) for entry in fields(Properties)}


def _inspect_rows(reader: Reader, looks: bool, rows: range) -> _Chunk:
    """Read the properties of some images, and with ``looks`` their appearance; runs in a worker."""
    results = []
    for row in rows:
        properties, pixels = _read_row(reader, row)
        results.append((properties, appearance_of(pixels) if looks and pixels is not None else None))
    return rows, results


def _read_row(reader: Reader, row: int) -> tuple[Properties, NDArray[np.uint8] | None]:
    encoded = reader.encoded(row)
    if encoded is not None:
        return read_image(encoded)
    try:
        pixels, _ = reader.read(row, None)
    except DecodeError as error:
        return Properties(error=str(error)), None
    digest = digest_of_pixels(pixels)
    return Properties(height=pixels.shape[0], width=pixels.shape[1], alpha=alpha_of(pixels), digest=digest), pixels
