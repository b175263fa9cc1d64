"""Cost per image of listing, decoding and reading. ``docs/scaling.md`` uses the results.

Reading: a store of random pixels is dropped from the page cache and read in random order, as training reads it. A
network that is slower is not slowed down by the disk. On a virtual machine this is an upper bound, because the host may
have cached the file. Linux only.

    python -m benchmarks.scaling --output experiments/results/scaling.csv    # about two minutes on two cores
    python -m benchmarks.scaling --data PATH                                 # also decodes the files of a data set
    python -m benchmarks.scaling --disk FOLDER                               # also reads 1.2 GB from that disk
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.samples import files_config
from benchmarks.table import append_csv
from deepfake_cls.config import FolderConfig, ImageFilesConfig, TrainerConfig
from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.images import SplitImages, open_images
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.data.store import Store
from deepfake_cls.hardware import choose

LISTED = (20_000, 100_000)
DECODED = 4_000
STORED = 40_000
SHAPE = (100, 100, 3)
Row = dict[str, object]


def opened(config: ImageFilesConfig) -> tuple[SplitImages, float]:
    """The training images, and the seconds to list and open them."""
    started = time.perf_counter()
    images = open_images(read_manifest(config), "train", config, progress=False)
    return images, time.perf_counter() - started


def listing(folder: Path, count: int) -> list[Row]:
    """Time and memory to list ``count`` empty files."""
    for split, share in (("train", count), ("validation", 10)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
        for index in range(share):
            (folder / split / "ab"[index % 2] / f"{index:09}.png").touch()
    config = FolderConfig(root=str(folder))
    started = time.perf_counter()
    read_manifest(config)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    manifest = read_manifest(config)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(manifest.split("train")) == count
    return [
        {"what": "list files", "images": count, "value": 1e6 * seconds / count, "unit": "µs an image"},
        {"what": "list of files in memory", "images": count, "value": size / count, "unit": "bytes an image"},
    ]


def decoding(config: ImageFilesConfig, cache: Path, name: str, workers: int) -> list[Row]:
    """Time to list and decode images into a store, with checksums, and to list and open the store again."""
    config.cache, config.workers = str(cache), workers
    images, seconds = opened(config)
    _, again = opened(config)
    count = len(images)
    shutil.rmtree(cache)
    return [
        {"what": f"decode {name}, {workers} workers", "images": count, "value": count / seconds, "unit": "images/s"},
        {
            "what": f"list and open the store of {name} again",
            "images": count,
            "value": 1e6 * again / count,
            "unit": "µs an image",
        },
    ]


def photographs(folder: Path, source: ImageFilesConfig | None) -> FolderConfig:
    """PNG files of 100×100: of the data set, or of smooth noise, which compresses about as well as photographs."""
    rng = np.random.default_rng(0)
    pixels = None if source is None else open_images(read_manifest(source), "train", source, False).store.images
    for split, count in (("train", DECODED), ("validation", 10)):
        for index in range(count):
            path = folder / split / "ab"[index % 2] / f"{index:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if pixels is None:
                coarse = Image.fromarray(rng.integers(0, 256, (25, 25, 3), dtype=np.uint8))
                coarse.resize((100, 100), Image.Resampling.BICUBIC).save(path)
            else:
                Image.fromarray(pixels[index % len(pixels)][..., :3]).save(path)
    return FolderConfig(root=str(folder))


class WithoutReadAhead(Pixels):
    """Pixels that are read only when the batch needs them."""

    def prefetch(self, rows: NDArray[np.int64], corners: NDArray[np.int64] | None = None) -> None:
        """Do nothing."""


def reading(folder: Path, count: int, steps: int = 60, batch: int = 64) -> list[Row]:
    """Images per second from a store on the disk of ``folder`` that is not in memory, in random order."""
    rng = np.random.default_rng()
    file = folder / "images.u8"
    with file.open("wb") as opened:
        for _ in range(count):
            opened.write(rng.bytes(int(np.prod(SHAPE))))
        os.fsync(opened.fileno())
    rows: list[Row] = []
    for name, pixels in (("with", Pixels), ("without", WithoutReadAhead)):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        images = np.memmap(file, np.uint8, "r", shape=(count, *SHAPE))
        store = Store(images, "", np.arange(count), ())
        split = SplitImages(("",) * count, np.zeros(count, np.int64), store)
        batches = iter(Batches(pixels(split, "RGB"), batch, seed=0))
        next(batches)
        start = time.perf_counter()
        for _ in range(steps):
            next(batches)
        rate = steps * batch / (time.perf_counter() - start)
        what = f"read in random order, {name} read-ahead"
        rows.append({"what": what, "images": count, "value": rate, "unit": "images/s"})
    return rows


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of images")
    parser.add_argument("--disk", type=Path, help="folder on the disk to read from")
    parser.add_argument("--output", type=Path, help="append the rows to this CSV")
    options = parser.parse_args()
    hardware = choose(TrainerConfig(device="cpu"))
    source = None if options.data is None else files_config(options.data)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in LISTED:
            (folder / str(count)).mkdir()
            rows += listing(folder / str(count), count)
        pngs = photographs(folder / "pngs", source)
        for workers in (1, 2):
            rows += decoding(pngs, folder / "cache", "PNG of 100×100", workers)
        if source is not None:
            rows += decoding(source, folder / "cache", "the data set's own files", 2)
    if options.disk is not None:
        with tempfile.TemporaryDirectory(dir=options.disk) as name:
            rows += reading(Path(name), STORED)
    for row in rows:
        row |= {"device": hardware.name, "threads": hardware.threads}
        print(f"{row['what']:45} {row['images']:>8,} images  {row['value']:12,.2f} {row['unit']}")
    if options.output is not None:
        append_csv(options.output, rows)


if __name__ == "__main__":
    main()
