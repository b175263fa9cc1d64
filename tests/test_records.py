from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls.errors import InputError, OutputError
from deepfake_cls.files import write_atomically
from deepfake_cls.records import (
    Record,
    read_predictions,
    read_record,
    write_predictions,
    write_record,
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record("cnn", "ok", "ab" * 32, {"lr": 0.1}, metrics={"val_acc": 0.5}, confusion=[[1, 0], [1, 0]])
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


def test_a_run_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, Record("robustness", "ok", "ab" * 32, {}))
    with pytest.raises(
        InputError, match="result.json: kind 'robustness' is unknown here; a later version may read it."
    ):
        read_record(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}', "null", "\x00\x01"])
def test_a_damaged_or_foreign_record_is_refused_with_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=r"result\.json"):
        read_record(tmp_path)


def test_values_that_json_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_record(tmp_path, Record("cnn", "ok", "x", {}, metrics={"val_nll": float("inf")}))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(OutputError, match=f"^{path} cannot be written: disk full; free some space, or choose another"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_predictions_are_read_without_pickles(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    write_predictions(path, ("a", "bé"), np.array([0, -1]), np.array([[0.5, 0.5], [1, 0]], dtype=np.float32))
    ids, labels, probs = read_predictions(path)
    assert ids.tolist() == ["a", "bé"]
    assert ids.dtype.kind == "U"
    assert labels.dtype == np.int64
    assert probs.dtype == np.float32


def test_result_json_has_the_promised_fields(tmp_path: Path) -> None:
    write_record(tmp_path, Record("knn", "ok", "x", {}))
    fields = json.loads((tmp_path / "result.json").read_text())
    promised = "schema status kind identity config seed data metrics recall confusion seconds device precision threads"
    assert {*promised.split(), "versions", "git"} <= set(fields)
    assert fields["versions"]["torch"]


def test_a_link_is_kept_and_a_device_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"through")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"through"
    write_atomically(Path(os.devnull), b"gone")
    assert not Path(os.devnull).is_file()
