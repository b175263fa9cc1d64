from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls.errors import InputError
from deepfake_cls.records import (
    Record,
    read_predictions,
    read_record,
    write_atomically,
    write_predictions,
    write_record,
)
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.stats.metrics import score


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = Record("cnn", "ok", "ab" * 32, {"lr": 0.1}, metrics={"val_acc": 0.5}, confusion=[[1, 0], [1, 0]])
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}', "null", "\x00\x01"])
def test_a_torn_or_foreign_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=r"result\.json"):
        read_record(tmp_path)


def test_no_record_holds_what_json_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, Record("cnn", "ok", "x", {}, metrics={"val_nll": float("inf")}))
    assert list(tmp_path.iterdir()) == []


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_predictions_hold_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_predictions(path, ("a", "bé"), np.array([0, -1]), np.array([[0.5, 0.5], [1, 0]], dtype=np.float32))
    ids, labels, probs = read_predictions(path)
    assert ids.tolist() == ["a", "bé"]
    assert ids.dtype.kind == "U"
    assert labels.dtype == np.int64
    assert probs.dtype == np.float32


def test_scores_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels, probs = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200).astype(np.float32)
    found = score(labels, probs)
    chosen = probs.argmax(axis=1)
    assert found.confusion == metrics.confusion_matrix(labels, chosen).tolist()
    assert found.recall == pytest.approx(metrics.recall_score(labels, chosen, average=None))
    assert found.metrics["acc"] == pytest.approx(metrics.accuracy_score(labels, chosen))
    assert found.metrics["macro_f1"] == pytest.approx(metrics.f1_score(labels, chosen, average="macro"), abs=1e-6)
    assert found.metrics["nll"] == pytest.approx(metrics.log_loss(labels, probs), abs=1e-5)
    edges = np.minimum((probs.max(axis=1) * 15).astype(int), 14)
    ece = sum(abs((chosen == labels)[edges == b].sum() - probs.max(axis=1)[edges == b].sum()) for b in range(15)) / len(
        labels
    )
    assert found.metrics["ece"] == pytest.approx(ece, abs=1e-5)


def test_scores_of_votes_and_missing_classes() -> None:
    found = score(np.array([0, 0, 1]), np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]], dtype=np.float32))
    assert "nll" not in found.metrics  # a true class with probability 0: infinite
    assert found.recall == [0.5, 0.0, None]  # ties go to the smaller label
    assert found.prefixed("validation")["val_acc"] == found.prefixed("test")["test_acc"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (1, 3), (1179, 1250), (365, 1250)])
def test_wilson_is_scipys(correct: int, count: int) -> None:
    from scipy.stats import binomtest

    for confidence in (0.9, 0.95, 0.99):
        theirs = binomtest(correct, count).proportion_ci(confidence, method="wilson")
        assert wilson(correct, count, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_result_json_has_the_contracts_fields(tmp_path: Path) -> None:
    write_record(tmp_path, Record("knn", "ok", "x", {}))
    fields = json.loads((tmp_path / "result.json").read_text())
    promised = "schema status kind identity config seed data metrics recall confusion seconds device precision threads"
    assert {*promised.split(), "versions", "git"} <= set(fields)
    assert fields["versions"]["torch"]


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"through")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"through"
    write_atomically(Path(os.devnull), b"gone")
    assert not Path(os.devnull).is_file()
