"""Runs: which run this is, where it lives, and who may write there."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from deepfake_cls import distributed
from deepfake_cls.config import SCHEMAS, conf_dir
from deepfake_cls.data.sources import source
from deepfake_cls.errors import InputError
from deepfake_cls.records import RESULT_VERSION, Record, read_record, write_atomically, write_record

if TYPE_CHECKING:
    from deepfake_cls.hardware import Hardware

# Keys that cannot change a result. In training, tta adds a score and changes none; nearest neighbours are exact on any
# hardware; a seed matters only through data.fold, which is a key of its own.
EXCLUDED = {
    "": {"run_dir", "force", "checkpoint", "init", "output", "plugins", "logger"},
    "data": {"root", "cache", "workers", "verify"},
    "trainer": {"device", "precision", "threads", "progress"},
}
EXCLUDED_BY_KIND = {"cnn": {"tta"}, "knn": {"trainer", "seed"}, "evaluate": {"seed"}}


def hashed_config(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides a result, without keys at their default value.

    So a key that is added later changes the key of no old run. A changed default needs a new ``RESULT_VERSION``.

    Args:
        kind: ``cnn``, ``knn``, ``evaluate``.
        config: A plain configuration of the current schema.
    """
    excluded = EXCLUDED[""] | EXCLUDED_BY_KIND.get(kind, set())
    kept: dict[str, Any] = {key: value for key, value in config.items() if key not in excluded}
    for group in EXCLUDED.keys() & kept.keys():
        kept[group] = {key: value for key, value in kept[group].items() if key not in EXCLUDED[group]}
    found = _changed(kept, _defaults(kind))
    data = kept.get("data", {})
    name = data.get("name")
    if name in source:
        data = _changed(data, defaults_of(source[name].Config))
    found["data"] = {**data, "name": name}
    if "model" in kept:
        name, args = kept["model"]["name"], kept["model"]["args"]
        found["model"] = {"name": name, "args": _changed(args, _file("model", name).get("args", {}))}
    if "augment" in kept:
        usual = _file("augment", "paper")
        # A list, since the order of augmentations matters.
        found["augment"] = [
            [name, _changed(strengths, usual.get(name, {}))]
            for name, strengths in kept["augment"].items()
            if strengths is not None
        ]
    return _canonical(found)  # type: ignore[no-any-return]


def _changed(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the defaults, group by group."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        usual = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(usual, Mapping):
            if changed := _changed(value, usual):
                found[key] = changed
        elif key not in defaults or value != usual:
            found[key] = value
    return found


def _canonical(value: Any) -> Any:
    """The same values in one notation: 10 and 10.0 are one number."""
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@functools.cache
def _defaults(kind: str) -> dict[str, Any]:
    return defaults_of(SCHEMAS["train" if kind == "cnn" else kind])


def defaults_of(schema: type[Any]) -> dict[str, Any]:
    """The plain values of the fields that have a default."""
    found = {}
    for entry in fields(schema):
        if entry.default_factory is not MISSING:
            value = entry.default_factory()
            found[entry.name] = plain(value) if is_dataclass(value) else value
        elif entry.default is not MISSING:
            found[entry.name] = entry.default
    return found


@functools.cache
def _file(group: str, name: str) -> dict[str, Any]:
    """A file of ``conf/``, which holds the defaults of a group's open mappings; empty where there is none."""
    from omegaconf import OmegaConf

    file = conf_dir() / group / f"{name}.yaml"
    if not file.is_file():
        return {}
    found: Any = OmegaConf.to_container(OmegaConf.load(file))
    return dict(found)


def result_key(kind: str, config: Mapping[str, Any], fingerprint: str, version: int, **more: str) -> str:
    """What makes two results comparable as one, wherever they were computed: a digest of 64 hex digits.

    Args:
        kind: ``cnn``, ``knn``, ``evaluate``.
        config: A plain configuration.
        fingerprint: Of the data.
        version: ``RESULT_VERSION`` of the code that made the result.
        more: Digests of what else the result depends on: a checkpoint, initial weights.
    """
    parts = {"kind": kind, "config": hashed_config(kind, config), "data": fingerprint, "version": version, **more}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _run_key(
    kind: str, result: str, device: str, precision: str, threads: int | None, processes: int, torch_version: str
) -> str:
    """The key of a run: all that can change its result, hardware and software included; 64 hex digits.

    Args:
        kind: Nearest neighbours are exact, so for them hardware and software change nothing.
        result: From :func:`result_key`.
        device: ``cpu``, or the name of the GPU.
        precision: ``32-true``, ``bf16-mixed``.
        threads: CPU threads; None on a GPU, where they change nothing.
        processes: Devices that share the job.
        torch_version: Its minor version counts.
    """
    if kind == "knn":
        return result
    parts = [result, device, precision, threads, processes, torch_version.split("+")[0].split(".")[:2]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def key_here(kind: str, config: Any, fingerprint: str, hardware: Hardware, **more: str) -> str:
    """The key of a run that is to be made on this machine.

    Args:
        kind: ``cnn``, ``knn``, ``evaluate``.
        config: The typed configuration.
        fingerprint: Of the data.
        hardware: What it runs on.
        more: See :func:`result_key`.
    """
    import torch

    cuda = hardware.device == "cuda"
    return _run_key(
        kind,
        result_key(kind, plain(config), fingerprint, RESULT_VERSION, **more),
        hardware.name if cuda else hardware.device,
        hardware.precision,
        None if cuda else hardware.threads,
        hardware.processes,
        torch.__version__,
    )


def result_key_of(record: Record) -> str:
    """The result key of a finished record."""
    return result_key(record.kind, record.config, record.data["fingerprint"], record.result_version, **record.digests)


def run_key_of(record: Record) -> str:
    """The run key of a finished record: its identity, or for records of schema 1 the same from what they hold."""
    if record.schema > 1:
        return record.identity
    return _run_key(
        record.kind,
        result_key_of(record),
        "cpu",
        record.precision,
        record.threads,
        record.processes,
        record.versions.get("torch", ""),
    )


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
        identity: The run's key, 64 hex digits.
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
        identity: The run's key.
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
        identity: From :func:`key_here`.
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
    if run_dir is None and not path.exists() and not config.force:
        path = _finished(parent, identity) or path
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
        record = read_record(path) if (path / "result.json").is_file() else None
        try:
            found = json.loads(owner.read_text())["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            if record is None:
                raise InputError(
                    f"run_dir={path}: holds something that is no run; give an empty or a new folder."
                ) from None
            found = record.identity  # a record alone, such as a copy from another machine
        if record is not None and record.status == "ok" and identity in (found, run_key_of(record)):
            found = identity
        if found != identity:
            raise InputError(
                f"run_dir={path}: holds another run ({found[:12]}; this one is {identity[:12]})."
                " Give another run_dir, or leave it out."
            )
        if force:
            shutil.rmtree(path)
        elif record is not None and record.status == "ok":
            return Run(path, identity, done=record)
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").unlink(missing_ok=True)
    write_atomically(owner, json.dumps({"identity": identity}).encode())
    return Run(path, identity)


def _finished(parent: Path, identity: str) -> Path | None:
    """The folder of a finished run of this key under another name, such as that of a record of schema 1."""
    for file in sorted(parent.glob("*/result.json")):
        with suppress(InputError):  # a torn record is no finished run
            record = read_record(file.parent)
            if record.schema == 1 and record.status == "ok" and run_key_of(record) == identity:
                return file.parent
    return None
