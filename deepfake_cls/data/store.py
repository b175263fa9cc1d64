"""The cache of decoded images: each split is a memory-mapped uint8 array (N, H, W, C).

A store is a folder in the cache with ``images.u8``, the raw array, and ``index.json``. Its name is a hash of everything
that determines the pixels (paths, sizes, modification times, options), so that a later run opens it and no image. Its
fingerprint is the SHA-256 of the pixels. A store is built in a temporary folder, which is renamed when it is complete
and on disk, so that a build that is killed leaves no store.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import mmap
import os
import shutil
import time
import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import DataConfig
from deepfake_cls.data.build import Filled, cores, fill
from deepfake_cls.data.decode import size_in
from deepfake_cls.data.entries import cache_folder
from deepfake_cls.data.listing import indented
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.readers import Reader
from deepfake_cls.data.sources import Source, open_source
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)
_SCHEMA = 1
_DAY = 86_400.0
_in_use: dict[Path, BinaryIO] = {}  # by store, its open and locked file


@dataclass(frozen=True, eq=False)
class Store:
    """The decoded images of one split.

    Attributes:
        images: uint8 (N, H, W, C), memory-mapped and read-only; C is 4 if an image has alpha, else 3.
        fingerprint: SHA-256 of shape, ``kept`` and pixels, in hexadecimal digits.
        kept: int64 (N,), the row in the split of each image; all rows, unless ``data.on_error=skip``.
        skipped: Id and reason of each image that was skipped.
    """

    images: NDArray[np.uint8]
    fingerprint: str
    kept: NDArray[np.int64]
    skipped: tuple[tuple[str, str], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[1], self.images.shape[2]

    @property
    def has_alpha(self) -> bool:
        """Whether the images have an alpha channel."""
        return bool(self.images.shape[3] == 4)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Make the system read rows (B,) from disk in the background; no-op for an array in memory."""
        mapped = self.images.base  # the base of a np.memmap is its mmap
        if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_WILLNEED"):
            return
        size = self.images[0].nbytes
        for row in rows.tolist():
            start = row * size // mmap.PAGESIZE * mmap.PAGESIZE
            with contextlib.suppress(OSError):  # some file systems do not support it
                mapped.madvise(mmap.MADV_WILLNEED, start, (row + 1) * size - start)


class _UnusableError(Exception):
    """The store is missing (no message), or damaged (the message says how)."""


def open_split(
    split: Split, config: DataConfig, *, size: tuple[int, int] | None = None, progress: bool = False
) -> Store:
    """Open the decoded images of a split; decode them first if they are not in the cache.

    The split is from ``read_manifest`` with the same ``config``. For ``size`` see ``images.open_images``.

    Raises:
        InputError: If images are bad (the message lists them), all images of the split or of a class are bad, or the
            cache cannot be written.
    """
    if not len(split):
        raise InputError(f"Split {split.name} is empty; expected at least one image.")
    source = open_source(config)
    reader = source.reader(split, size)
    key = _key(reader, source.skips_bad_images)
    folder = cache_folder(config.cache) / f"store-{key[:32]}"
    try:
        try:
            store = _load(folder, key, split, config.verify)
        except _UnusableError as damage:
            if str(damage):
                _log.warning("%s is damaged (%s): its images are decoded again", folder, damage)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.with_suffix(".lock")):
                store = _load_or_build(reader, split, folder, key, source, progress)
    except OSError as error:
        raise InputError(
            f"Decoded images cannot be saved to {folder.parent}: {error.strerror or error}. "
            "Free some space, or choose another folder: data.cache=PATH."
        ) from error
    if store.skipped:
        _log.warning("Split %s: skipped %d of %d images", split.name, len(store.skipped), len(split))
    return store


def _key(reader: Reader, skip: bool) -> str:
    """Hash everything that determines the content of a store; with ``skip``, bad images are skipped."""
    hasher = hashlib.sha256(f"{_SCHEMA} {skip}".encode())
    for part in reader.content():
        hasher.update(f"\n{part}".encode(errors="surrogateescape"))
    return hasher.hexdigest()


# Reading


def _load(folder: Path, key: str, split: Split, verify: bool) -> Store:
    """Map a finished store.

    Raises:
        _UnusableError: If the store is missing or damaged.
    """
    images_file = folder / "images.u8"
    if not (folder / "index.json").exists():
        raise _UnusableError
    try:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        shape = tuple(index["shape"])
        skipped: dict[int, str] = {int(row): reason for row, reason in index["skipped"]}
        if index["key"] != key:
            raise _UnusableError("it contains other images")
        if images_file.stat().st_size != math.prod(shape):
            raise _UnusableError("images.u8 has another length")
        kept = _kept(len(split), skipped)
        if verify and _fingerprint(images_file, shape, kept) != index["fingerprint"]:
            raise _UnusableError("data.verify: the pixels have changed")
        images = np.memmap(images_file, np.uint8, "r", shape=shape)
        reasons = tuple((split.ids[row], reason) for row, reason in skipped.items())
        store = Store(images, index["fingerprint"], kept, reasons)
        resized, (height, width) = index["resized"], store.size
        _mark_as_used(folder)
    except (ValueError, KeyError, TypeError, IndexError, FileNotFoundError) as error:
        raise _UnusableError(f"it is incomplete: {error}") from error
    if resized:
        _log.warning(
            "Split %s: resized %d of %d images to %d×%d by Lanczos, which weakens generator traces and adds others",
            split.name, resized, len(split), height, width,
        )  # fmt: skip
    return store


def _mark_as_used(folder: Path) -> None:
    """Lock a store until this process ends, so that ``cache prune=all`` keeps it, and set the time of its last use."""
    with contextlib.suppress(OSError):  # some file systems have no locks
        file = (folder / "images.u8").open("rb")
        _in_use[folder] = file
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(folder / "index.json")


def _kept(count: int, bad: dict[int, str]) -> NDArray[np.int64]:
    return np.array([row for row in range(count) if row not in bad], np.int64)


def _fingerprint(images_file: Path, shape: tuple[int, ...], kept: NDArray[np.int64]) -> str:
    hasher = hashlib.sha256(f"{shape}".encode() + kept.astype("<i8").tobytes())
    with images_file.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


# Writing


def _lock(path: Path) -> AbstractContextManager[object]:
    lock = filelock.FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.info("Another process is decoding the same images; waiting for it (%s)", path)
        return lock.acquire()


def _load_or_build(reader: Reader, split: Split, folder: Path, key: str, source: Source, progress: bool) -> Store:
    with contextlib.suppress(_UnusableError):  # another process may have built it before this one got the lock
        return _load(folder, key, split, source.config.verify)
    _remove_stale(folder.parent)
    temporary = folder.parent / f"building-{uuid.uuid4().hex}"
    temporary.mkdir()
    _log.info("%s the %d images of split %s into %s", reader.doing, len(split), split.name, folder)
    try:
        filled = fill(reader, temporary / "images.u8", source.config.workers or cores(), progress)
        _refuse_bad(reader, split, filled, source.skips_bad_images)
        _finish(temporary, filled, key, _describe(split, source.config))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged store; processes that have mapped it keep their map
        temporary.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _load(folder, key, split, verify=False)


def _remove_stale(cache: Path) -> None:
    """Remove the folders of killed builds; only those older than a day, since a younger build may still run."""
    for path in cache.glob("building-*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(path)


def _refuse_bad(reader: Reader, split: Split, filled: Filled, skip: bool) -> None:
    if not filled.bad:
        return
    problems = _problems(reader, filled.bad)
    summary = f"Split {split.name}: {len(filled.bad):,} of {len(split):,} images cannot be used:{indented(problems)}"
    if not skip:
        raise InputError(f"{summary}\n{_advice(reader, filled)}")
    if len(filled.bad) == len(split):
        raise InputError(f"{summary}\nNo image is left.")
    lost = set(split.labels.tolist()) - set(split.labels[_kept(len(split), filled.bad)].tolist())
    if lost:
        classes = "class" if len(lost) == 1 else "classes"
        labels = ", ".join(map(str, sorted(lost)))
        raise InputError(f"{summary}\nNo image is left of the {classes} with label {labels}.")


def _problems(reader: Reader, bad: dict[int, str]) -> list[str]:
    """One line for each reason, those of most images first, with up to three examples."""
    rows_by_reason: dict[str, list[int]] = {}
    for row, reason in bad.items():
        rows_by_reason.setdefault(reason, []).append(row)
    problems = []
    for reason, rows in sorted(rows_by_reason.items(), key=lambda item: -len(item[1])):
        places = [reader.where(row) for row in rows[:3]]
        several = f"each of {len(rows):,} images {reason}; examples: {', '.join(places)}"
        problems.append(several if len(rows) > 1 else f"{places[0]} {reason}")
    return problems


def _advice(reader: Reader, filled: Filled) -> str:
    """What to do about images that cannot be used."""
    sizes = [size for reason in filled.bad.values() if (size := size_in(reason))]
    advice = "Skip these images with data.on_error=skip"
    if len(sizes) < len(filled.bad):
        advice = f"Repair or remove these files. {advice}"
    if sizes:
        advice += ", or resize images of another size with data.resize=true, which weakens generator traces"
    if sizes and reader.size is None:
        advice += ". The first image has set the size; set another with 'data.size=[HEIGHT,WIDTH]'"
    return f"{advice}."


def _describe(split: Split, config: DataConfig) -> dict[str, str]:
    """What ``deepfake-cls cache`` shows of a store: layout, folder of the data, split."""
    root = getattr(config, "root", None)
    return {"name": config.name, "split": split.name} | ({"root": str(Path(root).absolute())} if root else {})


def _finish(folder: Path, filled: Filled, key: str, data: dict[str, str]) -> None:
    """Remove the rows of bad images, write the index, and flush everything to disk."""
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
    index = {
        "key": key,
        "shape": shape,
        "fingerprint": _fingerprint(folder / "images.u8", shape, kept),
        "skipped": list(filled.bad.items()),
        "resized": filled.resized,
        "data": data,
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
