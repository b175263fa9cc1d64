"""Readers: how the images of a split are read, one at a time. ``build`` calls them in parallel."""

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
    """The images of one split, by row. If ``pool`` has processes, the reader must be small and picklable.

    Attributes:
        doing: Name of the work in the progress bar and in the log.
        images_per_worker: Fewest images for each worker: with fewer, starting it takes longer than it saves.
        size: Height and width of all images; None is the size of the first image that can be read.
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
            row: Row of the image in the split.
            size: Height and width that the image must have; None accepts any.

        Returns:
            uint8 (H, W, 3 or 4), and whether the image was resized to ``size``.

        Raises:
            DecodeError: If the image is missing or cannot be used.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """Name of the image in messages, such as its path."""

    def encoded(self, row: int) -> Path | bytes | None:
        """The encoded image: its file or its bytes; None if the images are drawn.

        Raises:
            DecodeError: If the image is missing.
        """
        return None

    @abstractmethod
    def content(self) -> Iterator[str]:
        """Everything that determines the pixels, in pieces; they are hashed into the key of the cached images."""

    def pool(self, workers: int) -> Executor:
        """Executor that calls ``read`` in parallel; threads by default."""
        return ThreadPoolExecutor(workers)


@dataclass(frozen=True)
class Files(Reader):
    """Image files, decoded by the rules of ``decode``.

    The pool has threads, because Pillow releases the GIL while it decodes: 4,000 WebP images of 100×100 took two
    threads 0.92 s and two spawned processes 1.18 s. Threads also need no main module that can be imported again.

    Attributes:
        paths: The files.
        size: See ``Reader``.
        resize: Resize images of another size instead of refusing them.
        reencode: See ``decode``.
    """

    doing: ClassVar[str] = "Decoding"
    paths: tuple[Path, ...]
    size: tuple[int, int] | None = None
    resize: bool = False
    reencode: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """See ``Reader``."""
        return decode(self.paths[row], size, resize=self.resize, reencode=self.reencode)

    def where(self, row: int) -> str:
        """See ``Reader``."""
        return str(self.paths[row])

    def encoded(self, row: int) -> Path | bytes | None:
        """See ``Reader``."""
        return self.paths[row]

    def content(self) -> Iterator[str]:
        """Paths, sizes and modification times; no file is opened."""
        reencode = "" if self.reencode is None else f" {self.reencode}"
        yield f"files {DECODE_VERSION} {PIL.__version__} {self.size} {self.resize}{reencode}"
        for path in self.paths:
            yield f"{path}\0{size_and_time(path)}"


def size_and_time(path: Path) -> str:
    """Size and modification time of a file, for ``content``; ``absent`` if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat takes longer
    except (OSError, ValueError):  # ValueError: the path contains a null character
        return "absent"
    return f"{status.st_size}\0{status.st_mtime_ns}"
