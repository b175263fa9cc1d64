"""Every image of a split decoded or drawn once, in parallel, straight into one file of raw uint8 rows.

Workers write the rows themselves, so no process holds more than the image at hand. They write with ``write``
and not through a memory map: on a full disk that is an error, where a map would kill the process.
"""

from __future__ import annotations

import contextlib
import functools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import PIL
from numpy.typing import NDArray

from deepfake_cls.data.decode import DECODE_VERSION, DecodeError, decode
from deepfake_cls.errors import InputError

_CHUNK = 32  # images in a task: enough to hide what a task costs, few enough to balance the workers

_Rows: TypeAlias = tuple[range, dict[int, str], int]
_Task: TypeAlias = Callable[[range], _Rows]


class Source(Protocol):
    """Where the images of a split come from; small where its pool is of processes, to which it travels."""

    doing: ClassVar[str]
    images_per_worker: ClassVar[int]
    """With fewer than this, one more worker costs more than it saves."""

    def __len__(self) -> int:
        """How many images."""

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """The image of a row, uint8 (H, W, 3 or 4), and whether it was resized to ``size``.

        Raises:
            DecodeError: There is no such image, or it was refused.
        """

    def where(self, row: int) -> str:
        """What to call the image in a message."""

    def pool(self, workers: int) -> Executor:
        """What runs `read` in parallel."""

    def content(self) -> Iterator[str]:
        """Everything that the pixels follow from, in pieces."""


@dataclass(frozen=True)
class Files:
    """Image files, by the rules of `decode`; size None is that of the first image that can be read."""

    doing: ClassVar[str] = "Decoding"
    images_per_worker: ClassVar[int] = _CHUNK
    paths: tuple[Path, ...]
    size: tuple[int, int] | None
    resize: bool

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """See `Source`."""
        return decode(self.paths[row], size, resize=self.resize)

    def where(self, row: int) -> str:
        """See `Source`."""
        return str(self.paths[row])

    def pool(self, workers: int) -> Executor:
        """Threads: Pillow decodes outside the interpreter lock.

        Two of them took 0.92 s for 4,000 WebP images of 100×100 where two spawned processes took 1.18 s, and
        they need no main module that can be imported again.
        """
        return ThreadPoolExecutor(workers)

    def content(self) -> Iterator[str]:
        """See `Source`."""
        yield f"files {DECODE_VERSION} {PIL.__version__} {self.size} {self.resize}"
        for path in self.paths:
            yield f"{path}\0{_state(path)}"


@dataclass(frozen=True)
class Drawings:
    """Images of the embedded data set."""

    doing: ClassVar[str] = "Drawing"
    images_per_worker: ClassVar[int] = 256  # some two seconds of drawing; to start a process takes one
    split: str
    count: int
    seed: int
    strength: float
    alpha: str
    image_size: int = 100

    def __len__(self) -> int:
        return self.count

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """See `Source`; an image is drawn in one size only."""
        from deepfake_cls.data import synthetic  # here, so that image files need no scipy

        image = synthetic.draw(
            self.seed, self.split, row, strength=self.strength, alpha=self.alpha, size=self.image_size
        )
        return np.asarray(image, np.uint8), False

    def where(self, row: int) -> str:
        """See `Source`."""
        return f"image {row} of {self.split}"

    def pool(self, workers: int) -> Executor:
        """Processes: drawing is many short array operations. Spawned: a fork beside running threads can hang."""
        if multiprocessing.get_start_method() not in ("fork", "spawn", "forkserver"):
            # Inside a worker of joblib: what is started here would be told to use joblib's own method, unknown to it.
            multiprocessing.set_start_method("spawn", force=True)
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=_start_worker)

    def content(self) -> Iterator[str]:
        """See `Source`."""
        from deepfake_cls.data import synthetic

        yield f"synthetic {synthetic.VERSION} {self}"


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


def fill(source: Source, size: tuple[int, int] | None, target: Path, workers: int, progress: bool) -> Filled:
    """Write all images of a source to a file.

    Args:
        source: The images.
        size: Height and width of each; None is those of the first that can be read.
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
    for row in range(len(source)):
        first = _try_read(source, row, None)
        if not isinstance(first, str):
            break
        bad[row] = first
    else:
        return Filled((0, 0, 0, 0), bad, 0)
    height, width = size or first[0].shape[:2]
    channels = first[0].shape[2]
    try:
        return _fill(source, (len(source), height, width, channels), target, workers, progress)
    except _AlphaError:  # rare, a folder of both kinds: the first pass is thrown away
        return _fill(source, (len(source), height, width, 4), target, workers, progress)


def _fill(source: Source, shape: tuple[int, int, int, int], target: Path, workers: int, progress: bool) -> Filled:
    with target.open("wb") as file:
        file.truncate(math.prod(shape))
    bad: dict[int, str] = {}
    resized = 0
    task = functools.partial(_fill_rows, source, target, shape[1:])
    with _progress(source, progress) as advance:
        for rows, chunk_bad, chunk_resized in _run(source, task, workers):
            bad.update(chunk_bad)
            resized += chunk_resized
            advance(len(rows))
    return Filled(shape, dict(sorted(bad.items())), resized)


def _run(source: Source, task: _Task, workers: int) -> Iterator[_Rows]:
    """Results of the task on all rows, as they come."""
    starts = range(0, len(source), _CHUNK)
    chunks = [range(start, min(start + _CHUNK, len(source))) for start in starts]
    workers = min(workers, len(source) // source.images_per_worker)
    if workers <= 1:
        yield from map(task, chunks)
        return
    pool = source.pool(workers)
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


def _fill_rows(source: Source, target: Path, shape: tuple[int, int, int], rows: range) -> _Rows:
    """Read some rows and write them to the file; runs in a worker."""
    bad: dict[int, str] = {}
    resized = 0
    with target.open("r+b") as file:
        for row in rows:
            result = _try_read(source, row, shape[:2])
            if isinstance(result, str):
                bad[row] = result
                continue
            image, was_resized = result
            if image.shape[2] > shape[2]:
                raise _AlphaError
            if image.shape[2] < shape[2]:
                image = np.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=255)
            file.seek(row * image.nbytes)
            file.write(image.tobytes())
            resized += was_resized
    return rows, bad, resized


def _try_read(source: Source, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool] | str:
    try:
        return source.read(row, size)
    except DecodeError as error:
        return str(error)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops the workers in order
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # the parent was killed: without this the worker would wait for its next task for ever

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _progress(source: Source, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda done: None  # noqa: ARG005
        return
    from rich.console import Console  # here, since a run that finds everything decoded needs none of it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(source.doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task("", total=len(source))
        yield lambda done: bar.advance(job, done)


def _state(path: Path) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat takes longer
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return "absent"
    return f"{status.st_size}\0{status.st_mtime_ns}"
