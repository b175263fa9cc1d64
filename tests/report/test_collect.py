from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfake_cls.records import write_predictions
from deepfake_cls.report.collect import collect, run_rows
from deepfake_cls.report.evidence import over_seeds
from deepfake_cls.stats import metric
from tests.report.fake_runs import TINY, random_correct, study_of, write


def remove_metrics(folder: Path, *names: str) -> bytes:
    """Make a run older than some metrics; returns the bytes of its ``result.json``."""
    content = json.loads((folder / "result.json").read_bytes())
    for name in names:
        del content["metrics"][name]
    (folder / "result.json").write_text(json.dumps(content))
    return (folder / "result.json").read_bytes()


@pytest.mark.usefixtures("registries")
def test_a_new_metric_of_an_old_run_is_computed_from_its_predictions(tmp_path: Path) -> None:
    shares = (0.5, 0.7)
    folders = [write(tmp_path, TINY, seed, random_correct(share, seed)) for seed, share in enumerate(shares)]
    before = [(folder / "result.json").read_bytes() for folder in folders]

    @metric("errors")
    def errors(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
        return float((probs.argmax(axis=1) != labels).sum())

    expected = [float((~random_correct(share, seed)).sum()) for seed, share in enumerate(shares)]
    assert sorted(row["val_errors"] for row in run_rows(collect(tmp_path))) == sorted(expected)
    summary = over_seeds(study_of(tmp_path).main, "val_errors")
    assert summary is not None
    assert (summary.seeds, summary.mean) == (2, float(np.mean(expected)))
    assert [(folder / "result.json").read_bytes() for folder in folders] == before


def test_recorded_metrics_are_not_recomputed(tmp_path: Path) -> None:
    folder = write(tmp_path, TINY)
    (complete,) = collect(tmp_path)
    content = json.loads(remove_metrics(folder, "val_brier", "val_auroc"))
    content["metrics"]["val_ece"] = 0.125
    (folder / "result.json").write_text(json.dumps(content))
    (run,) = collect(tmp_path)
    assert run.record.metrics == complete.record.metrics | {"val_ece": 0.125}


def test_metrics_have_the_name_of_their_split(tmp_path: Path) -> None:
    folder = write(tmp_path, TINY, changed={"split": "test"})
    remove_metrics(folder, "val_brier")
    (run,) = collect(tmp_path)
    assert "val_brier" not in run.record.metrics
    assert 0 < run.record.metrics["test_brier"] < 2


def remove(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def corrupt(file: Path) -> None:
    """Corrupt the compressed stream of the probabilities."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("probs.npy")
    content = bytearray(file.read_bytes())
    name, extra = (
        int.from_bytes(content[info.header_offset + at : info.header_offset + at + 2], "little") for at in (26, 28)
    )
    content[info.header_offset + 30 + name + extra] = 0xFF  # an invalid block type
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [remove, truncate, corrupt])
def test_without_predictions_a_metric_is_absent(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    for seed in (0, 1):
        remove_metrics(write(tmp_path, TINY, seed, time=seed, folder=str(seed)), "val_brier")
    damage(tmp_path / "0" / "predictions.npz")
    rows = {row["seed"]: row for row in run_rows(collect(tmp_path))}
    assert "val_brier" not in rows[0]
    assert rows[1]["val_brier"] > 0


def test_an_undefined_metric_is_absent(tmp_path: Path) -> None:
    folder = write(tmp_path, TINY)
    remove_metrics(folder, "val_nll", "val_brier")
    probs = np.array([[1, 0, 0, 0, 0]] * 2, dtype=np.float32)
    write_predictions(folder / "predictions.npz", ("a", "b"), np.array([0, 1]), probs)
    (run,) = collect(tmp_path)
    assert run.record.metrics["val_brier"] == 1
    assert "val_nll" not in run.record.metrics
