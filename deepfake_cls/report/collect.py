"""Read the runs under a folder, with all metrics, and list them as rows of a CSV."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from deepfake_cls.commands import command
from deepfake_cls.errors import InputError
from deepfake_cls.escaping import printable
from deepfake_cls.records import Record, read_predictions, read_record
from deepfake_cls.run_key import hashed_config
from deepfake_cls.stats.metrics import compute, metric, record_name

_log = logging.getLogger(__name__)

SETTINGS = (
    "channels",
    "width",
    "epochs",
    "lr",
    "dropout",
    "batch_size",
    "features",
    "classifier",
    "shift",
    "tta",
    "split",
)


@dataclass(frozen=True)
class Finished:
    """A run with its record; it may have failed.

    Attributes:
        path: The run's folder.
        record: The content of ``result.json``.
        time: Modification time of ``result.json`` in seconds.
    """

    path: Path
    record: Record
    time: float

    @cached_property
    def hashed(self) -> dict[str, Any]:
        """The part of the configuration that can change the result, see :func:`deepfake_cls.run_key.hashed_config`."""
        return hashed_config(self.record.kind, self.record.config)

    @property
    def root(self) -> Path | None:
        """The folder of the data, absolute; None for data that is not in files, and if the configuration is missing."""
        return data_root(self.record.config.get("data", {}))


def data_root(data: Mapping[str, Any]) -> Path | None:
    """The absolute path of ``data.root``, without ``..``; None if the layout has no such key."""
    root = data.get("root")
    return Path(os.path.abspath(Path(root).expanduser())) if root else None  # noqa: PTH100  # resolve() follows links


def collect(folder: Path) -> list[Finished]:
    """Read all runs under a folder, oldest first; skip unreadable records with a warning.

    A registered metric that a record lacks, since it is older than the metric, is computed from the run's predictions.

    Raises:
        InputError: If no record can be read.
    """
    runs = []
    for file in sorted(folder.rglob("result.json")):
        try:
            record = _printable(read_record(file.parent))
            runs.append(Finished(file.parent, _with_all_metrics(record, file.parent), file.stat().st_mtime))
        except InputError as error:
            _log.warning("skipped: %s", error)
    if not runs:
        raise InputError(f"runs={folder}: no finished run there. Start with: {command('knn')}")
    # Runs with equal times are ordered by their run key, so that a copy of the folder gives the same tables.
    return sorted(runs, key=lambda run: (run.time, run.record.identity))


def folder_above(name: str) -> Path:
    """The parent of the current folder if only the parent contains ``name``, else the current folder."""
    here = Path.cwd()
    return here.parent if (here.parent / name).exists() and not (here / name).exists() else here


def _printable(record: Record) -> Record:
    """Escape the names of classes, which are names of folders, and the error: fonts and UTF-8 lack some characters."""
    data, error = record.data, record.error
    if "classes" in data:
        data = data | {"classes": [printable(name) for name in data["classes"]]}
    return replace(record, data=data, error=error and printable(error, keep="\n"))


def _with_all_metrics(record: Record, folder: Path) -> Record:
    """Add registered metrics from the run's predictions; ``result.json`` does not change."""
    split = record.config.get("split", "validation")  # only evaluate has this key
    missing = {name: key for name in metric if (key := record_name(name, split)) not in record.metrics}
    if record.status != "ok" or not missing:
        return record
    try:
        _, labels, probs = read_predictions(folder / "predictions.npz")
    except (InputError, zlib.error):
        return record
    values = {key: compute(name, labels, probs) for name, key in missing.items()}
    return replace(record, metrics=record.metrics | {key: value for key, value in values.items() if value is not None})


def run_rows(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """One row of ``runs.csv`` for each run: run key, data, settings, metrics, times, hardware."""
    return [_row(run) for run in runs]


def _row(run: Finished) -> dict[str, Any]:
    record = run.record
    row: dict[str, Any] = {
        "id": record.identity[:12],
        "kind": record.kind,
        "status": record.status,
        "seed": record.seed,
        "data": record.data.get("name"),
        "root": None if run.root is None else run.root.name,
        "data_fingerprint": str(record.data.get("fingerprint", ""))[:12],
        "classes": len(record.data.get("classes", [])),
    }
    settings = {key: record.config[key] for key in SETTINGS if key in record.config}
    row |= {key: "+".join(value) if isinstance(value, list) else value for key, value in settings.items()}
    for group in ("model", "augment", "recipe"):
        row |= _flatten(record.config.get(group, {}), f"{group}.")
    data = record.config.get("data", {})
    row |= {f"data.{key}": data[key] for key in ("alpha", "strength", "image_size", "fold") if key in data}
    row |= record.metrics
    row |= {f"k{k}_{name}": value for k, metrics in record.by_k.items() for name, value in metrics.items()}
    row |= {f"seconds_{name}": round(value, 2) for name, value in record.seconds.items()}
    return row | {
        "device": record.device,
        "precision": record.precision,
        "threads": record.threads,
        "torch": record.versions.get("torch"),
        "git": record.git.get("sha"),
        "error": record.error,
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
