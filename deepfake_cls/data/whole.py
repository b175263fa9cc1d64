"""Whole images of several sizes in one memory-mapped file, and the crops that are read from them.

``images.u8`` has the pixels of each image, uint8 (H, W, C), one image after the other in the order in which they were
decoded. ``table.npy`` says for each row of the split where its image begins and how large it is.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import mmap
import threading
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.crops import Crops
from deepfake_cls.data.build import progress_bar, run_chunks
from deepfake_cls.data.decode import DecodeError
from deepfake_cls.data.readers import Reader
from deepfake_cls.errors import writing
from deepfake_cls.files import TEMPORARY

_ROWS = 256  # images in a block of centre crops


@dataclass(frozen=True, eq=False)
class WholeImages:
    """Images of several sizes.

    Attributes:
        pixels: uint8 (bytes,), memory-mapped and read-only.
        table: int64 (N, 4), the offset in ``pixels``, height, width and channels of each image; zeros without an image.
    """

    pixels: NDArray[np.uint8]
    table: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Heights and widths: int64 (N, 2)."""
        return self.table[:, 1:3]

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image: uint8 (H, W, C), a view of the memory map."""
        offset, *shape = self.table[row].tolist()
        image: NDArray[np.uint8] = self._plain[offset : offset + math.prod(shape)].reshape(shape)
        return image

    @cached_property
    def _plain(self) -> NDArray[np.uint8]:
        return np.asarray(self.pixels)  # each slice of an np.memmap takes several times as long

    def fingerprint(self) -> str:
        """SHA-256 of the sizes and pixels of all images; the order in the file does not matter."""
        hasher = hashlib.sha256(self.table[:, 1:].astype("<i8").tobytes())
        for row in range(len(self.table)):
            hasher.update(self.image(row).data)
        return hasher.hexdigest()


def open_whole(folder: Path, count: int) -> WholeImages:
    """Map the images of a split of so many images.

    Raises:
        ValueError: If the files contradict each other.
    """
    table = np.load(folder / "table.npy", allow_pickle=False)
    if not isinstance(table, np.ndarray) or table.shape != (count, 4) or table.dtype != np.int64:
        raise ValueError("table.npy has another shape")
    if (folder / "images.u8").stat().st_size != table[:, 1:].prod(axis=1).sum():
        raise ValueError("images.u8 has another length")
    return WholeImages(np.memmap(folder / "images.u8", np.uint8, "r"), table)


def write_whole(reader: Reader, folder: Path, workers: int, progress: bool) -> dict[int, str]:
    """Decode all images of a split into ``images.u8`` and ``table.npy``.

    Args:
        reader: The images. Its pool must have threads, which share the file.
        folder: An empty folder.
        workers: Number of threads.
        progress: Show a progress bar.

    Returns:
        The reason of each row without an image, by row, ascending.

    Raises:
        OSError: If the files cannot be written.
    """
    bad: dict[int, str] = {}
    with (folder / "images.u8").open("wb") as file, progress_bar(progress) as bar:
        task = bar.add_task(reader.doing, total=len(reader))
        writer = _Writer(file, len(reader))
        for rows, reasons in run_chunks(reader, functools.partial(writer.write_rows, reader), workers):
            bad |= reasons
            bar.advance(task, len(rows))
    np.save(folder / "table.npy", writer.table, allow_pickle=False)
    return dict(sorted(bad.items()))


class _Writer:
    def __init__(self, file: BinaryIO, count: int) -> None:
        self.file, self.table, self.end, self.lock = file, np.zeros((count, 4), np.int64), 0, threading.Lock()

    def write_rows(self, reader: Reader, rows: range) -> tuple[range, dict[int, str]]:
        """Read some rows and append them to the file; runs in a thread."""
        bad = {}
        for row in rows:
            try:
                image, _ = reader.read(row, None)
            except DecodeError as error:
                bad[row] = str(error)
                continue
            content = image.tobytes()
            with self.lock:
                self.file.write(content)
                self.table[row] = (self.end, *image.shape)
                self.end += len(content)
        return rows, bad


@dataclass(frozen=True, eq=False)
class CropStore:
    """The images of one split, as a :class:`~deepfake_cls.data.store.Store` of square crops of their native pixels.

    Attributes:
        whole: The images that can be used, in the order of ``kept``.
        crops: How they are cropped.
        folder: The folder of the files.
        fingerprint: SHA-256 of the sizes and pixels of the whole images, and of ``kept``.
        kept: int64 (N,), the row in the split of each image.
        skipped: Id and reason of each image that was skipped.
    """

    whole: WholeImages
    crops: Crops
    folder: Path
    fingerprint: str
    kept: NDArray[np.int64]
    skipped: tuple[tuple[str, str], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop."""
        return self.crops.side, self.crops.side

    @cached_property
    def channels(self) -> int:
        """4 if an image has alpha, else 3."""
        return int(self.whole.table[:, 3].max())

    @property
    def has_alpha(self) -> bool:
        """Whether an image has an alpha channel."""
        return self.channels == 4

    def read(self, rows: NDArray[np.int64], corners: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read K crops of each of some images; an image without alpha among images with alpha gets 255.

        Args:
            rows: int64 (B,).
            corners: int64 (B, K, 2), the upper left corners.

        Returns:
            uint8 (B·K, side, side, C), the crops of an image one after the other.
        """
        side, count = self.crops.side, corners.shape[1]
        crops = np.empty((len(rows), count, side, side, self.channels), np.uint8)
        if self.has_alpha:
            crops[..., 3] = 255
        for targets, row, where in zip(crops, rows.tolist(), corners, strict=True):
            image = self.whole.image(row)
            for target, crop in zip(targets, self.crops.cut(image, where), strict=True):
                target[..., : image.shape[2]] = crop
        return crops.reshape(len(rows) * count, *crops.shape[2:])

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """The centre crops, uint8 (N, side, side, C), in a memory-mapped file beside the whole images."""
        kept = hashlib.sha256(self.kept.astype("<i8").tobytes()).hexdigest()[:16]  # small images may be left out
        file, shape = self.folder / f"centre-{self.crops.side}-{kept}.u8", (len(self.kept), *self.size, self.channels)
        if not file.is_file():
            temporary = file.with_name(f".{uuid.uuid4().hex}{TEMPORARY}")
            with writing(file, "choose another folder with data.cache=PATH"):
                try:
                    with temporary.open("wb") as opened:
                        for start in range(0, len(self.kept), _ROWS):
                            rows = np.arange(start, min(start + _ROWS, len(self.kept)))
                            opened.write(self.read(rows, self.crops.centre(self.whole.sizes[rows])).tobytes())
                    temporary.replace(file)
                finally:
                    temporary.unlink(missing_ok=True)
        return np.memmap(file, np.uint8, "r", shape=shape)

    def prefetch(self, rows: NDArray[np.int64], corners: NDArray[np.int64]) -> None:
        """Make the system read crops (B, K, 2) of rows (B,) from disk in the background."""
        mapped = self.whole.pixels.base  # the base of a np.memmap is its mmap
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        offsets, heights, widths, channels = self.whole.table[rows].T[..., None]
        tops, line = corners[..., 0], widths * channels
        starts = (offsets + tops * line).ravel() // mmap.PAGESIZE * mmap.PAGESIZE
        ends = (offsets + np.minimum(tops + self.crops.side, heights) * line).ravel()
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            with contextlib.suppress(OSError):  # some file systems do not support it
                mapped.madvise(mmap.MADV_WILLNEED, start, end - start)
