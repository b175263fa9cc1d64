"""All records under a folder, and the newest of each kind over one data set."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import dataclass
from pathlib import Path

from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_record, write_atomically

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

    Raises:
        InputError: If there is none that can be read.
    """
    found = []
    for file in sorted(runs.rglob("result.json")):
        try:
            found.append(Finished(file.parent, read_record(file.parent), file.stat().st_mtime))
        except InputError as error:
            _log.warning("passed over: %s", error)
    if not found:
        raise InputError(f"runs={runs}: no finished run there. Start with: python -m deepfake_cls.knn")
    # Of one time, by what they are: a copy elsewhere gives the same tables.
    return sorted(found, key=lambda entry: (entry.time, entry.record.identity))


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
        row |= {f"recipe.{key}": value for key, value in record.config.get("recipe", {}).items()}
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
