"""Every image of a split decoded or drawn once, in parallel, straight into one file of raw uint8 rows.

Workers write the rows themselves, so no process holds more than the image at hand. They write with ``write``
and not through a memory map: on a full disk that is an error, where a map would kill the process.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.data.decode import DecodeError
from deepfake_cls.data.readers import Reader
from deepfake_cls.errors import InputError

_CHUNK = 32  # images in a task: enough to hide what a task costs, few enough to balance the workers

_Rows: TypeAlias = tuple[range, dict[int, str], int]
_Task: TypeAlias = Callable[[range], _Rows]


@dataclass(frozen=True)
class Filled:
    """What a file of rows holds.

    Attributes:
        shape: (N, H, W, C); C is 4 where an image has alpha, else 3.
        bad: Reason of each row without an image, by row, ascending; such a row is zero.
        resized: How many images were resized.
    """

    shape: tuple[int, int, int, int]
    bad: dict[int, str]
    resized: int


class _AlphaError(Exception):
    """An image has alpha and the file was laid out without."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(reader: Reader, target: Path, workers: int, progress: bool) -> Filled:
    """Write all images of a split to a file.

    Args:
        reader: The images.
        target: The file, uint8 (N, H, W, C) without a header; overwritten.
        workers: How many threads or processes decode or draw.
        progress: Show a progress bar.

    Returns:
        What was written. Where no image can be read, nothing was, and the shape is all zeros.

    Raises:
        InputError: A worker process died.
        OSError: The file cannot be written.
    """
    bad: dict[int, str] = {}
    for row in range(len(reader)):
        first = _try_read(reader, row, None)
        if not isinstance(first, str):
            break
        bad[row] = first
    else:
        return Filled((0, 0, 0, 0), bad, 0)
    height, width = reader.size or first[0].shape[:2]
    channels = first[0].shape[2]
    try:
        return _fill(reader, (len(reader), height, width, channels), target, workers, progress)
    except _AlphaError:  # rare, a folder of both kinds: the first pass is thrown away
        return _fill(reader, (len(reader), height, width, 4), target, workers, progress)


def _fill(reader: Reader, shape: tuple[int, int, int, int], target: Path, workers: int, progress: bool) -> Filled:
    with target.open("wb") as file:
        file.truncate(math.prod(shape))
    bad: dict[int, str] = {}
    resized = 0
    task = functools.partial(_fill_rows, reader, target, shape[1:])
    with _progress(reader, progress) as advance:
        for rows, chunk_bad, chunk_resized in _run(reader, task, workers):
            bad.update(chunk_bad)
            resized += chunk_resized
            advance(len(rows))
    return Filled(shape, dict(sorted(bad.items())), resized)


def _run(reader: Reader, task: _Task, workers: int) -> Iterator[_Rows]:
    """Results of the task on all rows, as they come."""
    starts = range(0, len(reader), _CHUNK)
    chunks = [range(start, min(start + _CHUNK, len(reader))) for start in starts]
    workers = min(workers, len(reader) // reader.images_per_worker)
    if workers <= 1:
        yield from map(task, chunks)
        return
    pool = reader.pool(workers)
    try:
        for future in as_completed([pool.submit(task, chunk) for chunk in chunks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "A worker process died before its images were done. If the system stopped it for want of memory, "
            'give fewer: data.workers=1. Your own script needs `if __name__ == "__main__":` around its call.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _fill_rows(reader: Reader, target: Path, shape: tuple[int, int, int], rows: range) -> _Rows:
    """Read some rows and write them to the file; runs in a worker."""
    bad: dict[int, str] = {}
    resized = 0
    with target.open("r+b") as file:
        for row in rows:
            result = _try_read(reader, row, shape[:2])
            if isinstance(result, str):
                bad[row] = result
                continue
            image, was_resized = result
            if image.shape[:2] != shape[:2]:
                bad[row] = f"has {image.shape[0]}×{image.shape[1]} pixels, {shape[0]}×{shape[1]} are expected"
                continue
            if image.shape[2] > shape[2]:
                raise _AlphaError
            if image.shape[2] < shape[2]:
                image = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=255)
            file.seek(row * image.nbytes)
            file.write(image.tobytes())
            resized += was_resized
    return rows, bad, resized


def _try_read(reader: Reader, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool] | str:
    try:
        return reader.read(row, size)
    except DecodeError as error:
        return str(error)


@contextlib.contextmanager
def _progress(reader: Reader, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda done: None  # noqa: ARG005
        return
    from rich.console import Console  # here, since a run that finds everything decoded needs none of it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(reader.doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task("", total=len(reader))
        yield lambda done: bar.advance(job, done)
