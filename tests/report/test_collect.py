from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfake_cls.records import write_predictions
from deepfake_cls.report.collect import collect, write_csv
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.stats import metric
from tests.report.lab import TINY, some_right, study_of, write


def cells(root: Path, column: str) -> list[str]:
    """A column of ``runs.csv``, oldest run first."""
    write_csv(root / "runs.csv", collect(root))
    with (root / "runs.csv").open(newline="") as file:
        return [row[column] for row in csv.DictReader(file)]


def forget(folder: Path, *names: str) -> bytes:
    """Make a run older than some metrics; the bytes of its ``result.json``."""
    content = json.loads((folder / "result.json").read_bytes())
    for name in names:
        del content["metrics"][name]
    (folder / "result.json").write_text(json.dumps(content))
    return (folder / "result.json").read_bytes()


@pytest.mark.usefixtures("registries")
def test_an_older_run_gets_a_metric_from_its_predictions(tmp_path: Path) -> None:
    shares = (0.5, 0.7)
    folders = [write(tmp_path, TINY, seed, some_right(share, seed)) for seed, share in enumerate(shares)]
    before = [(folder / "result.json").read_bytes() for folder in folders]

    @metric("errors")
    def errors(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
        return float((probs.argmax(axis=1) != labels).sum())

    expected = [float((~some_right(share, seed)).sum()) for seed, share in enumerate(shares)]
    assert sorted(cells(tmp_path, "val_errors")) == sorted(map(str, expected))
    found = over_seeds(study_of(tmp_path).central, "val_errors")
    assert found is not None
    assert (found.seeds, found.mean) == (2, float(np.mean(expected)))
    assert [(folder / "result.json").read_bytes() for folder in folders] == before


def test_what_a_record_says_is_kept(tmp_path: Path) -> None:
    folder = write(tmp_path, TINY)
    (complete,) = collect(tmp_path)
    content = json.loads(forget(folder, "val_brier", "val_auroc"))
    content["metrics"]["val_ece"] = 0.125
    (folder / "result.json").write_text(json.dumps(content))
    (entry,) = collect(tmp_path)
    assert entry.record.metrics == complete.record.metrics | {"val_ece": 0.125}


def test_metrics_of_another_split_have_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path, TINY, changed={"split": "test"})
    forget(folder, "val_brier")
    (entry,) = collect(tmp_path)
    assert "val_brier" not in entry.record.metrics
    assert 0 < entry.record.metrics["test_brier"] < 2


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def damage(file: Path) -> None:
    """Spoil the compressed stream of the probabilities."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("probs.npy")
    content = bytearray(file.read_bytes())
    name, extra = (
        int.from_bytes(content[info.header_offset + at : info.header_offset + at + 2], "little") for at in (26, 28)
    )
    content[info.header_offset + 30 + name + extra] = 0xFF  # no type of block
    file.write_bytes(content)


@pytest.mark.parametrize("spoil", [remove, cut, damage])
def test_without_predictions_a_metric_is_absent(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    for seed in (0, 1):
        forget(write(tmp_path, TINY, seed, time=seed, folder=str(seed)), "val_brier")
    spoil(tmp_path / "0" / "predictions.npz")
    brier = {entry.record.seed: entry.record.metrics.get("val_brier") for entry in collect(tmp_path)}
    assert brier[0] is None
    assert brier[1] is not None
    assert cells(tmp_path, "val_brier").count("") == 1


def test_a_metric_that_is_not_defined_stays_absent(tmp_path: Path) -> None:
    folder = write(tmp_path, TINY)
    forget(folder, "val_nll", "val_brier")
    votes = np.array([[1, 0, 0, 0, 0]] * 2, dtype=np.float32)
    write_predictions(folder / "predictions.npz", ("a", "b"), np.array([0, 1]), votes)
    (entry,) = collect(tmp_path)
    assert entry.record.metrics["val_brier"] == 1
    assert "val_nll" not in entry.record.metrics
