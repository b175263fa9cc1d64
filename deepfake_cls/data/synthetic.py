"""``data=synthetic``: the embedded data set, drawn instead of read. Its test split has no labels."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.manifest import Manifest, Split
from deepfake_cls.data.readers import Reader
from deepfake_cls.data.sources import Source, source
from deepfake_cls.errors import InputError

# Functions import ``drawing``, so that data sets of image files do not import scipy.


@source("synthetic")
class SyntheticSource(Source):
    """Images that depend only on a seed."""

    Config = SyntheticConfig
    config: SyntheticConfig

    def manifest(self) -> Manifest:
        """See ``Source``."""
        from deepfake_cls.data import drawing

        config, splits = self.config, {}
        sizes = {"train": config.train_size, "validation": config.validation_size, "test": config.test_size}
        for name, size in sizes.items():
            smallest = 0 if name == "test" else len(drawing.CLASSES)
            if size < smallest:
                raise InputError(f"data.{name}_size={size}: expected {smallest} or more.")
            if size == 0:
                continue
            labels = [-1 if name == "test" else drawing.label_of(index) for index in range(size)]
            ids = tuple(f"{name}-{index:06d}" for index in range(size))
            splits[name] = Split(name, ids, np.array(labels, np.int64), None)
        return Manifest(config.name, tuple(drawing.CLASSES), splits)

    def reader(self, split: Split, size: tuple[int, int] | None) -> Reader:
        """See ``Source``; ``size`` is ignored, since ``data.image_size`` determines it."""
        config = self.config
        return Drawings(split.name, len(split), config.seed, config.strength, config.alpha, config.image_size)


@dataclass(frozen=True)
class Drawings(Reader):
    """Images of the embedded data set. The fields are part of the key in the cache."""

    doing: ClassVar[str] = "Drawing"
    images_per_worker: ClassVar[int] = 256  # drawing them takes two seconds; starting a process takes one
    split: str
    count: int
    seed: int
    strength: float
    alpha: str
    image_size: int = 100

    def __len__(self) -> int:
        return self.count

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        """See ``Reader``; ``size`` is ignored."""
        from deepfake_cls.data import drawing

        image = drawing.draw(self.seed, self.split, row, strength=self.strength, alpha=self.alpha, size=self.image_size)
        return np.asarray(image, np.uint8), False

    def where(self, row: int) -> str:
        """See ``Reader``."""
        return f"image {row} of {self.split}"

    def content(self) -> Iterator[str]:
        """Settings and version of the drawing."""
        from deepfake_cls.data import drawing

        yield f"synthetic {drawing.VERSION} {self}"

    def pool(self, workers: int) -> Executor:
        """Return a pool of processes, since drawing holds the GIL; spawned, since a fork with threads can hang."""
        if multiprocessing.get_start_method() not in ("fork", "spawn", "forkserver"):
            # In a worker of joblib the method is "loky". A spawned process would inherit it and fail: it has no loky.
            multiprocessing.set_start_method("spawn", force=True)
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and stops the workers
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        parent.join()
        os._exit(1)  # if the parent is killed, the executor does not stop its workers

    threading.Thread(target=exit_with_parent, daemon=True).start()
