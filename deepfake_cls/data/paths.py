"""Images that a user names: files, and folders with all images below them; decoded in batches, without a cache."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from deepfake_cls.crops import Crops
from deepfake_cls.data.batches import ImageBatch, with_channels
from deepfake_cls.data.decode import DecodeError, decode
from deepfake_cls.data.listing import indented, scan
from deepfake_cls.errors import InputError
from deepfake_cls.escaping import printable

_Decoded: TypeAlias = "tuple[Tensor, bool] | str"  # crops (K, H, W, C) and whether resized, or the reason why not


@dataclass
class ImagePaths:
    """The images that paths name, each once.

    Attributes:
        ids: The files as they were given; an image in a folder is ``FOLDER/.../NAME``. Also paths without an image.
        reasons: Why a path has no image, by its index in ``ids``.
        ignored: Entries of folders that are hidden or no images.
    """

    ids: list[str] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def list_paths(paths: Sequence[str]) -> ImagePaths:
    """List files in the given order, and the images in folders and their subfolders in sorted order."""
    listed = ImagePaths()
    seen: set[str] = set()
    for path in paths:
        found = _list_path(path, listed.ignored)
        for image_id in sorted(found):
            if os.path.abspath(image_id) not in seen:  # noqa: PTH100 - Path.absolute keeps ".."
                seen.add(os.path.abspath(image_id))  # noqa: PTH100
                if found[image_id]:
                    listed.reasons[len(listed.ids)] = found[image_id]
                listed.ids.append(image_id)
    return listed


def _list_path(path: str, ignored: list[str]) -> dict[str, str]:
    """The images that one path names; the value is the reason if it cannot be read, else empty."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path changes "./name"
    except FileNotFoundError:
        return {path: "does not exist"}
    except (OSError, ValueError) as error:
        return {path: f"cannot be read: {getattr(error, 'strerror', None) or error}"}
    if stat.S_ISREG(mode):
        return {path: ""}
    if not stat.S_ISDIR(mode):
        return {path: "is neither a file nor a folder"}  # reading a pipe would hang
    return _list_folder(path, ignored) or {path: "contains no images"}


def _list_folder(top: str, ignored: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    folders, visited = [top], set[str]()
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder above it
            continue
        visited.add(real)
        try:
            contents = scan(Path(folder))
        except InputError as error:
            found[folder] = str(error).removeprefix(f"{Path(folder)} ").rstrip(".")
            continue
        found |= {os.path.join(folder, name): "" for name in contents.images}  # noqa: PTH118 - as the path was given
        folders += [os.path.join(folder, name) for name in contents.folders]  # noqa: PTH118
        ignored += [os.path.join(folder, name) for name in contents.others]  # noqa: PTH118
    return found


class PathBatches:
    """Batches of image files, which threads decode while the network computes; one batch more is in memory.

    Args:
        paths: The images.
        size: Height and width of the images.
        channels: ``RGB`` or ``RGBA``.
        resize: Resize images of another size instead of skipping them.
        batch_size: Files, or crops, in a batch; files that cannot be read are missing in it.
        workers: Number of threads.
        advice: What to do about an image of another size; it ends the reason.
        crops: Score crops of images of any size, at least ``size``; None: whole images.
        reencode: See ``decode``.

    Attributes:
        rows: The index in ``paths.ids`` of each image that was read so far.
        resized: How many of them were resized.
    """

    def __init__(
        self,
        paths: ImagePaths,
        size: tuple[int, int],
        channels: str,
        resize: bool,
        batch_size: int,
        workers: int,
        advice: str,
        crops: Crops | None = None,
        reencode: str | None = None,
    ) -> None:
        self.paths, self.size, self.channels, self.resize = paths, size, channels, resize
        self.crops, self.reencode, self.workers, self.advice = crops, reencode, workers, advice
        self.count = 1 if crops is None else crops.count  # of crops of an image
        self.batch_size = max(1, batch_size // self.count)
        self.rows: list[int] = []
        self.resized = 0

    def __iter__(self) -> Iterator[ImageBatch]:
        rows = [row for row in range(len(self.paths.ids)) if row not in self.paths.reasons]
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        pool = ThreadPoolExecutor(self.workers)
        try:
            decoding = self._submit(pool, batches[0]) if batches else {}
            for following in [*batches[1:], []]:
                current, decoding = decoding, self._submit(pool, following)
                batch = self._collect(current)
                if batch is not None:
                    yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, rows: list[int]) -> dict[int, Future[_Decoded]]:
        return {row: pool.submit(self._decode, row) for row in rows}

    def _decode(self, row: int) -> _Decoded:
        size = self.size if self.crops is None else None
        try:
            image, resized = decode(self.paths.ids[row], size, resize=self.resize, reencode=self.reencode)
        except DecodeError as error:
            return advise_on_size(str(error), self.advice)
        if self.crops is None:
            return with_channels(torch.from_numpy(np.array(image))[None], self.channels), resized
        sizes = np.array([image.shape[:2]])
        if not self.crops.fits(sizes).all():
            return advise_on_size(self.crops.refusal(*image.shape[:2]), self.advice)
        crops = np.stack(self.crops.cut(image, self.crops.grid(sizes)[0]))
        return with_channels(torch.from_numpy(crops), self.channels), resized

    def _collect(self, decoding: dict[int, Future[_Decoded]]) -> ImageBatch | None:
        """Wait for a batch, and note the reasons of images that cannot be read; None if none can."""
        images: list[Tensor] = []
        rows: list[int] = []
        for row, future in decoding.items():
            decoded = future.result()
            if isinstance(decoded, str):
                self.paths.reasons[row] = decoded
                continue
            images.append(decoded[0])
            rows.append(row)
            self.resized += decoded[1]
        self.rows += rows
        if not rows:
            return None
        indices = np.array(rows, np.int64)
        return ImageBatch(torch.cat(images), torch.full((len(rows),), -1), indices, crops=self.count)


def refusals(ids: Sequence[str], reasons: dict[int, str], advice: str) -> str:
    """A colon, and the images of ``reasons`` with their reasons; the advice of several images is given once."""
    if len(reasons) == 1:
        ((row, reason),) = reasons.items()
        return f": {printable(ids[row])} {reason}."
    short = {row: reason.removesuffix(f"; {advice}") for row, reason in sorted(reasons.items())}
    last = f"\n{advice[0].upper()}{advice[1:]}." if short != reasons else ""
    return f":{indented([f'{printable(ids[row])} {reason}' for row, reason in short.items()])}{last}"


def advise_on_size(reason: str, advice: str) -> str:
    """Replace the advice in the reason why an image of another size is refused; other reasons stay."""
    match = re.match(r"is \d+×\d+ \(height×width\)", reason)
    return reason if match is None else f"{match[0]}; {advice}"
