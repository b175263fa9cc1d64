from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfake_cls.figures import confusion_figure
from deepfake_cls.records import Record
from deepfake_cls.stats.metrics import score
from deepfake_cls.summary import importance_text, number_text, print_run


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


def test_small_and_negative_numbers_have_the_right_sign() -> None:
    values = [(-0.0001, 3), (-0.0, 3), (-0.0006, 3), (1.25, 3), (-2.04, 1)]
    assert [number_text(*value) for value in values] == ["0.000", "0.000", "−0.001", "1.250", "−2.0"]


def test_the_importance_says_the_accuracy_of_all_groups_and_has_minus_signs() -> None:
    everything = {"group": "all", "acc": 0.906, "pairs": [[0, 1, 0.9], [0, 2, 0.8]]}
    group = {"group": "spectrum", "acc": 0.5, "drop": -0.012, "pairs": []}
    assert importance_text(everything, ["a", "b", "c"]) == "together 90.6 %, hardest pair a / c 80.0 %"
    assert importance_text(group, ["a", "b", "c"]) == "alone 50.0 %, drop −1.2 points"


@pytest.mark.parametrize(("split", "name"), [("validation", "val_acc_fused"), ("test", "test_acc_fused")])
def test_the_accuracy_of_a_fusion_is_printed_with_its_interval(
    split: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = Record(
        "evaluate", "ok", "x", {"split": split}, confusion=[[40, 10], [20, 30]], recall=[0.8, 0.6],
        data={"classes": ["a", "b"]}, metrics={name: 0.81, "val_nll": -1e-9},
    )  # fmt: skip
    print_run(record, Path("runs"), {})
    output = capsys.readouterr().out
    assert re.search(rf"{split} accuracy, 95 % interval +70.0 % \(60.4 to 78.1; 70 of 100\)", output)
    # the interval of scipy.stats.binomtest(81, 100)
    assert re.search(r"accuracy fused, 95 % interval +81.0 % \(72.2 to 87.5; 81 of 100\)", output)
    assert re.search("val_nll +0.000", output)
    assert name not in output
