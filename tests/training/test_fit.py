"""Initial weights from a checkpoint, flip TTA that is added to a finished run, loggers."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from deepfake_cls import train
from deepfake_cls.checkpoints import read_checkpoint, weights
from deepfake_cls.config import TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.models import build
from deepfake_cls.records import Record, read_record
from deepfake_cls.training import fit as fit_module
from tests.conftest import SMALL_DATA, SMALL_NET, call, configure, stopped_after
from tests.test_train import assert_equal, outcome

SMALL_IMAGES = [*SMALL_DATA, *SMALL_NET, "data.image_size=16", "epochs=1"]


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *SMALL_IMAGES, *overrides), False)


def result(folder: str) -> Record:
    return read_record(Path(folder))


def saved(folder: str) -> dict[str, Tensor]:
    return weights(read_checkpoint(f"{folder}/checkpoints/last.ckpt"))


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that others start from, without flip TTA; do not change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        fit(f"run_dir={folder}", "lr=0.1", "tta=none")
    return folder


@pytest.fixture
def first(trained_once: Path, tmp_path: Path) -> str:
    """A copy of that run: the folder ``first`` of the test."""
    shutil.copytree(trained_once, tmp_path / "first")
    return "first"


# Initial weights


def write_classes(root: Path, *names: str) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("validation", 2)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / split / name / f"{index}.png")


def fit_classes(root: str, *overrides: str) -> None:
    folder = [*SMALL_NET, "epochs=1", "data=folder", f"data.root={root}"]
    train.run(configure("train", TrainConfig, *folder, *overrides), False)


UNCHANGED = "lr=1e-12"  # training does not change the weights


def test_init_loads_all_weights_if_the_classes_agree(first: str, capsys: pytest.CaptureFixture[str]) -> None:
    fit("run_dir=second", "init=first/checkpoints/last.ckpt", UNCHANGED, "seed=5")
    before, after = saved(first), saved("second")
    trained = [name for name in before if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in trained:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    output = capsys.readouterr().out
    assert f"init=first/checkpoints/last.ckpt: loaded {len(before)} of {len(before)} tensors.\n" in output
    assert "not loaded" not in output


@pytest.mark.parametrize("names", [("a", "b", "d"), ("a", "b", "c", "d"), ("c", "b", "a")])
def test_init_does_not_load_the_last_layer_if_the_classes_differ(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(Path("old"), "a", "b", "c")
    fit_classes("old", "run_dir=first", "lr=0.1")
    write_classes(Path("new"), *(f"{index}{name}" for index, name in enumerate(names)))
    fit_classes("new", "run_dir=second", "init=first/checkpoints/last.ckpt", UNCHANGED, "seed=5")
    before, after = saved("first"), saved("second")
    fresh = build("resnet", {}, in_channels=4, num_classes=len(names), width=8, dropout=0.3, seed=5).state_dict()
    for name in ("conv.weight", "stages.1.0.conv1.weight", "fc1.weight", "fc1.bias"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    for name in ("fc2.weight", "fc2.bias"):
        torch.testing.assert_close(after[name], fresh[name], rtol=0, atol=1e-6)
    output = capsys.readouterr().out
    assert f"loaded {len(before) - 2} of {len(before)} tensors.\n  not loaded: fc2.weight, fc2.bias\n" in output


@pytest.mark.usefixtures("first")
def test_init_refuses_a_checkpoint_that_does_not_fit() -> None:
    with pytest.raises(InputError) as caught:  # with another width, the last layer's bias and counters still fit
        fit("init=first/checkpoints/last.ckpt", "width=4")
    assert str(caught.value) == (
        "init=first/checkpoints/last.ckpt: none of its weights fits this network; use the model that it was trained as."
    )
    with pytest.raises(InputError, match="init=nowhere.ckpt: cannot be read .*; give a checkpoint"):
        fit("init=nowhere.ckpt")
    Path("bad.ckpt").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"init=bad.ckpt: is not a checkpoint of this project"):
        fit("init=bad.ckpt")


@pytest.mark.usefixtures("first")
def test_initial_weights_change_the_run_key(capsys: pytest.CaptureFixture[str]) -> None:
    fit("run_dir=plain", "seed=5")
    fit("run_dir=second", "seed=5", "init=first/checkpoints/last.ckpt")
    digest = hashlib.sha256(Path("first/checkpoints/last.ckpt").read_bytes()).hexdigest()
    assert (result("plain").digests, result("second").digests) == ({}, {"init": digest})
    assert result("plain").identity != result("second").identity
    with pytest.raises(InputError, match="run_dir=second: contains another run"):
        fit("run_dir=second", "seed=5")
    # The key depends on the content of the file, and not on its path.
    shutil.copy("first/checkpoints/last.ckpt", "copy.ckpt")
    fit("run_dir=second", "seed=5", "init=copy.ckpt")
    assert "second: already done" in capsys.readouterr().out
    with pytest.raises(InputError, match="run_dir=second: contains another run"):
        fit("run_dir=second", "seed=5", "init=plain/checkpoints/last.ckpt")


@pytest.mark.usefixtures("first")
def test_a_resumed_run_does_not_load_its_initial_weights_again(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["seed=5", "epochs=2", "init=first/checkpoints/last.ckpt"]
    fit("run_dir=whole", *overrides)
    with stopped_after(4):
        fit("run_dir=parts", *overrides)
    monkeypatch.setattr(fit_module, "start_from", lambda *_: pytest.fail("the weights come from the run's checkpoint"))
    fit("run_dir=parts", *overrides)
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


# Flip TTA


def test_flip_tta_is_added_to_a_finished_run_without_training(
    first: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("run_dir=both", "lr=0.1", "tta=flip")
    before = result(first)
    assert "val_acc_flip" not in before.metrics
    monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: pytest.fail("it trains"))
    fit("run_dir=first", "lr=0.1", "tta=flip")
    assert "first: already done; adding tta=flip from its checkpoint." in capsys.readouterr().out
    both, after = result("both"), result(first)
    assert after.metrics == both.metrics
    assert {**after.metrics, "val_acc_flip": None} == {**before.metrics, "val_acc_flip": None}
    assert (after.history, after.seconds, after.versions) == (before.history, before.seconds, before.versions)
    with np.load("both/predictions.npz") as expected, np.load("first/predictions.npz") as actual:
        assert actual.files == expected.files
        assert "probs_flip" in actual.files
        assert_equal({name: actual[name] for name in actual.files}, {name: expected[name] for name in expected.files})
    fit("run_dir=first", "lr=0.1", "tta=none")  # removes nothing
    fit("run_dir=first", "lr=0.1", "tta=flip")
    assert capsys.readouterr().out.count("first: already done; force=true repeats it.") == 2
    assert result(first) == after


def test_flip_tta_without_a_checkpoint_is_refused(first: str) -> None:
    before = result(first)
    shutil.rmtree("first/checkpoints")
    with pytest.raises(InputError) as caught:
        fit("run_dir=first", "lr=0.1", "tta=flip")
    assert str(caught.value) == (
        "first: has no scores for tta=flip, and its checkpoint first/checkpoints/last.ckpt is missing; repeat the run"
        " with force=true."
    )
    assert result(first) == before
    fit("run_dir=first", "lr=0.1", "tta=none")


@pytest.mark.parametrize("arm", sorted(file.stem for file in (Path(__file__).parents[2] / "conf" / "arm").glob("*")))
def test_every_arm_scores_flip_tta(arm: str) -> None:
    assert configure("train", TrainConfig, f"arm={arm}").tta == "flip"
    assert configure("train", TrainConfig, f"arm={arm}", "tta=none").tta == "none"


# Loggers


def test_csv_has_the_curves() -> None:
    fit("run_dir=out", "logger=csv", "epochs=2")
    with Path("out/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    record = result("out")

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows if row[name]]

    for name, key in (("val/accuracy", "val_acc"), ("val/loss", "val_loss")):
        assert column(name) == pytest.approx([row[key] for row in record.history])
    assert len(column("train/loss")) == len(column("train/lr")) == 2
    assert column("train/loss")[0] == pytest.approx(record.history[0]["train_loss"], rel=0.2)
    assert 0 < column("train/lr")[0] <= 4e-3
    assert all(len(column(f"recall/{name}")) == 2 for name in record.data["classes"])
    assert column("final/val_acc") == [record.metrics["val_acc"]]
    assert not list(Path("out").glob("events.out.tfevents.*"))


def test_the_logger_does_not_change_the_run_key(capsys: pytest.CaptureFixture[str]) -> None:
    fit("logger=csv", "logger.args.flush_logs_every_n_steps=1")
    fit()
    fit("logger=tensorboard")
    assert capsys.readouterr().out.count("already done") == 2
    assert len(list(Path("runs/cnn").glob("*/result.json"))) == 1


def test_a_resumed_run_keeps_the_rows_of_its_csv() -> None:
    overrides = ["logger=csv", "epochs=2"]
    fit("run_dir=whole", *overrides)
    with stopped_after(4):
        fit("run_dir=parts", *overrides)
    fit("run_dir=parts", *overrides)

    def points(folder: str) -> list[tuple[float, str, float]]:
        with Path(folder, "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return sorted((float(row["step"]), key, float(row[key])) for row in rows for key in row if row[key])

    assert points("parts") == points("whole")


def test_mlflow_logs_an_epoch() -> None:
    pytest.importorskip("mlflow")
    fit("run_dir=out", "logger=mlflow")
    logged = {
        str(file.relative_to(file.parents[1] if file.parent.name == "metrics" else file.parents[2])): file.read_text()
        for file in Path("mlruns").rglob("metrics/**/*")
        if file.is_file()
    }
    record = result("out")
    assert {"metrics/train/loss", "metrics/train/lr", "metrics/val/accuracy", "metrics/final/val_acc"} <= logged.keys()
    assert float(logged["metrics/val/accuracy"].split()[1]) == pytest.approx(record.history[0]["val_acc"])
    assert float(logged["metrics/final/val_acc"].split()[1]) == record.metrics["val_acc"]
    assert [file.read_text() for file in Path("mlruns").rglob("params/lr")] == ["0.004"]
    assert [file.read_text() for file in Path("mlruns").rglob("tags/mlflow.runName")] == ["out"]


def test_wandb_logs_an_epoch_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb: Any = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit("run_dir=out", "logger=wandb", "logger.args.offline=true")
    final = dict(wandb.run.summary)
    wandb.finish()
    record = result("out")
    assert final["final/val_acc"] == record.metrics["val_acc"]
    assert final["val/accuracy"] == pytest.approx(record.history[0]["val_acc"])
    assert {"train/loss", "train/lr"} <= final.keys()
    assert len(list(Path("out").rglob("run-*.wandb"))) == 1


def test_a_logger_that_does_not_start_is_a_one_line_error() -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(InputError, match="logger=mlflow: does not start .*; correct logger.args, or use") as caught:
        fit("logger=mlflow", "logger.args.tracking_uri=ftp://nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_an_unknown_argument_of_a_logger_is_a_one_line_error(logger: str) -> None:
    with pytest.raises(
        InputError, match=r"logger.args: .*'colour'.*; expected arguments of Lightning's \w+Logger."
    ) as caught:
        fit(f"logger={logger}", "logger.args.colour=red")
    assert "\n" not in str(caught.value)


def test_an_unknown_logger_is_a_one_line_error() -> None:
    with pytest.raises(InputError, match="logger.name=comet: expected tensorboard, csv, mlflow or wandb."):
        fit("logger.name=comet")
    process = call("deepfake_cls.train", "logger=comet", check=False)
    assert process.returncode == 1
    assert process.stderr == "error: logger=comet: unknown; expected one of csv, mlflow, tensorboard, wandb.\n"
