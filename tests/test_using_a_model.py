"""``evaluate`` and ``predict`` with a trained model."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepfake_cls import evaluate, predict, train
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import EvaluateConfig, PredictConfig, TrainConfig
from deepfake_cls.errors import IncompleteError, InputError
from deepfake_cls.inference import logits_of
from deepfake_cls.records import digest_of, read_predictions, read_record
from tests.conftest import SMALL_NET, configure

QUIET = ["trainer.progress=false", "trainer.threads=1"]


@pytest.fixture
def checkpoint(unibuc_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the run folder ``model``, a copy of the one training that all tests share."""
    shared = tmp_path_factory.getbasetemp() / "using_a_model"
    if not (shared / "result.json").exists():
        overrides = [*SMALL_NET, "data=unibuc", f"data.root={unibuc_like}", "epochs=12", "augment.cutmix=null"]
        train.run(configure("train", TrainConfig, *overrides, f"run_dir={shared}"), False)
    shutil.copytree(shared, "model")
    return Path("model/checkpoints/last.ckpt").resolve()


def evaluated(checkpoint: Path, root: Path, *overrides: str) -> None:
    arguments = [*QUIET, f"checkpoint={checkpoint}", "data=unibuc", f"data.root={root}", *overrides]
    evaluate.run(configure("evaluate", EvaluateConfig, *arguments), False)


def predicted(checkpoint: Path, *overrides: str) -> list[dict[str, str]]:
    predict.run(
        configure("predict", PredictConfig, *QUIET, f"checkpoint={checkpoint}", "output=out.csv", *overrides),
        False,
    )
    with Path("out.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_gives_the_scores_of_the_training(
    checkpoint: Path, unibuc_like: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(checkpoint, unibuc_like, "run_dir=score")
    ours, theirs = read_record(Path("score")), read_record(Path("model"))
    assert ours.confusion == theirs.confusion
    assert ours.metrics["val_acc"] == theirs.metrics["val_acc"]
    assert ours.metrics["val_acc"] > 0.8  # three colours: an untrained network is at a third
    ours_probs, theirs_probs = (read_predictions(Path(run) / "predictions.npz")[2] for run in ("score", "model"))
    assert np.allclose(ours_probs, theirs_probs, atol=1e-5)
    evaluated(checkpoint, unibuc_like, "run_dir=train_score", "split=train")
    label = f"\nlabel images: deepfake-cls predict PHOTOS checkpoint={checkpoint}"
    assert label in capsys.readouterr().out
    assert read_record(Path("train_score")).metrics["train_acc"] == theirs.metrics["train_acc"]


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("bf16-mixed", 0.02)])
def test_flip_is_the_mean_over_both_views(
    precision: str, tolerance: float, checkpoint: Path, unibuc_like: Path
) -> None:
    precision_argument = [f"trainer.precision={precision}"]
    evaluated(checkpoint, unibuc_like, "run_dir=plain", *precision_argument)
    evaluated(checkpoint, unibuc_like, "run_dir=flip", "tta=flip", *precision_argument)
    ids, _, flipped = read_predictions(Path("flip/predictions.npz"))
    model = load_model(checkpoint)
    both = []
    for image_id in ids:
        pixels = np.asarray(Image.open(unibuc_like / "validation" / f"{image_id}.png"))
        rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        views = torch.from_numpy(np.stack([rgba, rgba[:, ::-1]]))
        both.append(logits_of(model.network, views, "32-true").softmax(dim=1).mean(dim=0).numpy())
    assert np.allclose(flipped, both, atol=tolerance)
    assert not np.allclose(flipped, read_predictions(Path("plain/predictions.npz"))[2], atol=1e-6)


def test_a_submission_is_in_the_order_of_test_csv(checkpoint: Path, unibuc_like: Path) -> None:
    rows = predicted(checkpoint, "data=unibuc", f"data.root={unibuc_like}")
    with (unibuc_like / "test.csv").open() as file:
        assert [row["image_id"] for row in rows] == [row["image_id"] for row in csv.DictReader(file)]
    assert list(rows[0]) == ["image_id", "label"]
    truth = {f"te{(index * 11) % 7:03d}": index % 3 for index in range(7)}
    right = [int(row["label"]) == truth[row["image_id"]] for row in rows]
    assert sum(right) >= 5  # an untrained network has two or three of seven


def test_predict_writes_probabilities(checkpoint: Path, unibuc_like: Path) -> None:
    rows = predicted(checkpoint, "data=unibuc", f"data.root={unibuc_like}", "split=validation", "probabilities=true")
    _, _, probs = read_predictions(Path("model/predictions.npz"))
    shares = np.array([[float(row[f"p_{label}"]) for label in "012"] for row in rows])
    assert np.allclose(shares, probs, atol=1e-5)
    assert [int(row["label"]) for row in rows] == probs.argmax(axis=1).tolist()


def test_predict_labels_a_folder_of_images(checkpoint: Path) -> None:
    Path("mine").mkdir()
    for name, label in (("red", 0), ("green", 1), ("blue", 2)):
        pixels = np.random.default_rng(1).integers(0, 120, (16, 16, 3), dtype=np.uint8)
        pixels[..., label] += 120
        Image.fromarray(pixels).save(f"mine/{name}.png")
    rows = predicted(checkpoint, "data=folder", "data.root=mine", "names=true")
    assert {row["image_id"]: row["label"] for row in rows} == {
        "red.png": "0",
        "green.png": "1",
        "blue.png": "2",
    }

    Image.new("RGB", (64, 48)).save("mine/photo.png")
    with pytest.raises(InputError, match=r"(?s)photo.png.*data.resize=true"):
        predicted(checkpoint, "data=folder", "data.root=mine")
    assert len(predicted(checkpoint, "data=folder", "data.root=mine", "data.resize=true")) == 4
    with pytest.raises(IncompleteError, match=r"1 of 4: photo.png is 48×64.*resize=true resizes other sizes"):
        predicted(checkpoint, "data=folder", "data.root=mine", "data.on_error=skip")
    with Path("out.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["2", "1", "", "0"]


def test_wrong_inputs_are_refused_with_advice(checkpoint: Path, unibuc_like: Path) -> None:
    with pytest.raises(InputError, match="tta=rotate: expected none or flip"):
        evaluated(checkpoint, unibuc_like, "tta=rotate")
    with pytest.raises(InputError, match="split=test: has no labels.*predict"):
        evaluated(checkpoint, unibuc_like, "split=test")
    with pytest.raises(InputError, match="train"):
        evaluated(checkpoint, unibuc_like, "split=holdout")
    with pytest.raises(InputError, match="checkpoint=none.ckpt: no such file"):
        evaluated(Path("none.ckpt"), unibuc_like)
    with pytest.raises(InputError, match="is a folder"):
        predicted(checkpoint, "data=unibuc", f"data.root={unibuc_like}", "output=model")
    with pytest.raises(InputError, match="model's classes are 0, 1, 2; those of data=synthetic are transposed"):
        evaluate.run(configure("evaluate", EvaluateConfig, *QUIET, f"checkpoint={checkpoint}"), False)
    with pytest.raises(InputError, match="No images are given. Give files or folders, as in deepfake-cls predict"):
        predicted(checkpoint)


def test_another_size_than_the_trainings_is_refused(checkpoint: Path, unibuc_like: Path) -> None:
    data = ["data=unibuc", f"data.root={unibuc_like}"]
    message = r"data.size=\[8,16\]: the model was trained on images of \[16,16\]; omit data.size"
    with pytest.raises(InputError, match=message):
        evaluated(checkpoint, unibuc_like, "data.size=[8,16]", "data.resize=true")
    with pytest.raises(InputError, match=message):
        predicted(checkpoint, *data, "data.size=[8,16]", "data.resize=true")
    assert len(predicted(checkpoint, *data, "data.size=[16,16]")) == 7


def test_another_resize_than_the_trainings_is_a_warning(
    checkpoint: Path, unibuc_like: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ["data=unibuc", f"data.root={unibuc_like}"]
    predicted(checkpoint, *data)
    assert caplog.messages == []
    predicted(checkpoint, *data, "data.resize=true")
    evaluated(checkpoint, unibuc_like, "data.resize=true")
    warning = "data.resize=true, but the model was trained with data.resize=false."
    assert [text[: len(warning)] for text in caplog.messages] == [warning, warning]

    caplog.clear()
    old = read_checkpoint(checkpoint)
    del old["hyper_parameters"]["resize"]  # as in older files
    torch.save(old, "old.ckpt")
    assert load_model("old.ckpt").resize is None
    assert len(predicted(Path("old.ckpt"), *data, "data.resize=true")) == 7
    assert caplog.messages == []


def test_images_are_resized_if_the_training_resized_them(checkpoint: Path, unibuc_like: Path) -> None:
    saved = read_checkpoint(checkpoint)
    saved["hyper_parameters"]["resize"] = True
    torch.save(saved, "resized.ckpt")
    Image.new("RGB", (64, 48)).save(unibuc_like / "validation" / "va000.png")
    with pytest.raises(InputError, match=r"va000.png is 48×64"):
        evaluated(checkpoint, unibuc_like)
    evaluated(Path("resized.ckpt"), unibuc_like, "run_dir=score")
    assert sum(map(sum, read_record(Path("score")).confusion)) == 12


def test_outputs_that_are_not_finite_are_refused(checkpoint: Path, unibuc_like: Path) -> None:
    saved = read_checkpoint(checkpoint)
    name = next(name for name, value in saved["state_dict"].items() if value.ndim > 1)
    saved["state_dict"][name][0] = torch.nan
    torch.save(saved, "nan.ckpt")
    with pytest.raises(InputError, match="outputs are not finite for 12 of 12 images"):
        evaluated(Path("nan.ckpt"), unibuc_like)
    with pytest.raises(InputError, match="outputs are not finite for 7 of 7 images"):
        predicted(Path("nan.ckpt"), "data=unibuc", f"data.root={unibuc_like}")


def test_a_checkpoint_that_is_no_file_is_refused(checkpoint: Path, unibuc_like: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give a file, such as model/checkpoints/last.ckpt"):
        evaluated(Path("model"), unibuc_like)
    Path("empty").mkdir()
    with pytest.raises(InputError, match="checkpoint=empty: is a folder; give the last.ckpt of a run."):
        evaluated(Path("empty"), unibuc_like)
    os.mkfifo("pipe.ckpt")
    with pytest.raises(InputError, match="checkpoint=pipe.ckpt: is no regular file"):
        evaluated(Path("pipe.ckpt"), unibuc_like)
    with pytest.raises(InputError, match="init=pipe.ckpt: is no regular file; give a checkpoint"):
        digest_of("init", "pipe.ckpt")


def test_a_run_of_evaluate_depends_on_the_weights(checkpoint: Path, unibuc_like: Path) -> None:
    evaluated(checkpoint, unibuc_like)
    evaluated(checkpoint, unibuc_like)
    assert len(list(Path("runs/evaluate").glob("*/result.json"))) == 1
    evaluated(checkpoint.with_name("best.ckpt"), unibuc_like)
    evaluated(checkpoint, unibuc_like, "tta=flip")
    assert len(list(Path("runs/evaluate").glob("*/result.json"))) == 3
