from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import deepfake_cls
from deepfake_cls.errors import InputError
from deepfake_cls.stats import metric
from deepfake_cls.stats.metrics import compute, score

CLASSES = 4


def random_predictions(votes: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and probabilities of 200 images; with votes, many probabilities are equal."""
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, 200, p=[0.6, 0.2, 0.15, 0.05])
    if votes:
        return labels, (rng.multinomial(5, np.full(CLASSES, 1 / CLASSES), 200) / 5).astype(np.float32)
    return labels, rng.dirichlet(np.ones(CLASSES), 200).astype(np.float32)


def test_importing_needs_no_torch_and_no_scipy() -> None:
    code = "import sys, deepfake_cls.stats; sys.exit(bool({'torch', 'scipy', 'hydra'} & {*sys.modules}))"
    root = Path(deepfake_cls.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


def test_scores_against_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, probs = random_predictions(votes=False)
    scores = score(labels, probs)
    predicted = probs.argmax(axis=1)
    assert scores.confusion == metrics.confusion_matrix(labels, predicted).tolist()
    assert scores.recall == pytest.approx(metrics.recall_score(labels, predicted, average=None))
    assert scores.metrics["acc"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert scores.metrics["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert scores.metrics["nll"] == pytest.approx(metrics.log_loss(labels, probs), abs=1e-5)
    edges = np.minimum((probs.max(axis=1) * 15).astype(int), 14)
    ece = sum(
        abs((predicted == labels)[edges == b].sum() - probs.max(axis=1)[edges == b].sum()) for b in range(15)
    ) / len(labels)
    assert scores.metrics["ece"] == pytest.approx(ece, abs=1e-5)
    sure = (probs.max(axis=1) - (predicted == labels)).mean()
    assert scores.metrics["overconfidence"] == pytest.approx(sure, abs=1e-6)
    assert abs(sure) > 0.01


@pytest.mark.parametrize("votes", [False, True])
def test_probabilistic_scores_against_scikit_learn(votes: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, probs = random_predictions(votes)
    scores = score(labels, probs).metrics
    assert scores["balanced_acc"] == pytest.approx(metrics.balanced_accuracy_score(labels, probs.argmax(axis=1)))
    one_vs_rest = [(labels == label, probs[:, label]) for label in range(CLASSES)]
    assert scores["brier"] == pytest.approx(sum(metrics.brier_score_loss(*one) for one in one_vs_rest))
    assert scores["auroc"] == pytest.approx(np.mean([metrics.roc_auc_score(*one) for one in one_vs_rest]))
    if not votes:  # scikit-learn gives ties to the larger label
        assert scores["top2"] == pytest.approx(metrics.top_k_accuracy_score(labels, probs, k=2))


def test_balanced_accuracy_and_auroc_ignore_classes_without_images() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, probs = random_predictions(votes=False)
    labels = labels % 3
    scores = score(labels, probs).metrics
    predicted = probs.argmax(axis=1)
    recalls = metrics.recall_score(labels, predicted, labels=[0, 1, 2], average=None)
    assert scores["balanced_acc"] == pytest.approx(recalls.mean())
    areas = [metrics.roc_auc_score(labels == label, probs[:, label]) for label in range(3)]
    assert scores["auroc"] == pytest.approx(np.mean(areas))


def test_auroc_of_one_class_is_absent() -> None:
    scores = score(np.zeros(3, dtype=np.int64), np.full((3, 2), 0.5, dtype=np.float32))
    assert "auroc" not in scores.metrics
    assert scores.metrics["balanced_acc"] == 1


@pytest.mark.parametrize(
    ("label", "probs", "expected"),
    [
        (2, [0.5, 0.25, 0.25], 0),  # labels 1 and 2 have equal probabilities: the smaller one is second
        (1, [0.5, 0.25, 0.25], 1),
        (2, [0.25, 0.25, 0.5], 1),
        (1, [0.25, 0.25, 0.5], 0),
        (0, [1.0], 1),
    ],
)
def test_top2_gives_ties_to_the_smaller_label(label: int, probs: list[float], expected: float) -> None:
    assert compute("top2", np.array([label]), np.array([probs], dtype=np.float32)) == expected


@pytest.mark.parametrize(("probs", "expected"), [([1, 0, 0], 0), ([0, 1, 0], 2), ([0.5, 0.5, 0], 0.5)])
def test_brier_ranges_from_0_to_2(probs: list[float], expected: float) -> None:
    assert compute("brier", np.array([0]), np.array([probs], dtype=np.float32)) == expected


def test_scores_of_votes_and_missing_classes() -> None:
    scores = score(np.array([0, 0, 1]), np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]], dtype=np.float32))
    assert "nll" not in scores.metrics  # a true class with probability 0: infinite
    assert scores.recall == [0.5, 0.0, None]  # ties go to the smaller label
    assert scores.prefixed("validation")["val_acc"] == scores.prefixed("test")["test_acc"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("value", "expected"), [(np.float32(0.5), 0.5), (1, 1.0), (None, None), (float("nan"), None), (np.inf, None)]
)
def test_a_registered_metric_is_scored(value: float | None, expected: float | None, registries: None) -> None:
    @metric("mine")
    def mine(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float | None:
        assert (labels.shape, probs.shape) == ((200,), (200, CLASSES))
        return value

    scores = score(*random_predictions(votes=False)).prefixed("test").get("test_mine")
    assert scores == expected
    assert type(scores) is type(expected)  # JSON has no float32


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(InputError, match="metric=mine: unknown; expected one of acc, auroc, balanced_acc, "):
        compute("mine", *random_predictions(votes=False))


def test_a_metric_that_fails_is_omitted_with_a_warning(registries: None, caplog: pytest.LogCaptureFixture) -> None:
    @metric("broken")
    def broken(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
        raise ZeroDivisionError("no images")

    scores = score(np.array([0, 1]), np.eye(2, dtype=np.float32))
    assert "broken" not in scores.metrics
    assert scores.metrics["acc"] == 1
    assert "The metric broken failed and is omitted: ZeroDivisionError: no images" in caplog.text
