"""Images per second read from a store that is not in memory: random and file order, with and without read-ahead.

It writes a store of random pixels to the disk of FOLDER, drops it from the page cache, and reads batches as training
does. A network that is slower than the result is not slowed down by this disk. Linux only. On a virtual machine the
result is an upper bound, because the host may have cached the file.

    python -m benchmarks.streaming FOLDER
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
BATCHES = 61  # per pass; the first is warm-up


class WithoutReadAhead(Pixels):
    """Pixels that are read only when the batch needs them."""

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Do nothing."""


def drop_from_cache(file: Path) -> None:
    """Ask the system to drop a file from its page cache."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(file: Path, images: int, pixels: type[Pixels], seed: int | None, work: float) -> float:
    """Images per second over the first batches of an epoch.

    Args:
        file: The store's pixels.
        images: Number of images in the file.
        pixels: With or without read-ahead.
        seed: Seed of the order; None selects file order.
        work: Time of the network per batch, seconds.
    """
    store = Store(np.memmap(file, np.uint8, "r", shape=(images, *SHAPE)), "", False, np.arange(images), (), SHAPE[:2])
    batches = iter(Batches(pixels(SplitImages(("",) * images, np.zeros(images, np.int64), store), "RGB"), BATCH, seed))
    next(batches)
    start = time.perf_counter()
    for _ in range(BATCHES - 1):
        time.sleep(work)
        next(batches)
    return (BATCHES - 1) * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.images < BATCHES * BATCH:
        parser.error(f"--images {options.images}: at least {BATCHES * BATCH} are needed")
    table = Table(
        title=f"{options.images:,} images of {np.prod(SHAPE):,} bytes, batches of {BATCH}; median (min to max)"
    )
    for column in ("order", "read-ahead", "network", "images/s"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder) / "images.u8"
        with file.open("wb") as opened:
            for _ in range(0, options.images, 1_000):
                opened.write(np.random.default_rng().bytes(1_000 * int(np.prod(SHAPE))))
            os.fsync(opened.fileno())
        rates: dict[tuple[str, str, float], list[float]] = {}
        for _ in range(options.repeats):
            for order, seed in (("random", 0), ("file", None)):
                for read_ahead, pixels in (("no", WithoutReadAhead), ("yes", Pixels)):
                    for work in (0.0, 0.02):
                        drop_from_cache(file)
                        case = rates.setdefault((order, read_ahead, work), [])
                        case.append(rate(file, options.images, pixels, seed, work))
        for (order, read_ahead, work), values in rates.items():
            network = f"at most {BATCH / work:,.0f} images/s" if work else "takes no time"
            text = f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
            table.add_row(order, read_ahead, network, text)
    Console().print(table)


if __name__ == "__main__":
    main()
