"""Late fusion: fitted by ``statistics``, used by ``evaluate``."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from deepfake_cls import evaluate, statistics, train
from deepfake_cls.config import EvaluateConfig, StatisticsConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.models.fusion import fit_fusion
from deepfake_cls.records import read_predictions, read_record, write_predictions, write_record
from deepfake_cls.statistics_model import read_model, write_model
from tests.conftest import SMALL_NET, configure

QUIET = ["trainer.progress=false", "trainer.threads=1"]
FOLD = ["data.fold=0", "data.folds=2", "data.fold_of=train"]


def fitted(root: Path, *overrides: str) -> None:
    arguments = [*QUIET, "data=unibuc", f"data.root={root}", *overrides]
    statistics.run(configure("statistics", StatisticsConfig, *arguments), False)


def evaluated(root: Path, *overrides: str) -> None:
    arguments = [*QUIET, "checkpoint=cnn/checkpoints/last.ckpt", "data=unibuc", f"data.root={root}", *overrides]
    evaluate.run(configure("evaluate", EvaluateConfig, *arguments), False)


@pytest.fixture
def root(unibuc_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data; cnn and fold are runs on one fold of train, and full is a statistics run on all of train."""
    shared = tmp_path_factory.getbasetemp() / "fusion"
    if not shared.exists():
        overrides = [*SMALL_NET, "data=unibuc", f"data.root={unibuc_like}", *FOLD, f"run_dir={shared}/cnn"]
        train.run(configure("train", TrainConfig, *overrides), False)
        fitted(unibuc_like, *FOLD, f"run_dir={shared}/fold")
        fitted(unibuc_like, f"run_dir={shared}/full")
    for name in ("cnn", "fold", "full"):
        shutil.copytree(shared / name, name)
    return unibuc_like


def test_the_fused_scores_are_added_and_the_plain_ones_stay(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted(root, "run_dir=full", "fusion=[cnn,fold]")
    assert "full: already done; adding the fusion from its model." in capsys.readouterr().out
    evaluated(root, "run_dir=plain")
    evaluated(root, "run_dir=fused", "fuse=full")

    plain, both = read_record(Path("plain")), read_record(Path("fused"))
    assert plain.identity != both.identity
    assert {name: both.metrics[name] for name in plain.metrics} == plain.metrics
    fusion = read_model(Path("full")).fusion
    assert fusion is not None
    assert read_record(Path("full")).metrics["fusion_weight"] == fusion.weight
    _, labels, network = read_predictions(Path("fused/predictions.npz"))
    assert np.array_equal(network, read_predictions(Path("plain/predictions.npz"))[2])
    logits = read_predictions(Path("full/predictions.npz"), "logits")[2]  # it scores the same validation split
    expected = softmax(np.log(network) + fusion.weight * log_softmax(logits / fusion.temperature, axis=1), axis=1)
    combined = read_predictions(Path("fused/predictions.npz"), "probs_fused")[2]
    np.testing.assert_allclose(combined, expected, atol=1e-4)
    assert both.metrics["val_acc_fused"] == pytest.approx(float((expected.argmax(axis=1) == labels).mean()))
    assert "accuracy fused, 95 % interval" in capsys.readouterr().out


def test_another_fusion_makes_another_evaluation(root: Path) -> None:
    fitted(root, "run_dir=full", "fusion=[cnn,fold]")
    evaluated(root, "run_dir=first", "fuse=full")
    model = read_model(Path("full"))
    assert model.fusion is not None
    write_model(Path("full"), replace(model, fusion=replace(model.fusion, weight=2.0)))
    evaluated(root, "run_dir=second", "fuse=full")
    assert read_record(Path("first")).identity != read_record(Path("second")).identity


def test_what_cannot_be_fused_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"fuse=full: has no fusion; repeat the command of that run with 'fusion="):
        evaluated(root, "fuse=full")
    with pytest.raises(InputError, match="nothing: expected the folder of a run, or the first digits of the id"):
        evaluated(root, "fuse=nothing")
    with pytest.raises(InputError, match="fuse=cnn: cnn is a run of kind cnn; give a statistics run"):
        evaluated(root, "fuse=cnn")
    fitted(root, "run_dir=full", "fusion=[cnn,fold]")
    model = read_model(Path("full"))
    with pytest.raises(InputError, match=r"fuse=full: its fusion was fitted on 15 of the scored images"):
        evaluated(root, "fuse=full", *FOLD)
    record = read_record(Path("full"))
    write_record(Path("full"), replace(record, data=record.data | {"classes": ["a", "b", "c"]}))
    write_model(Path("full"), replace(model, classes=("a", "b", "c")))
    with pytest.raises(InputError, match="fuse=full: has the classes a, b, c; the network has 0, 1, 2"):
        evaluated(root, "fuse=full")


def test_images_that_trained_the_statistics_are_refused(root: Path) -> None:
    """The fusion was fitted on fold 0, so fold 1 is used by the training of the full run only."""
    fitted(root, "run_dir=full", "fusion=[cnn,fold]")
    with pytest.raises(InputError, match=r"fuse=full: it was trained on 15 of the scored images; score images that"):
        evaluated(root, "fuse=full", "data.fold=1", *FOLD[1:])


def test_images_of_another_size_are_refused(root: Path) -> None:
    fitted(root, "run_dir=full", "fusion=[cnn,fold]")
    write_model(Path("full"), replace(read_model(Path("full")), size=(16, 20)))
    with pytest.raises(InputError, match=r"fuse=full: was trained on images of \[16,20\]; the scored .* \[16,16\]"):
        evaluated(root, "fuse=full")


def test_a_run_is_found_by_the_first_digits_of_its_id(root: Path) -> None:
    for name in ("cnn", "fold"):
        shutil.move(name, f"runs/{name}")
    fitted(root, "run_dir=runs/full", "fusion=[runs/cnn,runs/fold]")
    digits = read_record(Path("runs/full")).identity[:10]
    arguments = ["checkpoint=runs/cnn/checkpoints/last.ckpt", "run_dir=fused", f"fuse='{digits}'"]
    evaluated(root, *arguments)
    assert "val_acc_fused" in read_record(Path("fused")).metrics


def test_a_pair_on_other_data_or_another_size_is_refused(root: Path, tmp_path: Path) -> None:
    """Same classes and settings, but none of the images are training images of the run that gets the fusion."""
    from PIL import Image

    other = shutil.copytree(root, tmp_path / "other")
    for path in other.rglob("*.png"):
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    fitted(other, "run_dir=flipped")
    fitted(root, "run_dir=small", "data.size=[12,12]", "data.resize=true")
    for run, arguments in (("flipped", [other]), ("small", [root, "data.size=[12,12]", "data.resize=true"])):
        with pytest.raises(InputError, match="fusion: fold held out 15 images that are not training images of this"):
            fitted(*arguments, f"run_dir={run}", "fusion=[cnn,fold]")
        assert read_model(Path(run)).fusion is None


def test_runs_that_do_not_belong_together_are_refused(root: Path) -> None:
    fitted(root, "data.fold=1", "data.folds=2", "data.fold_of=train", "run_dir=other")
    fitted(root, "classifier=linear", *FOLD, "run_dir=linear")
    fitted(root, "classifier=linear", *FOLD[:2], "data.fold_of=all", "run_dir=all")
    cases = {
        "[fold,cnn]": "fusion: fold is a run of kind statistics; give a training there",
        "[cnn,full]": "fusion: full was not made with data.fold=NUMBER data.fold_of=train",
        "[cnn,all]": "fusion: all was not made with data.fold=NUMBER data.fold_of=train",
        "[cnn,other]": "fusion: cnn and other differ in fold or data",
        "[cnn,linear]": "fusion: linear has other features or another classifier",
        "[cnn,none]": "none: expected the folder of a run",
    }
    for runs, message in cases.items():
        with pytest.raises(InputError, match=message):
            fitted(root, "run_dir=full", f"fusion={runs}")
    assert read_record(Path("full")).status == "ok"
    assert read_model(Path("full")).fusion is None


def test_runs_with_other_images_or_classes_are_refused(root: Path) -> None:
    ids, labels, probs = read_predictions(Path("cnn/predictions.npz"))
    write_predictions(Path("cnn/predictions.npz"), ids[::-1].tolist(), labels, probs)
    with pytest.raises(InputError, match="fusion: cnn and fold have scored other images"):
        fitted(root, "run_dir=full", "fusion=[cnn,fold]")
    record = read_record(Path("cnn"))
    write_record(Path("cnn"), replace(record, data=record.data | {"classes": ["a", "b", "c"]}))
    with pytest.raises(InputError, match="fusion: cnn has the classes a, b, c; expected those of this run"):
        fitted(root, "run_dir=full", "fusion=[cnn,fold]")


def test_weight_and_temperature_have_the_smallest_nll() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    true = np.eye(3)[labels]
    network = softmax(2 * true + rng.standard_normal((600, 3)) * 1.5, axis=1)
    logits = 0.3 * (1.5 * true + rng.standard_normal((600, 3)))

    def nll(weight: float, temperature: float) -> float:
        powers = network * softmax(logits / temperature, axis=1) ** weight
        return float(-np.log(powers[np.arange(600), labels] / powers.sum(axis=1)).mean())

    fusion = fit_fusion(network, logits, labels, np.empty(0, np.uint64))

    grid = [nll(weight, temperature) for weight in np.linspace(0, 5, 26) for temperature in np.geomspace(0.1, 20, 40)]
    assert nll(fusion.weight, fusion.temperature) <= min(grid) + 1e-3
    assert nll(fusion.weight, fusion.temperature) < nll(0.0, 1.0) - 0.05


def test_statistics_without_information_get_no_weight() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    probs = softmax(rng.standard_normal((3000, 3)), axis=1)
    labels = np.array([rng.choice(3, p=row) for row in probs])
    assert fit_fusion(probs, rng.standard_normal((3000, 3)), labels, np.empty(0, np.uint64)).weight < 0.3
