"""Decoded once: the images of one split as a memory-mapped uint8 array (N, H, W, C).

A store is a folder in the cache that holds ``images.u8``, the bare array, and ``index.json``. Its name is a
hash of what the pixels follow from (paths, sizes, modification times, options), so a later run finds it and
opens no image; its fingerprint is the SHA-256 of the pixels. It is built in a folder of its own and renamed
when it is complete and on the disk, so a build that is killed leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import DataConfig
from deepfake_cls.data.build import Filled, cores, fill
from deepfake_cls.data.listing import listing
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.readers import Reader
from deepfake_cls.data.sources import Source, open_source
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)
_SCHEMA = 1
_DAY = 86_400.0


@dataclass(frozen=True, eq=False)
class Store:
    """The decoded images of one split.

    Attributes:
        images: uint8 (N, H, W, C), memory-mapped and read-only; C is 4 where an image has alpha, else 3.
        fingerprint: SHA-256 of shape, ``kept`` and pixels, in hexadecimal digits.
        has_alpha: Whether C is 4.
        kept: int64 (N,), the split's rows that ``images`` holds: all, unless ``data.on_error=skip``.
        skipped: Id and reason of each image that was set aside.
        size: Height and width.
    """

    images: NDArray[np.uint8]
    fingerprint: str
    has_alpha: bool
    kept: NDArray[np.int64]
    skipped: tuple[tuple[str, str], ...]
    size: tuple[int, int]

    @functools.cached_property
    def _mapped(self) -> mmap.mmap | None:
        """A map of the file of the images, only to advise the system on: numpy keeps its own map private."""
        name = getattr(self.images, "filename", None)
        if name is None or not hasattr(mmap, "MADV_WILLNEED"):
            return None
        with Path(name).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Have the system read these rows from disk in the background; without effect on an array in memory.

        Args:
            rows: int64 (B,).
        """
        if self._mapped is None:
            return
        size = self.images[0].nbytes
        for row in rows.tolist():
            start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
            with contextlib.suppress(OSError):  # a file system that takes no hints
                self._mapped.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)


class _NotUsableError(Exception):
    """There is no store, or a damaged one; in the latter case the message says in which way."""


def open_split(
    split: Split,
    config: DataConfig,
    *,
    size: tuple[int, int] | None = None,
    progress: bool | None = None,
) -> Store:
    """Open the decoded images of a split; decode them first where that has not been done.

    Args:
        split: The split, from `read_manifest` with the same ``config``.
        config: The ``data`` group.
        size: Height and width, where another split has set them; None is ``data.size``, and where that
            is None too, those of the first image.
        progress: Show a progress bar while decoding; None is: if stderr is a terminal.

    Returns:
        The store.

    Raises:
        InputError: Images are bad (all are named together), none is left, none of a class is left, or the
            cache cannot be written.
    """
    if not len(split):
        raise InputError(f"Split {split.name} is empty; it needs an image.")
    source = open_source(config)
    reader = source.reader(split, size)
    key = _key(reader, source.skips_bad_images)
    folder = _cache(config) / f"store-{key[:32]}"
    try:
        try:
            store = _load(folder, key, split, config.verify)
        except _NotUsableError as damage:
            if str(damage):
                _log.warning("%s is damaged, %s: its images are decoded again", folder, damage)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_suffix(".lock")):
                store = _load_or_build(reader, split, folder, key, source, progress)
    except OSError as error:
        raise InputError(
            f"Decoded images cannot be kept in {folder.parent}: {error.strerror or error}. "
            "Make room, or give another folder: data.cache=PATH."
        ) from error
    if store.skipped:
        _log.warning("Split %s: %d of %d images were set aside", split.name, len(store.skipped), len(split))
    return store


def _cache(config: DataConfig) -> Path:
    if config.cache is not None:
        return Path(config.cache).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "deepfake_cls"


def _key(reader: Reader, skip: bool) -> str:
    """SHA-256 of what the store's content follows from; ``skip`` is whether bad images are set aside."""
    hasher = hashlib.sha256(f"{_SCHEMA} {skip}".encode())
    for part in reader.content():
        hasher.update(f"\n{part}".encode(errors="surrogateescape"))
    return hasher.hexdigest()


# Reading


def _load(folder: Path, key: str, split: Split, verify: bool) -> Store:
    """Map a finished store; `_NotUsableError` where there is none, or none that can be trusted."""
    if not (folder / "index.json").exists():
        raise _NotUsableError
    try:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        shape = tuple(index["shape"])
        skipped: dict[int, str] = {int(row): reason for row, reason in index["skipped"]}
        if index["key"] != key:
            raise _NotUsableError("made for other images")
        if (folder / "images.u8").stat().st_size != math.prod(shape):
            raise _NotUsableError("of another length than it was")
        kept = _kept(len(split), skipped)
        if verify and _fingerprint(folder / "images.u8", shape, kept) != index["fingerprint"]:
            raise _NotUsableError("other pixels than were written (data.verify)")
        images = np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
        reasons = tuple((split.ids[row], reason) for row, reason in skipped.items())
        height, width, channels = shape[1:]
        resized = index["resized"]
    except (ValueError, KeyError, TypeError, IndexError, FileNotFoundError) as error:
        raise _NotUsableError(f"without a whole index ({error})") from error
    if resized:
        _log.warning(
            "Split %s: %d of %d images were resized to %d×%d by Lanczos, which weakens a generator's traces "
            "and adds its own", split.name, resized, len(split), height, width,
        )  # fmt: skip
    return Store(images, index["fingerprint"], channels == 4, kept, reasons, (height, width))


def _kept(count: int, bad: dict[int, str]) -> NDArray[np.int64]:
    return np.array([row for row in range(count) if row not in bad], np.int64)


def _fingerprint(images: Path, shape: tuple[int, ...], kept: NDArray[np.int64]) -> str:
    hasher = hashlib.sha256(f"{shape}".encode() + kept.astype("<i8").tobytes())
    with images.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


# Writing


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.info("Another process is decoding the same images; waiting for it (%s)", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _load_or_build(
    reader: Reader,
    split: Split,
    folder: Path,
    key: str,
    source: Source,
    progress: bool | None,
) -> Store:
    with contextlib.suppress(_NotUsableError):  # another process may just have finished it
        return _load(folder, key, split, source.config.verify)
    _remove_stale(folder.parent)
    temporary = folder.parent / f"building-{uuid.uuid4().hex}"
    temporary.mkdir()
    _log.info("%s the %d images of split %s into %s", reader.doing, len(split), split.name, folder)
    try:
        shown = sys.stderr.isatty() if progress is None else progress
        filled = fill(reader, temporary / "images.u8", source.config.workers or cores(), shown)
        _refuse_bad(reader, split, filled, source.skips_bad_images)
        _finish(temporary, filled, key)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one; processes that have mapped it keep it
        temporary.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _load(folder, key, split, verify=False)


def _remove_stale(cache: Path) -> None:
    """Remove what killed builds have left; a day old, so that no build under way is touched."""
    for path in cache.glob("building-*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(path)


def _refuse_bad(reader: Reader, split: Split, filled: Filled, skip: bool) -> None:
    if not filled.bad:
        return
    bad = [f"{reader.where(row)} {reason}" for row, reason in filled.bad.items()]
    summary = f"Split {split.name}: {len(bad)} of {len(split)} images cannot be used:{listing(bad)}"
    if not skip:
        raise InputError(f"{summary}\nMend or remove them, or set them aside with data.on_error=skip.")
    if len(bad) == len(split):
        raise InputError(f"{summary}\nNone is left.")
    lost = set(split.labels.tolist()) - set(split.labels[_kept(len(split), filled.bad)].tolist())
    if lost:
        raise InputError(f"{summary}\nNo image is left of class {', '.join(map(str, sorted(lost)))}.")


def _finish(folder: Path, filled: Filled, key: str) -> None:
    """Close the gaps that bad images left, write the index, and bring all of it to the disk."""
    kept = _kept(filled.shape[0], filled.bad)
    shape = (len(kept), *filled.shape[1:])
    row_bytes = math.prod(shape[1:])
    with (folder / "images.u8").open("r+b") as file:
        for new, old in enumerate(kept.tolist()):
            if new != old:
                file.seek(old * row_bytes)
                row = file.read(row_bytes)
                file.seek(new * row_bytes)
                file.write(row)
        file.truncate(len(kept) * row_bytes)
    fingerprint = _fingerprint(folder / "images.u8", shape, kept)
    index = {
        "key": key,
        "shape": shape,
        "fingerprint": fingerprint,
        "skipped": list(filled.bad.items()),
        "resized": filled.resized,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    for path in (folder / "images.u8", folder / "index.json", folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
