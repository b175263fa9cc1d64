"""``data=synthetic``: the embedded data set, drawn instead of read. The labels of its test split are withheld."""

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

# `drawing` is imported where it is used, so that image files need no scipy.


@source("synthetic")
class SyntheticSource(Source):
    """Images that follow from a seed."""

    Config = SyntheticConfig
    config: SyntheticConfig

    def manifest(self) -> Manifest:
        """See `Source`."""
        from deepfake_cls.data import drawing

        config, splits = self.config, {}
        sizes = {"train": config.train_size, "validation": config.validation_size, "test": config.test_size}
        for name, size in sizes.items():
            least = 0 if name == "test" else len(drawing.CLASSES)
            if size < least:
                raise InputError(f"data.{name}_size={size} leaves a class without an image; give at least {least}.")
            if size == 0:
                continue
            labels = [-1 if name == "test" else drawing.label_of(index) for index in range(size)]
            ids = tuple(f"{name}-{index:06d}" for index in range(size))
            splits[name] = Split(name, ids, np.array(labels, np.int64), None)
        return Manifest(config.name, tuple(drawing.CLASSES), splits)

    def reader(self, split: Split, size: tuple[int, int] | None) -> Reader:
        """See `Source`; an image is drawn in one size only."""
        config = self.config
        return Drawings(split.name, len(split), config.seed, config.strength, config.alpha, config.image_size)


@dataclass(frozen=True)
class Drawings(Reader):
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
        """See `Reader`; an image is drawn in one size only."""
        from deepfake_cls.data import drawing

        image = drawing.draw(self.seed, self.split, row, strength=self.strength, alpha=self.alpha, size=self.image_size)
        return np.asarray(image, np.uint8), False

    def where(self, row: int) -> str:
        """See `Reader`."""
        return f"image {row} of {self.split}"

    def pool(self, workers: int) -> Executor:
        """Processes: drawing is many short array operations. Spawned: a fork beside running threads can hang."""
        if multiprocessing.get_start_method() not in ("fork", "spawn", "forkserver"):
            # Inside a worker of joblib: what is started here would be told to use joblib's own method, unknown to it.
            multiprocessing.set_start_method("spawn", force=True)
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=_start_worker)

    def content(self) -> Iterator[str]:
        """Settings of the drawing, and its version."""
        from deepfake_cls.data import drawing

        yield f"synthetic {drawing.VERSION} {self}"


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops the workers in order
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # the parent was killed: without this the worker would wait for its next task for ever

    threading.Thread(target=follow, daemon=True).start()
