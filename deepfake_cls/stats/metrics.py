"""Metrics of labels and probabilities, registered by name; a plugin can add its own.

They use numpy only, since importing torchmetrics takes 12 s on the machine of ``experiments/LOG.md``: four times as
long as KNN on the embedded data. The tests compare them with scikit-learn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.registry import Registry
from deepfake_cls.stats.groups import effective_count

_log = logging.getLogger(__name__)
ECE_BINS = 15

Metric = Callable[[NDArray[np.int64], NDArray[np.float32]], float | None]

# Functions of labels, int64 (N,), all known, and probabilities, float32 (N, C); None where the metric is not defined.
metric: Registry[str, Metric] = Registry("metric")


@dataclass(frozen=True)
class Scores:
    """Scores of one split.

    Attributes:
        metrics: Every registered metric by name, without those that are not defined for these predictions. With groups
            also ``effective_n``, see :func:`deepfake_cls.stats.groups.effective_count`; with a class of real images
            also ``auroc_synthetic``.
        recall: By class; None for a class without images.
        confusion: Counts; rows are true classes, columns predictions.
    """

    metrics: dict[str, float]
    recall: list[float | None]
    confusion: list[list[int]]

    def prefixed(self, split: str) -> dict[str, float]:
        """Metrics under their names in a record, see :func:`record_name`."""
        return {record_name(name, split): value for name, value in self.metrics.items()}


def record_name(name: str, split: str) -> str:
    """Name of a metric in a record: ``val_acc`` for validation, else ``<split>_acc``."""
    return f"{'val' if split == 'validation' else split}_{name}"


def score(
    labels: NDArray[np.int64],
    probs: NDArray[np.float32],
    groups: NDArray[np.int64] | None = None,
    real: int | None = None,
) -> Scores:
    """Compute every registered metric, the recall by class and the confusion matrix.

    Args:
        labels: int64 (N,), all known.
        probs: float32 (N, C); ties go to the smaller label.
        groups: int64 (N,), the group of each image; None if there are none.
        real: The label of images that no generator made; None if there is no such class.
    """
    values = {name: compute(name, labels, probs) for name in metric}
    if groups is not None:
        values["effective_n"] = effective_count(probs.argmax(axis=1) == labels, groups)
    if real is not None:
        values["auroc_synthetic"] = area_under_roc(labels != real, 1 - probs[:, real])
    counts = _confusion(labels, probs)
    recall = [
        int(hit) / int(count) if count else None for hit, count in zip(counts.diagonal(), counts.sum(1), strict=True)
    ]
    return Scores({name: value for name, value in values.items() if value is not None}, recall, counts.tolist())


def compute(name: str, labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float | None:
    """Compute one metric; None where it is not defined, not finite (JSON has no such numbers), or raises an error.

    Raises:
        InputError: If no metric has the name.
    """
    function = metric[name]
    try:
        value = function(labels, probs)
        return float(value) if value is not None and isfinite(value) else None
    except Exception as error:  # a user's metric must not end a training or a report
        _log.warning("The metric %s failed and is omitted: %s: %s", name, type(error).__name__, error)
        return None


@metric("acc")
def accuracy(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Share of images whose most probable class is correct."""
    return float((probs.argmax(axis=1) == labels).mean())


@metric("balanced_acc")
def balanced_accuracy(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Mean recall over the classes that have images."""
    counts = _confusion(labels, probs)
    sizes = counts.sum(axis=1)
    return float((counts.diagonal()[sizes > 0] / sizes[sizes > 0]).mean())


@metric("top2")
def top2(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Share of images whose true class is among the two most probable; ties go to the smaller label."""
    two = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    return float((two == labels[:, None]).any(axis=1).mean())


@metric("macro_f1")
def macro_f1(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Mean F1 over the classes that have images or predictions."""
    counts = _confusion(labels, probs)
    hits, sizes = counts.diagonal(), counts.sum(axis=1) + counts.sum(axis=0)
    return float((2 * hits[sizes > 0] / sizes[sizes > 0]).mean())


@metric("auroc")
def auroc(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float | None:
    """Area under the ROC curve of each class against the rest, mean over classes; ties count half.

    Classes of no image or of all images are omitted; None if no class remains.
    """
    every = [area_under_roc(labels == label, column) for label, column in enumerate(probs.T)]
    areas = [area for area in every if area is not None]
    return float(np.mean(areas)) if areas else None


def area_under_roc(positive: NDArray[np.bool_], scores: NDArray[np.float32]) -> float | None:
    """Area under the ROC curve of scores (N,); ties count half. None if all images are positive, or none is."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    # Mean ranks from 1, as scipy.stats.rankdata gives them; importing that takes 1 to 3 s.
    _, positions, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[positions]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@metric("brier")
def brier(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Brier score: squared error summed over classes, mean over images; 0 (best) to 2."""
    errors = probs.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.square(errors).sum(axis=1).mean())


@metric("ece")
def calibration_error(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, equation 3)."""
    confidence, correct = probs.max(axis=1).astype(np.float64), probs.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, correct, ECE_BINS) - np.bincount(bins, confidence, ECE_BINS)
    return float(np.abs(gaps).sum() / len(correct))


@metric("overconfidence")
def overconfidence(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float:
    """Mean probability of the predicted class minus accuracy; negative for underconfident predictions.

    The calibration error has no sign: label smoothing and CutMix make a network underconfident, which raises it too.
    """
    return float(probs.max(axis=1).mean(dtype=np.float64)) - accuracy(labels, probs)


@metric("nll")
def log_loss(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> float | None:
    """Mean negative log-likelihood in nats; None where a true class has probability 0."""
    p_true = probs[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(p_true).mean()) if (p_true > 0).all() else None


def _confusion(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Counts, (C, C); rows are true classes, columns predictions."""
    classes = probs.shape[1]
    return np.bincount(labels * classes + probs.argmax(axis=1), minlength=classes**2).reshape(classes, classes)
