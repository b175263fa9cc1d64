"""Run folders: which run this is, where it lives, and who may write there."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from deepfake_cls import distributed
from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_record, write_atomically, write_record

if TYPE_CHECKING:
    from deepfake_cls.hardware import Hardware

PACKAGE = Path(__file__).parent
# What a result can depend on; tables, figures and pages are made from results and are left out.
SOURCES = (
    "data",
    "models",
    "training",
    "hardware.py",
    "distributed.py",
    "randomness.py",
    "train.py",
    "knn.py",
    "stats/metrics.py",
)
# Keys that say where or how conveniently, never what.
NOT_IDENTITY = {
    "": {"run_dir", "force", "checkpoint", "output"},
    "data": {"root", "cache", "workers", "verify"},
    "trainer": {"device", "precision", "threads", "progress"},
}


def sources_hash() -> str:
    """SHA-256 of the package's sources that results depend on."""
    digest = hashlib.sha256()
    for entry in SOURCES:
        path = PACKAGE / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def identity_of(kind: str, config: Any, fingerprint: str, hardware: Hardware, **more: str) -> str:
    """The run's identity: SHA-256 of all that can change its result.

    Args:
        kind: ``cnn``, ``knn``, ``evaluate``, ...
        config: The typed configuration.
        fingerprint: Of the data.
        hardware: What it runs on.
        more: What else the result depends on, such as the hash of a checkpoint.
    """
    parts = {
        "kind": kind,
        "config": essence(kind, plain(config)),
        "data": fingerprint,
        # GPU models give different results; CPU threads do not affect a GPU's.
        "device": hardware.name if hardware.device == "cuda" else hardware.device,
        "precision": hardware.precision,
        "threads": None if hardware.device == "cuda" else hardware.threads,
        "processes": hardware.processes,
        "sources": sources_hash(),
        **more,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def essence(kind: str, tree: dict[str, Any]) -> dict[str, Any]:
    """A run's plain configuration without the keys that cannot change its result."""
    # In training, tta adds a score and changes none; nearest neighbours have no epochs and are exact on any hardware.
    left_out = NOT_IDENTITY[""] | {"cnn": {"tta"}, "knn": {"trainer"}}.get(kind, set())
    kept = {key: value for key, value in tree.items() if key not in left_out}
    for group in NOT_IDENTITY.keys() & kept.keys():
        kept[group] = {key: value for key, value in kept[group].items() if key not in NOT_IDENTITY[group]}
    return kept


def plain(config: Any) -> dict[str, Any]:
    """A dataclass configuration as plain dicts, lists, numbers and words."""
    assert is_dataclass(config)
    assert not isinstance(config, type)
    return asdict(config)


@dataclass
class Run:
    """A claimed run folder.

    Attributes:
        path: The folder.
        identity: The run's identity, 64 hex digits.
        done: The finished record where there is nothing left to do.
    """

    path: Path
    identity: str
    done: Record | None = None

    @property
    def last(self) -> Path:
        """The checkpoint from which an unfinished run goes on."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the epoch with the best validation accuracy."""
        return self.path / "checkpoints" / "best.ckpt"


@dataclass(frozen=True)
class Claimed:
    """A run that a process has begun to work on.

    Attributes:
        kind: ``cnn``, ``knn``, ...
        path: The run's folder.
        identity: The run's identity.
    """

    kind: str
    path: Path
    identity: str


# Called for each run that this process begins; a sweep's job tells its parent, which marks it failed after a crash.
on_claim: list[Callable[[Claimed], None]] = []


def record_failure(claimed: Claimed, config: Any, error: str) -> None:
    """Record that a run's process has ended without a result, unless another process is at work on it or has done it.

    Args:
        claimed: The run.
        config: Its typed configuration.
        error: What happened.
    """
    with suppress(Timeout), _lock(claimed.path).acquire(timeout=10):
        if not (claimed.path / "result.json").exists():
            failed = Record(claimed.kind, "failed", claimed.identity, plain(config), seed=config.seed, error=error)
            write_record(claimed.path, failed)


def _lock(path: Path) -> FileLock:
    # Beside the folder and not in it, so that a repeated run can empty the folder while it holds the lock.
    return FileLock(path.parent / f".{path.name}.lock")


@contextmanager
def claim(kind: str, identity: str, config: Any, *, sweep: bool) -> Iterator[Run]:
    """Take a run folder for this process, waiting while another process holds it.

    A finished run comes back with ``done`` set; an unfinished or failed one is handed out to go on with;
    ``config.force`` empties the folder first. What is raised inside is recorded as the run's failure. In a job of many
    processes rank 0 claims, and the others have its word.

    Args:
        kind: Names the folder under ``runs/``.
        identity: From :func:`identity_of`.
        config: The typed configuration; its ``run_dir`` says where the run lives, else ``runs/<kind>/<id>``.
        sweep: Whether this is one job of a sweep: ``run_dir`` is then the parent of all jobs.

    Raises:
        InputError: If the folder holds another run, or something else.
    """
    if distributed.rank() != 0:
        yield distributed.broadcast(None)
        return
    short, run_dir = identity[:12], config.run_dir
    parent = Path(run_dir or Path("runs") / kind)
    path = parent if run_dir is not None and not sweep else parent / short
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path}: another process is at work there; waiting for it.", flush=True)
        lock.acquire()
    try:
        run = distributed.broadcast(_open(path, identity, config.force))
        if run.done is None:
            for told in on_claim:
                told(Claimed(kind, path, identity))
        try:
            yield run
        except Exception as error:
            if (run.path / "result.json").exists():
                raise  # the result is there; what failed came after it, such as printing into a closed pipe
            failure = f"{type(error).__name__}: {error}"
            write_record(path, Record(kind, "failed", identity, plain(config), seed=config.seed, error=failure))
            raise
    finally:
        lock.release()


def _open(path: Path, identity: str, force: bool) -> Run:
    owner = path / "run.json"
    if path.exists() and not path.is_dir():
        raise InputError(f"run_dir={path}: is a file; give a folder.")
    if path.is_dir() and any(path.iterdir()):
        try:
            found = json.loads(owner.read_text())["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"run_dir={path}: holds something that is no run; give an empty or a new folder."
            ) from None
        if found != identity:
            raise InputError(
                f"run_dir={path}: holds another run ({found[:12]}; this one is {identity[:12]})."
                " Give another run_dir, or leave it out."
            )
        record = read_record(path) if (path / "result.json").is_file() else None
        if force:
            shutil.rmtree(path)
        elif record is not None and record.status == "ok":
            return Run(path, identity, done=record)
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").unlink(missing_ok=True)
    write_atomically(owner, json.dumps({"identity": identity}).encode())
    return Run(path, identity)
