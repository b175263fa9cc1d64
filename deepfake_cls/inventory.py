"""The runs below a folder: what there is, which run an id names, and what can be deleted."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from deepfake_cls.errors import InputError
from deepfake_cls.records import KINDS, Record, read_record
from deepfake_cls.run_folders import lock_of

SHORTEST = 8  # digits of an id that are shown


@dataclass(frozen=True)
class Found:
    """A run folder.

    Attributes:
        path: The folder.
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``; empty if unknown.
        identity: The run key, 64 hex digits; empty if unknown.
        status: ``ok``, ``failed``, ``running``, ``unfinished``, or ``unreadable`` (a damaged ``result.json``).
        time: When it ended, or when it was started: seconds since the epoch.
        config: The configuration; empty if unknown.
        record: The content of ``result.json``, if it can be read.
    """

    path: Path
    kind: str
    identity: str
    status: str
    time: float
    config: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints; it may not exist."""
        return self.path / "checkpoints"


def runs_below(folder: Path) -> list[Found]:
    """All runs below a folder, oldest first; links are not followed."""
    folders = [Path(parent) for parent, _, files in os.walk(folder) if {"result.json", "run.json"} & {*files}]
    found = [run for path in folders if (run := read_run(path)) is not None]
    return sorted(found, key=lambda run: (run.time, run.identity))


def read_run(path: Path) -> Found | None:
    """Read a run folder; None if it contains no run of this project."""
    kind = path.parent.name if path.parent.name in KINDS else ""
    result, start = path / "result.json", path / "run.json"
    with suppress(OSError):
        time = result.stat().st_mtime
        try:
            record = read_record(path)
        except InputError:
            return Found(path, kind, "", "unreadable", time)
        return Found(path, record.kind, record.identity, record.status, time, record.config, record)
    try:
        started, time = json.loads(start.read_bytes()), start.stat().st_mtime
        identity = started["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not re.fullmatch("[0-9a-f]{64}", str(identity)):
        return None
    # Older versions wrote neither kind nor configuration when a run started.
    kind, config = started.get("kind", kind), started.get("config", {})
    return Found(path, kind, identity, "running" if _is_locked(path) else "unfinished", time, config)


def _is_locked(path: Path) -> bool:
    lock = lock_of(path)
    if not Path(lock.lock_file).exists():
        return False  # looking must not create a file
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # in a folder that this user cannot write
        return False


def short_ids(runs: Sequence[Found]) -> list[str]:
    """The first digits of each run's id, as many as make them different."""
    identities = {run.identity for run in runs}
    digits = next(n for n in range(SHORTEST, 65) if n == 64 or len({i[:n] for i in identities}) == len(identities))
    return [run.identity[:digits] or "–" for run in runs]


def find(texts: Sequence[str], folder: Path) -> list[Found]:
    """The finished runs that folders, or the first digits of ids, name.

    Args:
        texts: Folders of runs, or the first digits of ids of runs below ``folder``.
        folder: The folder that is searched.

    Raises:
        InputError: If one names no run, several runs, or a run that has not finished.
    """
    named = {text: read_run(Path(text)) if text else None for text in texts}
    below = runs_below(folder) if None in named.values() else []
    return [
        _the_finished(text, [run] if run else [other for other in below if _begins(other, text)], folder)
        for text, run in ((text, named[text]) for text in texts)
    ]


def _begins(run: Found, text: str) -> bool:
    return bool(text) and run.identity.startswith(text.lower())


def _the_finished(text: str, runs: Sequence[Found], folder: Path) -> Found:
    if not runs:
        raise InputError(
            f"{text}: expected the folder of a run, or the first digits of the id of a run below {folder};"
            " deepfake-cls runs lists them."
        )
    if len(runs) > 1:
        matches = ", ".join(str(run.path) for run in runs[:5])
        raise InputError(f"{text}: {len(runs)} runs have an id with these digits; give one of {matches}.")
    if runs[0].status != "ok":
        raise InputError(f"{text}: the run in {runs[0].path} is {runs[0].status}; expected a finished run.")
    return runs[0]


def removable(runs: Sequence[Found], what: str) -> dict[Path, Found]:
    """The folders that ``prune`` concerns, each with its run.

    Args:
        runs: All runs.
        what: ``failed``, ``unfinished``, or ``checkpoints`` of finished runs.
    """
    if what == "checkpoints":
        return {run.checkpoints: run for run in runs if run.status == "ok" and run.checkpoints.is_dir()}
    return {run.path: run for run in runs if run.status == what}


def remove(run: Found, path: Path) -> str:
    """Delete a folder of a run, unless a process works on the run, it has changed, or the folder is not only the run's.

    Args:
        run: The run as it was shown.
        path: Its folder, or the folder of its checkpoints.

    Returns:
        Why it was not deleted, or an empty string.
    """
    try:
        with lock_of(run.path).acquire(timeout=0):
            reason = _reason_to_keep(run, path)
            if not reason:
                shutil.rmtree(path)  # refuses a link
    except Timeout:
        return "a process works on this run"
    except OSError as error:
        return f"cannot be deleted ({error.strerror or error})"
    return reason


def _reason_to_keep(run: Found, path: Path) -> str:
    result = run.path / "result.json"
    time = result.stat().st_mtime if result.exists() else None
    if time != (None if run.record is None else run.time):
        return "the run has changed meanwhile"
    if Path.cwd().is_relative_to(path.resolve()):
        return "contains the current folder"
    if [other for other in runs_below(path) if other.path != run.path]:
        return "contains other runs"
    return ""
