"""The run key: a digest of everything that can change a run's result."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from deepfake_cls.config import SCHEMAS, conf_dir
from deepfake_cls.data.sources import source
from deepfake_cls.records import RESULT_VERSION, Record

if TYPE_CHECKING:
    from deepfake_cls.hardware import Hardware

# Keys that cannot change a result. In training, tta adds a score and changes none; so does fusion in statistics. KNN is
# exact on any hardware. A seed of knn or evaluate matters only through data.fold, which is a key of its own. The ids,
# labels and classes of the data contain what tables say.
EXCLUDED = {
    "": {"run_dir", "force", "checkpoint", "init", "fuse", "fusion", "output", "plugins", "logger"},
    "data": {"root", "cache", "workers", "verify", "table", "group_table"},
    "trainer": {"device", "precision", "threads", "progress"},
}
EXCLUDED_BY_KIND = {"cnn": {"tta"}, "knn": {"trainer", "seed"}, "evaluate": {"seed"}}


def hashed_config(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that can change a result, without keys at their default value.

    So a key that is added later changes no old run's key. A changed default needs a new ``RESULT_VERSION``.

    Args:
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``.
        config: A configuration of the current schema, as nested dicts.
    """
    excluded = EXCLUDED[""] | EXCLUDED_BY_KIND.get(kind, set())
    hashed: dict[str, Any] = {key: value for key, value in config.items() if key not in excluded}
    for group in EXCLUDED.keys() & hashed.keys():
        hashed[group] = {key: value for key, value in hashed[group].items() if key not in EXCLUDED[group]}
    changed = _changed(hashed, defaults_of(SCHEMAS["train" if kind == "cnn" else kind]))
    data = hashed.get("data", {})
    name = data.get("name")
    if name in source:
        data = _changed(data, defaults_of(source[name].Config))
    changed["data"] = {**data, "name": name}
    if "model" in hashed:
        name, args = hashed["model"]["name"], hashed["model"]["args"]
        changed["model"] = {"name": name, "args": _changed(args, conf_file("model", name).get("args", {}))}
    if "augment" in hashed:
        defaults = conf_file("augment", "paper")
        # A list, since the order of augmentations matters.
        changed["augment"] = [
            [name, _changed(strengths, defaults.get(name, {}))]
            for name, strengths in hashed["augment"].items()
            if strengths is not None
        ]
    return _canonical(changed)  # type: ignore[no-any-return]  # a dict gives a dict


def _changed(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the defaults, group by group."""
    changed: dict[str, Any] = {}
    for key, value in tree.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if inner := _changed(value, default):
                changed[key] = inner
        elif key not in defaults or value != default:
            changed[key] = value
    return changed


def _canonical(value: Any) -> Any:
    """The same values in one notation: 10 and 10.0 are one number."""
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def defaults_of(schema: type[Any]) -> dict[str, Any]:
    """The values of the fields that have a default, as nested dicts."""
    defaults: dict[str, Any] = {}
    for entry in fields(schema):
        if entry.default_factory is not MISSING:
            value = entry.default_factory()
            defaults[entry.name] = asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
        elif entry.default is not MISSING:
            defaults[entry.name] = entry.default
    return defaults


@functools.cache
def conf_file(group: str, name: str) -> dict[str, Any]:
    """A file of ``conf/``, which has the defaults of a mapping without a schema; empty if there is no such file."""
    from omegaconf import OmegaConf

    file = conf_dir() / group / f"{name}.yaml"
    if not file.is_file():
        return {}
    values: Any = OmegaConf.to_container(OmegaConf.load(file))
    return dict(values)


def result_key(kind: str, config: Mapping[str, Any], fingerprint: str, version: int, **digests: str) -> str:
    """Digest of what a result depends on, hardware and software excluded: 64 hex digits.

    Args:
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``.
        config: A configuration as nested dicts.
        fingerprint: Of the data.
        version: ``RESULT_VERSION`` of the code that made the result.
        digests: Of files that the result depends on: ``checkpoint``, ``init``, ``fuse``.
    """
    parts = {"kind": kind, "config": hashed_config(kind, config), "data": fingerprint, "version": version, **digests}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _with_hardware(
    kind: str, result: str, device: str, precision: str, threads: int | None, processes: int, torch_version: str
) -> str:
    """Add hardware and software to a result key; ``threads`` is None on a GPU, where they change nothing."""
    if kind == "knn":  # exact on any hardware
        return result
    parts = [result, device, precision, threads, processes, torch_version.split("+")[0].split(".")[:2]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def run_key(kind: str, config: Any, fingerprint: str, hardware: Hardware, **digests: str) -> str:
    """The run key on this machine: 64 hex digits; arguments as for :func:`result_key`, ``config`` is a dataclass."""
    import torch

    cuda = hardware.device == "cuda"
    return _with_hardware(
        kind,
        result_key(kind, asdict(config), fingerprint, RESULT_VERSION, **digests),
        hardware.name if cuda else hardware.device,
        hardware.precision,
        None if cuda else hardware.threads,
        hardware.processes,
        torch.__version__,
    )


def run_key_of(record: Record) -> str:
    """The run key of a record: its identity, or for records of schema 1 the key computed from their fields."""
    if record.schema > 1:
        return record.identity
    return _with_hardware(
        record.kind,
        result_key(record.kind, record.config, record.data["fingerprint"], record.result_version, **record.digests),
        "cpu",
        record.precision,
        record.threads,
        record.processes,
        record.versions.get("torch", ""),
    )
