"""From labels and probabilities to the numbers that are reported."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)


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
    truth = torch.from_numpy(labels)
    p = torch.from_numpy(np.ascontiguousarray(probs, dtype=np.float32))
    count = p.shape[1]
    predicted = p.argmax(dim=1)
    confusion = multiclass_confusion_matrix(predicted, truth, count)
    totals = confusion.sum(dim=1)
    metrics = {
        "acc": float((predicted == truth).double().mean()),
        "macro_f1": float(multiclass_f1_score(predicted, truth, count, average="macro")),
        "ece": float(multiclass_calibration_error(p, truth, count, n_bins=15)),
    }
    chosen = p[torch.arange(len(truth)), truth].double()
    if bool((chosen > 0).all()):
        metrics["nll"] = float(-chosen.log().mean())
    recall = [int(confusion[i, i]) / int(totals[i]) if totals[i] > 0 else None for i in range(count)]
    return Scores(metrics, recall, confusion.tolist())
