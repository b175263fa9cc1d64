from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from deepfake_cls.config import FolderConfig, SyntheticConfig
from deepfake_cls.figures import confusion_figure
from deepfake_cls.records import Record
from deepfake_cls.stats.metrics import score
from deepfake_cls.summary import argument, data_arguments, print_run


@pytest.mark.parametrize(
    "path",
    ["runs/cnn/ab12", "/a/fotos é", "/a/日本", "/a/x (1)", "it's", "[x]", "a,b", "~/x", "epoch=1/x.ckpt", 'q"q', "x#1"],
)
def test_a_printed_command_comes_back_as_the_path_it_names(path: str) -> None:
    (word,) = shlex.split(argument("checkpoint", path))
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override()
    value = override.value()
    assert str(getattr(value, "text", value)) == path


def test_a_printed_command_chooses_the_same_data_again() -> None:
    assert data_arguments(SyntheticConfig(cache="x", workers=3)) == "data=synthetic"
    assert data_arguments(SyntheticConfig(strength=0.5)) == "data=synthetic data.strength=0.5"
    config = replace(FolderConfig(root="my data"), resize=True, val_fraction=0.3, val_seed=1)
    overrides = ['data.root="my data"', "data.resize=true", "data.val_fraction=0.3", "data.val_seed=1"]
    assert shlex.split(data_arguments(config)) == ["data=folder", *overrides]


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record(
        "knn", "ok", "x", {}, confusion=[[1, 0], [0, 1]], recall=[1.0, 1.0], data={"classes": ["SD [v1]", "[/x]"]}
    )
    print_run(record, Path("runs/[a]"), "next")
    output = capsys.readouterr().out
    assert all(text in output for text in ("SD [v1]", "[/x]", "runs/[a]", "next: next"))


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
    print_run(record, Path("runs"), "next")
    rows = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip())
    expected = {"val_ece": f"{metrics['val_ece']:.3f}", "val_macro_f1": "0.667", "val_nll": f"{metrics['val_nll']:.3f}"}
    expected |= {"train_acc": "75.0 %", "val_acc_best": "50.0 %"}
    assert {name: rows[name].strip() for name in rows if name.startswith(("val_", "train_"))} == expected
