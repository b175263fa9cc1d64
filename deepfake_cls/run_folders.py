"""Run folders: where a run is saved, and which process may write there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from deepfake_cls import distributed
from deepfake_cls.errors import InputError, OutputError, writing
from deepfake_cls.files import TEMPORARY, write_atomically
from deepfake_cls.records import Record, read_record, write_record
from deepfake_cls.run_key import run_key_of

if TYPE_CHECKING:
    from deepfake_cls.data.images import SplitImages
    from deepfake_cls.data.manifest import Manifest
    from deepfake_cls.hardware import Hardware
    from deepfake_cls.stats.metrics import Scores


@dataclass(frozen=True)
class Run:
    """A run that this process has claimed.

    Attributes:
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``.
        path: The run's folder.
        identity: The run key, 64 hex digits.
        done: The record of a finished run; None if the run must be started or resumed.
    """

    kind: str
    path: Path
    identity: str
    done: Record | None = None

    @property
    def last(self) -> Path:
        """The checkpoint from which an unfinished run resumes."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch with the best validation accuracy."""
        return self.path / "checkpoints" / "best.ckpt"

    def result(
        self,
        config: Any,
        manifest: Manifest,
        splits: dict[str, SplitImages],
        hardware: Hardware,
        scores: Scores,
        **others: Any,
    ) -> Record:
        """The record of this run after it has succeeded; the caller writes it.

        ``splits`` are those that the run used. ``others`` are further fields of :class:`Record`; they take precedence.
        """
        from deepfake_cls.data.images import describe, skipped

        shared = {
            "config": asdict(config),
            "seed": config.seed,
            "data": describe(manifest, splits),
            "recall": scores.recall,
            "confusion": scores.confusion,
            "device": hardware.name,
            "precision": hardware.precision,
            "threads": hardware.threads,
            "processes": hardware.processes,
            "skipped": skipped(splits),
        }
        return Record(kind=self.kind, status="ok", identity=self.identity, **shared | others)

    def failure(self, config: Any, error: str) -> Record:
        """The record of this run after it has failed."""
        return Record(self.kind, "failed", self.identity, asdict(config), seed=config.seed, error=error)


_INSTEAD = "choose another folder with run_dir=PATH"

# Called for each run that this process claims. A job of a sweep sends the run to its parent process, which records the
# failure if the job crashes, and compares the runs when the sweep ends.
on_claim: list[Callable[[Run], None]] = []


def record_failure(run: Run, config: Any, error: str) -> None:
    """Record that a run's process ended without a result, unless another process works on the run or finished it."""
    with suppress(Timeout, OSError), lock_of(run.path).acquire(timeout=10):  # OSError: on a full disk
        if not (run.path / "result.json").exists():
            write_record(run.path, run.failure(config, error))


@contextmanager
def claim(kind: str, identity: str, config: Any, *, sweep: bool) -> Iterator[Run]:
    """Claim a run folder for this process; wait while another process has it.

    A finished run has ``done`` set; any other must be started or resumed. ``config.force`` empties the folder first. An
    exception inside the context is recorded as the run's failure. In a job of several processes, rank 0 claims the run
    and broadcasts it.

    Args:
        kind: Name of the folder under ``runs/``.
        identity: From :func:`deepfake_cls.run_key.run_key`.
        config: The configuration, a dataclass; its ``run_dir`` is the run's folder, by default ``runs/<kind>/<id>``.
        sweep: Whether this is a job of a sweep: ``run_dir`` is then the parent of all jobs' folders.

    Raises:
        InputError: If the folder contains another run, or other files.
    """
    if distributed.rank() != 0:
        yield distributed.broadcast(None)
        return
    path = _folder(kind, identity, config, sweep)
    with writing(path, _INSTEAD):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
    with lock:
        with writing(path, _INSTEAD):
            opened = _open(Run(kind, path, identity), config)
        run = distributed.broadcast(opened)
        for callback in on_claim:
            callback(run)
        try:
            yield run
        except Exception as error:
            # An error after the result, such as printing into a closed pipe, does not make the run a failed one.
            if not (path / "result.json").exists():
                with suppress(OutputError):  # on a full disk; the first error says what to do
                    write_record(path, run.failure(config, f"{type(error).__name__}: {error}"))
            if isinstance(error, OutputError):
                resumes = f"; it resumes from {run.last}" if run.last.is_file() else ""
                raise OutputError(f"{error} Then give the same command again{resumes}.") from error
            raise


def _folder(kind: str, identity: str, config: Any, sweep: bool) -> Path:
    if config.run_dir is not None:
        return Path(config.run_dir, identity[:12]) if sweep else Path(config.run_dir)
    path = Path("runs", kind, identity[:12])
    if not path.exists() and not config.force:
        return _finished_schema_1(path.parent, identity) or path
    return path


def _finished_schema_1(parent: Path, identity: str) -> Path | None:
    """The folder of a finished run with this key that an older version saved: its name is that of an older run key."""
    for file in sorted(parent.glob("*/result.json")):
        with suppress(InputError):  # an unreadable record is no finished run
            record = read_record(file.parent)
            if record.schema == 1 and record.status == "ok" and run_key_of(record) == identity:
                return file.parent
    return None


def lock_of(path: Path) -> FileLock:
    """The lock of a run's folder, which the process that works on the run holds."""
    # Not in the folder, so that force=true can delete the folder while it is locked.
    return FileLock(path.parent / f".{path.name}.lock")


def _locked(path: Path) -> AbstractContextManager[Any]:
    lock = lock_of(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        if not Path(lock.lock_file).exists():  # filelock tries again where no file can be created, such as in /proc
            raise OutputError(f"{path} cannot be written: its lock file cannot be created; {_INSTEAD}.") from None
        print(f"{path}: another process works on this run; waiting until it ends.", flush=True)
        return lock.acquire()


def _open(run: Run, config: Any) -> Run:
    """Return the run with its record if it is finished; else prepare its folder."""
    path = run.path
    if path.exists() and not path.is_dir():
        raise InputError(f"run_dir={path}: is a file; give a folder.")
    if path.is_dir() and any(path.iterdir()):
        record = read_record(path) if (path / "result.json").is_file() else None
        finished = record if record is not None and record.status == "ok" else None
        identity = _identity_in(path, record)
        if identity != run.identity and not (finished and run_key_of(finished) == run.identity):
            raise InputError(
                f"run_dir={path}: contains another run ({identity[:12]}; this one is {run.identity[:12]})."
                " Give another run_dir, or omit it."
            )
        if config.force:
            shutil.rmtree(path)
        elif finished:
            return replace(run, done=finished)
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").unlink(missing_ok=True)
    for unfinished in path.rglob(f".*{TEMPORARY}"):  # of a process that was killed while it wrote
        unfinished.unlink()
    started = {"identity": run.identity, "kind": run.kind, "config": asdict(config)}
    write_atomically(path / "run.json", json.dumps(started).encode())
    return run


def _identity_in(path: Path, record: Record | None) -> str:
    """The run key of the run in a folder; InputError if the folder contains no run."""
    try:
        return str(json.loads((path / "run.json").read_text())["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        if record is None:
            raise InputError(f"run_dir={path}: contains files, but no run; give an empty or a new folder.") from None
        return record.identity  # result.json without run.json, such as a copy from another machine
