"""The properties of all images of a split, read in parallel and cached beside the decoded images."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from deepfake_cls.data.build import cores, progress_bar, run_chunks
from deepfake_cls.data.decode import DecodeError
from deepfake_cls.data.properties import Properties, digest_of_pixels, read_properties
from deepfake_cls.data.readers import Reader
from deepfake_cls.errors import OutputError
from deepfake_cls.files import write_atomically

_log = logging.getLogger(__name__)
_VERSION = 1  # raise it when a property is read in another way
_NAMES = tuple(entry.name for entry in fields(Properties))
_Chunk: TypeAlias = tuple[range, list[Properties]]


@dataclass(frozen=True, eq=False)
class Inspection:
    """The properties of N images, as columns; an image of an embedded data set has a digest only.

    Attributes:
        columns: For each field of :class:`Properties` an array (N,), by its name.
    """

    columns: dict[str, np.ndarray[tuple[int], np.dtype[Any]]]

    def __len__(self) -> int:
        return len(self.columns["bytes"])

    def __getitem__(self, name: str) -> np.ndarray[tuple[int], np.dtype[Any]]:
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
    hasher = hashlib.sha256(f"{_VERSION}".encode())
    for part in reader.content():
        hasher.update(f"\n{part}".encode(errors="surrogateescape"))
    file = cache / f"inspection-{hasher.hexdigest()[:32]}.npz"
    inspection = _load(file, len(reader))
    if inspection is None:
        inspection = _inspect(reader, workers or cores(), progress)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **inspection.columns)  # type: ignore[arg-type]  # numpy's stub
        try:
            write_atomically(file, buffer.getvalue(), "choose another folder with data.cache=PATH")
        except OutputError as error:  # the properties are complete without it
            _log.warning("%s", error)
    return inspection


def _load(file: Path, count: int) -> Inspection | None:
    """The cached properties of so many images; None if there are none, or the file is damaged."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in _NAMES}
    except Exception:  # numpy and zipfile raise any exception for a damaged file
        return None
    return Inspection(columns) if all(column.shape == (count,) for column in columns.values()) else None


def _inspect(reader: Reader, workers: int, progress: bool) -> Inspection:
    found: list[Properties] = [Properties()] * len(reader)
    with progress_bar(progress) as bar:
        task = bar.add_task("Inspecting", total=len(reader))
        for rows, properties in run_chunks(reader, functools.partial(_inspect_rows, reader), workers):
            found[rows.start : rows.stop] = properties
            bar.advance(task, len(rows))
    return Inspection({name: np.array([getattr(one, name) for one in found]) for name in _NAMES})


def _inspect_rows(reader: Reader, rows: range) -> _Chunk:
    """Read the properties of some images; runs in a worker."""
    return rows, [_inspect_row(reader, row) for row in rows]


def _inspect_row(reader: Reader, row: int) -> Properties:
    try:
        encoded = reader.encoded(row)
        if encoded is not None:
            return read_properties(encoded)
        pixels, _ = reader.read(row, None)
    except DecodeError as error:
        return Properties(error=str(error))
    return replace(Properties(), height=pixels.shape[0], width=pixels.shape[1], digest=digest_of_pixels(pixels))
