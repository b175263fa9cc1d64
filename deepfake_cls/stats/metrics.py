"""From labels and probabilities to the numbers that are reported.

In numpy, and not with torchmetrics: importing that takes 12 s on the machine of ``experiments/LOG.md``, four times
as long as nearest neighbours need for the embedded data. The tests hold it against scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ECE_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Scores of one split.

    Attributes:
        metrics: ``acc``, ``macro_f1``, ``nll`` (absent where a true class has probability 0), ``ece`` (15 bins).
        recall: By class; None for a class without images.
        confusion: Counts; rows are true classes, columns predictions.
    """

    metrics: dict[str, float]
    recall: list[float | None]
    confusion: list[list[int]]

    def prefixed(self, split: str) -> dict[str, float]:
        """Metrics under the names of a record: ``val_acc`` for validation, else ``<split>_acc``."""
        prefix = "val" if split == "validation" else split
        return {f"{prefix}_{name}": value for name, value in self.metrics.items()}


def score(labels: NDArray[np.int64], probs: NDArray[np.float32]) -> Scores:
    """Score predictions.

    Args:
        labels: int64 (N,), all known.
        probs: float32 (N, C); ties go to the smaller label.
    """
    classes = probs.shape[1]
    p = probs.astype(np.float64)
    predicted = p.argmax(axis=1)
    right = predicted == labels
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    hits, truths, guesses = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    seen = truths + guesses > 0  # a class that is neither there nor predicted has no F1
    metrics = {
        "acc": float(right.mean()),
        "macro_f1": float((2 * hits[seen] / (truths + guesses)[seen]).mean()),
        "ece": calibration_error(p.max(axis=1), right),
    }
    chosen = p[np.arange(len(labels)), labels]
    if (chosen > 0).all():
        metrics["nll"] = float(-np.log(chosen).mean())
    recall = [int(hit) / int(count) if count else None for hit, count in zip(hits, truths, strict=True)]
    return Scores(metrics, recall, confusion.tolist())


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, equation 3).

    Args:
        confidence: float64 (N,), probability of the predicted class.
        right: bool (N,), whether the prediction is right.
    """
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, right, ECE_BINS) - np.bincount(bins, confidence, ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))
