"""Reading a store that is not in memory: images a second, in random and in file order, with and without read-ahead.

``python -m benchmarks.streaming FOLDER`` writes a store of random pixels to the disk in question, has the system forget
it, and reads batches as training does: how fast a network may be before such a disk slows it down. Linux only. What a
virtual machine forgets, its host may still hold.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.store import Store

SHAPE = (100, 100, 3)
BATCH = 64
LEAST = 61 * BATCH


class Unprepared(Pixels):
    """Without read-ahead."""

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Ask for nothing."""


def forget(file: Path) -> None:
    """Have the system drop its copy of a file."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(file: Path, images: int, pixels: type[Pixels], seed: int | None, work: float) -> float:
    """Images a second of a pass that stops after some batches.

    Args:
        file: The store's pixels.
        images: How many it holds.
        pixels: With or without read-ahead.
        seed: Of the order; None is file order.
        work: Seconds that the network takes for a batch.
    """
    store = Store(np.memmap(file, np.uint8, "r", shape=(images, *SHAPE)), "", np.arange(images), ())
    batches = iter(Batches(pixels(SplitImages(("",) * images, np.zeros(images, np.int64), store), "RGB"), BATCH, seed))
    next(batches)
    count, start = LEAST // BATCH - 1, time.perf_counter()
    for _ in range(count):
        time.sleep(work)
        next(batches)
    return count * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    if words.images < LEAST:
        parser.error(f"--images {words.images}: {LEAST} are needed")
    table = Table(title=f"{words.images:,} images of {np.prod(SHAPE):,} bytes, batches of {BATCH}; median (min to max)")
    for column in ("order", "read-ahead", "network", "images/s"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        file = Path(folder) / "images.u8"
        with file.open("wb") as opened:
            for _ in range(0, words.images, 1_000):
                opened.write(np.random.default_rng().bytes(1_000 * int(np.prod(SHAPE))))
            os.fsync(opened.fileno())
        cases = [
            (order, ahead, work, pixels, seed)
            for order, seed in (("random", 0), ("file", None))
            for ahead, pixels in (("no", Unprepared), ("yes", Pixels))
            for work in (0.0, 0.02)
        ]
        found: dict[int, list[float]] = {}
        for _ in range(words.repeats):
            for number, (_, _, work, pixels, seed) in enumerate(cases):
                forget(file)
                found.setdefault(number, []).append(rate(file, words.images, pixels, seed, work))
        for number, (order, ahead, work, _, _) in enumerate(cases):
            rates = found[number]
            text = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            most = f"at most {BATCH / work:,.0f} images/s" if work else "takes no time"
            table.add_row(order, ahead, most, text)
    Console().print(table)


if __name__ == "__main__":
    main()
