"""The entries of the cache: decoded images and properties of images; what there is, and what can be deleted."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

DAY = 86_400.0
UNUSED_AFTER = 30 * DAY  # seconds since the last use
STALE_AFTER = DAY  # a build does not take longer


@dataclass(frozen=True)
class Entry:
    """A part of the cache: the folder of a store, the temporary folder of a build, or the file of an inspection.

    Attributes:
        path: The folder or file.
        status: ``in use`` (a process has it open), ``not in use``, ``damaged``; of a build: ``temporary``, or after a
            day ``interrupted``.
        used: When it was last opened or built, in seconds since the epoch.
        shape: (N, H, W, C) of the images, or (N,) of images of any size and of an inspection; empty if unknown.
        data: ``name``, ``root`` and ``split`` of the data; empty if unknown. An inspection has a ``name`` only.
    """

    path: Path
    status: str
    used: float
    shape: tuple[int, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)


def cache_folder(cache: str | None) -> Path:
    """The folder of ``data.cache``; by default the user's cache folder."""
    if cache is not None:
        return Path(cache).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG base directory specification, a relative path is ignored.
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "deepfake_cls"


def entries(cache: Path) -> list[Entry]:
    """All entries of a cache folder, the one used last at the end; links are left out."""
    found = []
    for path in cache.glob("*-*"):
        with suppress(FileNotFoundError):  # a build that ends renames its folder
            entry = None if path.is_symlink() else _read(path) if path.is_dir() else _read_inspection(path)
            found += [] if entry is None else [entry]
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def _read(path: Path) -> Entry | None:
    if re.fullmatch("building-[0-9a-f]{32}", path.name):
        used = path.stat().st_mtime
        return Entry(path, "temporary" if time.time() - used < STALE_AFTER else "interrupted", used)
    if not re.fullmatch("store-[0-9a-f]{32}", path.name):
        return None
    try:
        index = json.loads((path / "index.json").read_bytes())
        used = (path / "index.json").stat().st_mtime
        shape, data = tuple(map(int, index["shape"])), dict(index.get("data", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(path, "damaged", path.stat().st_mtime)
    return Entry(path, "in use" if _is_open(path) else "not in use", used, shape, data)


def _read_inspection(path: Path) -> Entry | None:
    """A file that ``inspection`` wrote; None for other files."""
    if not re.fullmatch(r"inspection-[0-9a-f]{32}\.npz", path.name):
        return None
    import numpy as np

    used, data = path.stat().st_mtime, {"name": "properties of images"}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Entry(path, "not in use", used, arrays["bytes"].shape, data)
    except Exception:  # numpy and zipfile raise any exception for a damaged file
        return Entry(path, "damaged", used, data=data)


def _is_open(path: Path) -> bool:
    """Whether a process has a store open: such a process holds a shared lock, see ``store``."""
    try:
        with (path / "images.u8").open("r+b") as file:  # NFS locks no file that is only read
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is missing or read-only, or the file system has no locks
        return False
    return False


def removable(found: Sequence[Entry], what: str) -> list[Entry]:
    """The entries that ``prune`` concerns.

    Args:
        found: All entries.
        what: ``unused``: interrupted builds, and entries that were not opened for 30 days. ``all``: every entry that no
            process has open and that may not be a build in progress.
    """
    going = [entry for entry in found if entry.status not in ("in use", "temporary")]
    if what == "all":
        return going
    return [e for e in going if e.status == "interrupted" or time.time() - e.used > UNUSED_AFTER]


def remove(path: Path) -> str:
    """Delete an entry unless it is in use; returns why not, or an empty string.

    A process that opens it meanwhile keeps its memory map. It is renamed first, so that no process finds a part of it.
    """
    if path.is_file():
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
        except OSError as error:
            return f"cannot be deleted ({error.strerror or error})"
        return ""
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        with lock.acquire(timeout=0):
            if _is_open(path):
                return "a process has it open"
            temporary = path.rename(path.parent / f"building-{uuid.uuid4().hex}")
            shutil.rmtree(temporary)
            Path(lock.lock_file).unlink(missing_ok=True)
    except filelock.Timeout:
        return "a process is building it"
    except OSError as error:
        return f"cannot be deleted ({error.strerror or error})"
    return ""
