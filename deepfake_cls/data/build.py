"""Decode or draw all images of a split, in parallel, into one file of raw uint8 rows.

The workers write the rows themselves, so that a process has only one image in memory. They use ``write`` instead of a
memory map: on a full disk ``write`` raises an error, while a memory map kills the process.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from deepfake_cls.data.decode import DecodeError, wrong_size
from deepfake_cls.data.readers import Reader
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

_CHUNK = 32  # images in a task: enough that the overhead of a task is small, few enough to balance the workers

Result = TypeVar("Result")
_Written: TypeAlias = tuple[int, dict[int, str], int]  # images done, reasons of the bad ones by row, images resized


@dataclass(frozen=True)
class Filled:
    """Contents of a file of rows.

    Attributes:
        shape: (N, H, W, C); C is 4 if an image has alpha, else 3.
        bad: Reason of each row without an image, by row, ascending; such a row is zero.
        resized: Number of images that were resized.
    """

    shape: tuple[int, int, int, int]
    bad: dict[int, str]
    resized: int


class _AlphaError(Exception):
    """An image has alpha, but the rows of the file have three channels."""


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(reader: Reader, target: Path, workers: int, progress: bool) -> Filled:
    """Write all images of a split to a file, uint8 (N, H, W, C) without a header.

    Args:
        reader: The images.
        target: The file; overwritten.
        workers: Number of threads or processes that decode or draw.
        progress: Show a progress bar.

    Returns:
        The contents of the file. If no image can be read, no file is written and the shape is all zeros.

    Raises:
        InputError: If a worker process died.
        OSError: If the file cannot be written.
    """
    bad: dict[int, str] = {}
    for row in range(len(reader)):
        try:
            image, _ = reader.read(row, None)
            break
        except DecodeError as error:
            bad[row] = str(error)
    else:
        return Filled((0, 0, 0, 0), bad, 0)
    height, width = reader.size or image.shape[:2]
    try:
        return _fill(reader, (len(reader), height, width, image.shape[2]), target, workers, progress)
    except _AlphaError:  # rare: only some images have alpha, and the first one does not
        return _fill(reader, (len(reader), height, width, 4), target, workers, progress)


def _fill(reader: Reader, shape: tuple[int, int, int, int], target: Path, workers: int, progress: bool) -> Filled:
    with target.open("wb") as file:
        file.truncate(math.prod(shape))
    bad: dict[int, str] = {}
    resized = 0
    with progress_bar(progress) as bar:
        task = bar.add_task(reader.doing, total=len(reader))
        write = functools.partial(_write_rows, reader, target, shape[1:])
        for chunk_done, chunk_bad, chunk_resized in run_chunks(reader, write, workers):
            bad |= chunk_bad
            resized += chunk_resized
            bar.advance(task, chunk_done)
    return Filled(shape, dict(sorted(bad.items())), resized)


def progress_bar(shown: bool) -> Progress:
    """A progress bar on standard error, with the number of images and the remaining time."""
    # Imported here, since a run that finds its images in the cache needs no rich.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def run_chunks(reader: Reader, function: Callable[[range], Result], workers: int) -> Iterator[Result]:
    """Call a function on all rows, in chunks, in the reader's pool; yield the results in the order of completion.

    Raises:
        InputError: If a worker process died.
    """
    rows = range(len(reader))
    chunks = [rows[start : start + _CHUNK] for start in rows[::_CHUNK]]
    workers = min(workers, len(reader) // reader.images_per_worker)
    if workers <= 1:
        yield from map(function, chunks)
        return
    pool = reader.pool(workers)
    try:
        for future in as_completed([pool.submit(function, chunk) for chunk in chunks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process died before its images were done. If it ran out of memory, use fewer workers: "
            'data.workers=1. A script of your own needs `if __name__ == "__main__":` around its call.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_rows(reader: Reader, target: Path, shape: tuple[int, int, int], rows: range) -> _Written:
    """Read some rows and write them to the file; runs in a worker."""
    bad: dict[int, str] = {}
    resized = 0
    with target.open("r+b") as file:
        for row in rows:
            try:
                image, was_resized = reader.read(row, shape[:2])
            except DecodeError as error:
                bad[row] = str(error)
                continue
            if image.shape[:2] != shape[:2]:
                bad[row] = wrong_size(image.shape, shape)
                continue
            if image.shape[2] > shape[2]:
                raise _AlphaError
            if image.shape[2] < shape[2]:
                image = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=255)
            file.seek(row * image.nbytes)
            file.write(image.tobytes())
            resized += was_resized
    return len(rows), bad, resized
