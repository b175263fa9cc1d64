from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfake_cls.figures import confusion_figure
from deepfake_cls.records import Record
from deepfake_cls.stats.metrics import score
from deepfake_cls.summary import print_run


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(
        "knn", "ok", "x", {}, confusion=[[1, 0], [0, 1]], recall=[1.0, 1.0], data={"classes": ["SD [v1]", "[/x]"]}
    )
    print_run(record, Path("runs/[a]"), {"next": "knn", "label images": "predict"})
    output = capsys.readouterr().out
    assert all(text in output for text in ("SD [v1]", "[/x]", "runs/[a]", "next: knn\nlabel images: predict\n"))


def test_accuracy_is_named_after_its_split(capsys: pytest.CaptureFixture[str]) -> None:
    both: dict[str, Any] = {"confusion": [[1, 0], [0, 1]], "recall": [1.0, 1.0], "data": {"classes": ["a", "b"]}}
    print_run(Record("cnn", "ok", "x", {}, metrics={"val_acc_flip": 0.5}, **both), Path("runs"), {})
    output = capsys.readouterr().out
    assert re.search("validation accuracy, 95 % interval +100.0 %", output)
    assert re.search("accuracy with flip TTA +50.0 %", output)
    print_run(Record("evaluate", "ok", "x", {"split": "test"}, **both), Path("runs"), {})
    output = capsys.readouterr().out
    assert "test accuracy, 95 % interval" in output
    assert "TTA" not in output


def test_figures_take_any_name_and_number_of_classes() -> None:
    figure = confusion_figure(np.eye(2), ["a$b_$", r"v$\x$"])
    figure.canvas.draw()
    large = confusion_figure(np.eye(200), [f"class {i}" for i in range(200)])
    assert max(large.get_size_inches()) <= 13
    large.canvas.draw()


def test_the_table_of_a_run_stays_short(capsys: pytest.CaptureFixture[str]) -> None:
    scores = score(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], dtype=np.float32))
    metrics = scores.prefixed("validation") | {"train_acc": 0.75, "val_acc_best": 0.5}
    record = Record(
        "cnn", "ok", "x", {}, metrics=metrics, confusion=scores.confusion, recall=scores.recall,
        data={"classes": ["a", "b"]},
    )  # fmt: skip
    print_run(record, Path("runs"), {})
    rows = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip())
    expected = {"val_ece": f"{metrics['val_ece']:.3f}", "val_macro_f1": "0.667", "val_nll": f"{metrics['val_nll']:.3f}"}
    expected |= {"train_acc": "75.0 %", "val_acc_best": "50.0 %"}
    assert {name: rows[name].strip() for name in rows if name.startswith(("val_", "train_"))} == expected
