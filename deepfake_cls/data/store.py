"""The cache of decoded images: each split is a memory-mapped uint8 array (N, H, W, C).

A store is a folder in the cache with ``images.u8``, the raw array, and ``index.json``. Its name is a hash of everything
that determines the pixels (paths, sizes, modification times, options), so that a later run opens it and no image. Its
fingerprint is the SHA-256 of the pixels. A store is built in a temporary folder, which is renamed when it is complete
and on disk, so that a build that is killed leaves no store.

With ``data.crop``, the images have any size, and ``whole`` says how they are stored. Such a store does not depend on
the size and number of the crops, so that other crops of the same images need no decoding.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import DataConfig
from deepfake_cls.crops import Crops
from deepfake_cls.data.build import Filled, cores, fill
from deepfake_cls.data.decode import size_in
from deepfake_cls.data.entries import cache_folder
from deepfake_cls.data.listing import indented
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.readers import Reader
from deepfake_cls.data.sources import Source, crops_of, open_source
from deepfake_cls.data.whole import CropStore, WholeImages, open_whole, write_whole
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)
_SCHEMA = 1
_DAY = 86_400.0
_CHANGED = "data.verify: the pixels have changed"
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
    def folder(self) -> Path | None:
        """The folder of the files; None for an array in memory."""
        file: str | None = getattr(self.images, "filename", None)
        return None if file is None else Path(file).parent

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
) -> Store | CropStore:
    """Open the decoded images of a split; decode them first if they are not in the cache.

    The split is from ``read_manifest`` with the same ``config``. For ``size`` see ``images.open_images``.

    Raises:
        InputError: If images are bad (the message lists them), all images of the split or of a class are bad, or the
            cache cannot be written. With ``data.crop`` and ``data.small=raise``, also if images are too small.
    """
    if not len(split):
        raise InputError(f"Split {split.name} is empty; expected at least one image.")
    source = open_source(config)
    crops = crops_of(config)
    reader = source.reader(split, size if crops is None else None)
    key = _key(reader, source.skips_bad_images, crops is not None)
    folder = cache_folder(config.cache) / f"store-{key[:32]}"
    try:
        try:
            store = _load(folder, key, split, config.verify, crops)
        except _UnusableError as damage:
            if str(damage):
                _log.warning("%s is damaged (%s): its images are decoded again", folder, damage)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.with_suffix(".lock")):
                store = _load_or_build(reader, split, folder, key, source, crops, progress)
    except OSError as error:
        raise InputError(
            f"Decoded images cannot be saved to {folder.parent}: {error.strerror or error}. "
            "Free some space, or choose another folder: data.cache=PATH."
        ) from error
    if isinstance(store, CropStore):
        store = _without_small(reader, split, store)
    if store.skipped:
        _log.warning("Split %s: skipped %d of %d images", split.name, len(store.skipped), len(split))
    return store


def _key(reader: Reader, skip: bool, whole: bool = False) -> str:
    """Hash everything that determines the content of a store.

    With ``skip``, bad images are skipped; with ``whole``, images have any size.
    """
    hasher = hashlib.sha256(f"{_SCHEMA} {skip}{' whole' if whole else ''}".encode())
    for part in reader.content():
        hasher.update(f"\n{part}".encode(errors="surrogateescape"))
    return hasher.hexdigest()


# Reading


def _load(folder: Path, key: str, split: Split, verify: bool, crops: Crops | None) -> Store | CropStore:
    """Map a finished store.

    Raises:
        _UnusableError: If the store is missing or damaged.
    """
    if not (folder / "index.json").exists():
        raise _UnusableError
    try:
        index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        skipped: dict[int, str] = {int(row): reason for row, reason in index["skipped"]}
        if index["key"] != key:
            raise _UnusableError("it contains other images")
        kept = _kept(len(split), skipped)
        reasons = tuple((split.ids[row], reason) for row, reason in skipped.items())
        others = (index["fingerprint"], kept, reasons)
        store: Store | CropStore
        if crops is None:
            store = Store(_map(folder, tuple(index["shape"]), index["fingerprint"] if verify else None, kept), *others)
        else:
            whole = open_whole(folder, len(split))
            if verify and whole.fingerprint() != index["fingerprint"]:
                raise _UnusableError(_CHANGED)
            store = CropStore(WholeImages(whole.pixels, whole.table[kept]), crops, folder, *others)
        resized, (height, width) = index["resized"], store.size
        _mark_as_used(folder)
    except (ValueError, KeyError, TypeError, IndexError, EOFError, FileNotFoundError) as error:
        raise _UnusableError(f"it is incomplete: {error}") from error
    if resized:
        _log.warning(
            "Split %s: resized %d of %d images to %d×%d by Lanczos, which weakens generator traces and adds others",
            split.name, resized, len(split), height, width,
        )  # fmt: skip
    return store


def _map(folder: Path, shape: tuple[int, ...], fingerprint: str | None, kept: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Map ``images.u8`` and check its length; also its pixels, if a fingerprint is given."""
    images_file = folder / "images.u8"
    if images_file.stat().st_size != math.prod(shape):
        raise _UnusableError("images.u8 has another length")
    if fingerprint is not None and _fingerprint(images_file, shape, kept) != fingerprint:
        raise _UnusableError(_CHANGED)
    return np.memmap(images_file, np.uint8, "r", shape=shape)


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


def _load_or_build(
    reader: Reader, split: Split, folder: Path, key: str, source: Source, crops: Crops | None, progress: bool
) -> Store | CropStore:
    with contextlib.suppress(_UnusableError):  # another process may have built it before this one got the lock
        return _load(folder, key, split, source.config.verify, crops)
    _remove_stale(folder.parent)
    temporary = folder.parent / f"building-{uuid.uuid4().hex}"
    temporary.mkdir()
    _log.info("%s the %d images of split %s into %s", reader.doing, len(split), split.name, folder)
    try:
        _build(reader, split, temporary, key, source, crops is not None, progress)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged store; processes that have mapped it keep their map
        temporary.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _load(folder, key, split, False, crops)


def _build(reader: Reader, split: Split, folder: Path, key: str, source: Source, whole: bool, progress: bool) -> None:
    """Write all files of a store to an empty folder, and flush them to disk."""
    workers = source.config.workers or cores()
    index: dict[str, Any]
    if whole:
        bad = write_whole(reader, folder, workers, progress)
        _refuse_bad(reader, split, bad, source.skips_bad_images, _advice(reader, bad))
        fingerprint = open_whole(folder, len(split)).fingerprint()
        index = {"shape": [len(split) - len(bad)], "fingerprint": fingerprint, "resized": 0}
    else:
        filled = fill(reader, folder / "images.u8", workers, progress)
        bad = filled.bad
        _refuse_bad(reader, split, bad, source.skips_bad_images, _advice(reader, bad))
        index = _finish(folder, filled)
    index |= {"key": key, "skipped": list(bad.items()), "data": _describe(split, source.config)}
    (folder / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _remove_stale(cache: Path) -> None:
    """Remove the folders of killed builds; only those older than a day, since a younger build may still run."""
    for path in cache.glob("building-*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _DAY:
                shutil.rmtree(path)


def _refuse_bad(reader: Reader, split: Split, bad: dict[int, str], skip: bool, advice: str) -> None:
    """Refuse the images of ``bad``, their reasons by row; with ``skip``, only if no image of a class is left."""
    if not bad:
        return
    problems = _problems(reader, bad)
    summary = f"Split {split.name}: {len(bad):,} of {len(split):,} images cannot be used:{indented(problems)}"
    if not skip:
        raise InputError(f"{summary}\n{advice}")
    if len(bad) == len(split):
        raise InputError(f"{summary}\nNo image is left.")
    lost = set(split.labels.tolist()) - set(split.labels[_kept(len(split), bad)].tolist())
    if lost:
        classes = "class" if len(lost) == 1 else "classes"
        labels = ", ".join(map(str, sorted(lost)))
        raise InputError(f"{summary}\nNo image is left of the {classes} with label {labels}.")


def _without_small(reader: Reader, split: Split, store: CropStore) -> CropStore:
    """Leave out images that are smaller than a crop, or refuse them, by ``data.small``."""
    crops, sizes = store.crops, store.whole.sizes
    fits = crops.fits(sizes)
    extended = int((fits & (sizes < crops.side).any(axis=1)).sum())
    if extended:
        text = "Split %s: extended %d of %d images to %d pixels by reflection (data.small=pad)"
        _log.info(text, split.name, extended, len(split), crops.side)
    if fits.all():
        return store
    row_of = {image_id: row for row, image_id in enumerate(split.ids)}
    bad = {row_of[image_id]: reason for image_id, reason in store.skipped}
    small = {int(store.kept[row]): crops.refusal(*sizes[row].tolist()) for row in np.flatnonzero(~fits)}
    bad = dict(sorted((bad | small).items()))
    advice = (
        f"Choose a smaller crop than data.crop={crops.side}, skip these images with data.small=skip, or extend them by"
        " reflection with data.small=pad."
    )
    _refuse_bad(reader, split, bad if crops.small == "skip" else small, crops.small == "skip", advice)
    kept = store.kept[fits]
    return replace(
        store,
        whole=WholeImages(store.whole.pixels, store.whole.table[fits]),
        fingerprint=hashlib.sha256(store.fingerprint.encode() + kept.astype("<i8").tobytes()).hexdigest(),
        kept=kept,
        skipped=tuple((split.ids[row], reason) for row, reason in bad.items()),
    )


def _problems(reader: Reader, bad: dict[int, str]) -> list[str]:
    """One line for each reason, those of most images first, with up to three examples; other sizes are one reason."""
    rows_by_reason: dict[str, list[int]] = {}
    for row, reason in bad.items():
        kind = f"has another size{reason[reason.index(';') :]}" if size_in(reason) else reason
        rows_by_reason.setdefault(kind, []).append(row)
    problems = []
    for kind, rows in sorted(rows_by_reason.items(), key=lambda item: -len(item[1])):
        same = len({bad[row] for row in rows}) == 1
        sizes = ["" if same else " ({}×{})".format(*(size_in(bad[row]) or ())) for row in rows[:3]]
        places = [f"{reader.where(row)}{size}" for row, size in zip(rows, sizes, strict=False)]
        several = f"each of {len(rows):,} images {bad[rows[0]] if same else kind}; examples: {', '.join(places)}"
        problems.append(several if len(rows) > 1 else f"{places[0]} {bad[rows[0]]}")
    return problems


def _advice(reader: Reader, bad: dict[int, str]) -> str:
    """What to do about images that cannot be used."""
    sizes = [size for reason in bad.values() if (size := size_in(reason))]
    advice = "Skip these images with data.on_error=skip"
    if len(sizes) < len(bad):
        advice = f"Repair or remove these files. {advice}"
    if sizes:
        advice += ", or resize images of another size with data.resize=true, which weakens generator traces"
    if sizes and reader.size is None:
        advice += (
            ". The first image has set the size; set another with 'data.size=[HEIGHT,WIDTH]', or use crops of native"
        )
        advice += " pixels from images of any size with data.crop=SIDE"
    return f"{advice}."


def _describe(split: Split, config: DataConfig) -> dict[str, str]:
    """What ``deepfake-cls cache`` shows of a store: layout, folder of the data, split."""
    root = getattr(config, "root", None)
    return {"name": config.name, "split": split.name} | ({"root": str(Path(root).absolute())} if root else {})


def _finish(folder: Path, filled: Filled) -> dict[str, Any]:
    """Remove the rows of bad images; returns what the index says about ``images.u8``."""
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
    return {"shape": shape, "fingerprint": fingerprint, "resized": filled.resized}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
