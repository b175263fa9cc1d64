"""All records under a folder with all metrics, the newest of each kind over one data set, and a CSV of them."""

from __future__ import annotations

import csv
import io
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_predictions, read_record, write_atomically
from deepfake_cls.stats.metrics import compute, metric, record_name

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A record and where it was found.

    Attributes:
        path: The run's folder.
        record: What it holds.
        time: Modification time of ``result.json`` in seconds.
    """

    path: Path
    record: Record
    time: float


def collect(runs: Path) -> list[Finished]:
    """Read every ``result.json`` under a folder; a torn or foreign one is named and passed over.

    A registered metric that a record lacks, since it is older than the metric, is computed from the run's predictions.

    Raises:
        InputError: If there is none that can be read.
    """
    found = []
    for file in sorted(runs.rglob("result.json")):
        try:
            record = read_record(file.parent)
            found.append(Finished(file.parent, _with_all_metrics(record, file.parent), file.stat().st_mtime))
        except InputError as error:
            _log.warning("passed over: %s", error)
    if not found:
        raise InputError(f"runs={runs}: no finished run there. Start with: python -m deepfake_cls.knn")
    # Of one time, by what they are: a copy elsewhere gives the same tables.
    return sorted(found, key=lambda entry: (entry.time, entry.record.identity))


def _with_all_metrics(record: Record, folder: Path) -> Record:
    """The record with every registered metric that its predictions give; ``result.json`` stays as it is."""
    split = record.config.get("split", "validation")  # only evaluate has a choice
    missing = {name: key for name in metric if (key := record_name(name, split)) not in record.metrics}
    if record.status != "ok" or not missing:
        return record
    try:
        _, labels, probs = read_predictions(folder / "predictions.npz")
    except (InputError, zlib.error):
        return record
    found = {key: compute(name, labels, probs) for name, key in missing.items()}
    return replace(record, metrics=record.metrics | {key: value for key, value in found.items() if value is not None})


def newest(records: list[Finished]) -> dict[str, Finished]:
    """The newest successful run of each kind, on the data of the newest of all.

    Raises:
        InputError: If every run failed.
    """
    good = [entry for entry in records if entry.record.status == "ok"]
    if not good:
        raise InputError(f"All {len(records)} runs failed; their errors are in result.json.")
    training = [entry for entry in good if entry.record.kind in ("cnn", "knn")] or good
    fingerprint = training[-1].record.data["fingerprint"]
    return {entry.record.kind: entry for entry in good if entry.record.data["fingerprint"] == fingerprint}


def write_csv(path: Path, records: list[Finished]) -> None:
    """One row for each run: identity, data, settings, metrics, times."""
    rows = []
    for entry in records:
        record = entry.record
        row: dict[str, object] = {
            "id": record.identity[:12],
            "kind": record.kind,
            "status": record.status,
            "seed": record.seed,
            "data": record.data.get("name"),
            "data_fingerprint": str(record.data.get("fingerprint", ""))[:12],
            "classes": len(record.data.get("classes", [])),
        }
        settings = ("channels", "width", "epochs", "lr", "dropout", "batch_size", "features", "shift", "tta", "split")
        row |= {key: record.config[key] for key in settings if key in record.config}
        for group in ("model", "augment", "recipe"):
            row |= _flat(record.config.get(group, {}), f"{group}.")
        data = record.config.get("data", {})
        row |= {f"data.{key}": data[key] for key in ("alpha", "strength", "image_size", "fold") if key in data}
        row |= record.metrics
        row |= {f"k{k}_{name}": value for k, metrics in record.by_k.items() for name, value in metrics.items()}
        row |= {f"seconds_{name}": round(value, 2) for name, value in record.seconds.items()}
        row |= {
            "device": record.device,
            "precision": record.precision,
            "threads": record.threads,
            "torch": record.versions.get("torch"),
            "git": record.git.get("sha"),
            "error": record.error,
        }
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
