"""Groups, and a class of real images, from the data through training to records, answers and tables."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepfake_cls import compare, evaluate, knn, predict, train
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import EvaluateConfig, KnnConfig, PredictConfig, TrainConfig
from deepfake_cls.config_runs import CompareConfig
from deepfake_cls.data import cautions
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_groups, read_predictions, read_record, write_predictions
from deepfake_cls.stats.groups import effective_count
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.summary import accuracy_text
from tests.conftest import SMALL_NET, Schema, call
from tests.conftest import configure as compose
from tests.data.prompts import prompts

# 2 classes, 20 prompts of 3 images each of both classes; 4 prompts with 24 images are the validation split.
DATA = ["data=folder", "data.val_fraction=0.2", "data.cache=cache", "data.workers=1"]
QUIET = ["trainer.progress=false", "trainer.threads=1"]


def configure(name: str, schema: type[Schema], *overrides: str) -> Schema:
    """A configuration with the layout of ``tests.data.prompts``, which is registered for tests only."""
    config: Any = compose(name, schema, *overrides)
    if config.data.name == "folder":
        config.data.name = "test_prompts"
    return config  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the network with ``data.real=real`` and balanced weights, and its data; do not change the folder."""
    folder = tmp_path_factory.mktemp("groups")
    prompts(folder / "data")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cautions, "warn", lambda *_: (folder / "warned").touch(exist_ok=False))
        training(folder, folder / "cnn", "tta=none")
    return folder


def training(folder: Path, run: Path, *overrides: str) -> None:
    """Train with the data in a folder, or add to the run what it lacks."""
    root, cache = f"data.root={folder / 'data'}", f"data.cache={folder / 'cache'}"
    own = [*DATA, root, cache, "data.real=real", "recipe.class_weights=balanced", *SMALL_NET, "channels=RGB"]
    train.run(configure("train", TrainConfig, *own, f"run_dir={run}", *overrides), False)


def of(folder: Path) -> list[str]:
    return [*DATA, f"data.root={folder / 'data'}", f"data.cache={folder / 'cache'}", *QUIET]


def complete(folder: Path, record: Record, split: str = "val") -> None:
    """The record and the predictions have the groups and the scores of real or synthetic images."""
    assert record.data["groups"][record.config.get("split", "validation")] == 4
    _, labels, probs = read_predictions(folder / "predictions.npz")
    groups = read_groups(folder / "predictions.npz")
    assert groups is not None
    assert groups.dtype == np.int64
    assert np.bincount(groups).tolist() == [6] * 4
    correct = probs.argmax(axis=1) == labels
    assert record.metrics[f"{split}_effective_n"] == effective_count(correct, groups)
    area = roc_auc_score(labels == 0, 1 - probs[:, 1])  # the classes are gan and real
    assert record.metrics[f"{split}_auroc_synthetic"] == pytest.approx(area, abs=1e-6)


def test_training_records_groups_and_the_score_of_synthetic_images(trained: Path) -> None:
    record = read_record(trained / "cnn")
    complete(trained / "cnn", record)
    assert record.data["groups"] == {"train": 16, "validation": 4}
    count = record.metrics["val_effective_n"]
    low, high = wilson(record.metrics["val_acc"] * count, count)
    shown = f"({100 * low:.1f} to {100 * high:.1f}; {round(24 * record.metrics['val_acc'])} of 24 in 4 groups)"
    assert accuracy_text(record).endswith(shown)
    assert load_model(trained / "cnn" / "checkpoints" / "last.ckpt").real == "real"
    # Adding flip TTA writes the predictions again.
    shutil.copytree(trained / "cnn", "cnn")
    training(trained, Path("cnn"), "tta=flip")
    assert "val_acc_flip" in read_record(Path("cnn")).metrics
    complete(Path("cnn"), read_record(Path("cnn")))


def test_training_warns_of_what_the_data_gives_away(trained: Path) -> None:
    assert (trained / "warned").exists()


def test_training_weights_the_classes(trained: Path) -> None:
    settings = read_checkpoint(trained / "cnn" / "checkpoints" / "last.ckpt")["hyper_parameters"]
    assert settings["class_weights"] == [1.0, 1.0]  # the classes have 48 training images each
    assert settings["recipe"]["class_weights"] == "balanced"


def test_evaluate_and_predict_know_the_real_class_from_the_checkpoint(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"checkpoint={trained / 'cnn' / 'checkpoints' / 'last.ckpt'}"
    evaluate.run(configure("evaluate", EvaluateConfig, *of(trained), checkpoint, "run_dir=scored"), False)
    complete(Path("scored"), read_record(Path("scored")))
    evaluate.run(configure("evaluate", EvaluateConfig, *of(trained), checkpoint, "split=train", "run_dir=train"), False)
    assert {"train_auroc_synthetic", "train_effective_n"} <= read_record(Path("train")).metrics.keys()
    assert "_synthetic" in capsys.readouterr().out

    config = configure("predict", PredictConfig, *of(trained), checkpoint, "split=validation", "output=labels.csv")
    predict.run(config, False)
    ids, _, probs = read_predictions(Path("scored/predictions.npz"))
    with Path("labels.csv").open() as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert list(next(iter(rows.values()))) == ["image_id", "label", "p_synthetic"]
    found = [float(rows[image]["p_synthetic"]) for image in ids]
    assert found == pytest.approx((1 - probs[:, 1]).tolist(), abs=2e-6)

    config = configure("predict", PredictConfig, *QUIET, checkpoint, "output=paths.csv", "probabilities=true")
    config.paths = [str(trained / "data" / "gan" / "1-0.png"), "missing.png"]
    Path("missing.png").write_bytes(b"no image")
    with pytest.raises(Exception, match="without an answer"):
        predict.run(config, False)
    with Path("paths.csv").open() as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["image_id", "label", "error", "p_synthetic", "p_gan", "p_real"]
    assert float(first["p_synthetic"]) == pytest.approx(float(first["p_gan"]), abs=2e-6)
    assert second["p_synthetic"] == ""
    config.output, config.probabilities = None, False
    capsys.readouterr()
    with pytest.raises(Exception, match="without an answer"):
        predict.run(config, False)
    assert "p_synthetic" in (output := capsys.readouterr().out)
    assert f"{float(first['p_synthetic']):.3f}" in output


def test_a_checkpoint_without_the_key_names_no_real_class(trained: Path) -> None:
    checkpoint = read_checkpoint(trained / "cnn" / "checkpoints" / "last.ckpt")
    assert checkpoint["hyper_parameters"].pop("real") == "real"
    assert not any("class_weights" in name for name in checkpoint["state_dict"])
    import torch

    torch.save(checkpoint, "old.ckpt")
    assert load_model("old.ckpt").real is None


def test_an_unknown_real_class_is_refused(trained: Path) -> None:
    config = configure("knn", KnnConfig, *of(trained), "data.real=photo")
    with pytest.raises(InputError, match=r"^data.real=photo: no such class; expected one of gan, real.$"):
        read_manifest(config.data)


def test_runs_are_compared_over_groups(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in (1, 3):
        config = configure("knn", KnnConfig, *of(trained), "data.real=real", f"k=[{k}]", f"run_dir=knn{k}")
        knn.run(config, False)
    assert "of 24 in 4 groups)" in capsys.readouterr().out
    complete(Path("knn1"), read_record(Path("knn1")))
    assert (
        read_record(Path("knn1")).by_k["1"]["val_effective_n"] == read_record(Path("knn1")).metrics["val_effective_n"]
    )
    compare.run(CompareConfig(folders=["knn1", "knn3"]), False)
    assert capsys.readouterr().out.startswith("Paired over 24 images in 4 groups; the first row is the baseline.\n")
    # Of all images in one group, no interval can be computed.
    for run in ("knn1", "knn3"):
        ids, labels, probs = read_predictions(Path(run, "predictions.npz"))
        write_predictions(Path(run, "predictions.npz"), ids.tolist(), labels, probs, np.zeros(24, np.int64))
    with pytest.raises(InputError, match="all images are of one group"):
        compare.run(CompareConfig(folders=["knn1", "knn3"]), False)


def test_the_page_names_the_groups(trained: Path) -> None:
    call("deepfake_cls.report", f"runs={trained}", "output=page")
    page = Path("page/index.html").read_text()
    assert "of 24 images in 4 groups correct" in page
    assert "of 24 in 4 groups)" in page
