"""How the images of a split are read, one by one; `build` calls it in parallel."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL
from numpy.typing import NDArray

from deepfake_cls.data.decode import DECODE_VERSION, decode


class Reader(ABC):
    """The images of one split, by row. It has to be small and picklable where its pool is one of processes.

    Attributes:
        doing: What the progress bar and the log call the work.
        images_per_worker: With fewer images than this for each worker, another worker costs more than it saves.
        size: Height and width of all images; None is that of the first image that can be read.
    """

    doing: ClassVar[str] = "Reading"
    images_per_worker: ClassVar[int] = 32
    size: tuple[int, int] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """Read one image.

        Args:
            row: The image's row in the split.
            size: Height and width that the image must have; None accepts any.

        Returns:
            uint8 (H, W, 3 or 4), and whether the image was resized to ``size``.

        Raises:
            DecodeError: The image is missing or cannot be used.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """What to call the image in a message, such as its path."""

    @abstractmethod
    def content(self) -> Iterator[str]:
        """Everything that determines the pixels, in pieces: it is the key of the decoded images in the cache."""

    def pool(self, workers: int) -> Executor:
        """The executor that calls `read` in parallel; threads unless a reader says otherwise."""
        return ThreadPoolExecutor(workers)


@dataclass(frozen=True)
class Files(Reader):
    """Image files, decoded by the rules of `decode`.

    They are decoded in threads, because Pillow decodes outside the interpreter lock: two threads took 0.92 s for 4,000
    WebP images of 100×100, two spawned processes 1.18 s; and threads need no main module that can be imported again.

    Attributes:
        paths: The files.
        size: See `Reader`.
        resize: Resize images of another size, instead of refusing them.
    """

    doing: ClassVar[str] = "Decoding"
    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None
    resize: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """See `Reader`."""
        return decode(self.paths[row], size, resize=self.resize)

    def where(self, row: int) -> str:
        """See `Reader`."""
        return str(self.paths[row])

    def content(self) -> Iterator[str]:
        """Paths, sizes and modification times; no file is opened."""
        yield f"files {DECODE_VERSION} {PIL.__version__} {self.size} {self.resize}"
        for path in self.paths:
            yield f"{path}\0{_state(path)}"


def _state(path: Path) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat takes longer
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return "absent"
    return f"{status.st_size}\0{status.st_mtime_ns}"
