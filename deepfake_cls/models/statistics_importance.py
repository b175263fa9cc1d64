"""Which groups of image statistics a classifier uses, and what each group is worth alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.models.image_statistics import group_slices
from deepfake_cls.models.statistics_classifier import Classifier, fit

PERMUTATIONS = 5
LANDMARKS = 500  # of the classifiers on one group: fewer than usual, for speed


def importance(
    classifier: Classifier,
    groups: Sequence[str],
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    held_out: tuple[NDArray[np.float32], NDArray[np.int64]],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Importance of each group of statistics on held-out images.

    Args:
        classifier: Fitted to all groups.
        groups: Their names, in the order of the columns.
        train: Statistics (N, D) and labels (N,) of the training images.
        held_out: The same of other images.
        seed: Seed of the permutations and of the classifiers on one group.

    Returns:
        A row for all groups together, with ``group`` "all", ``acc`` and ``pairs``, and then one for each group, with
        ``acc`` and ``pairs`` of a classifier on this group alone (the same kind, 500 landmarks) and ``drop``: accuracy
        minus the mean accuracy of ``classifier`` after 5 permutations of the group among the held-out images. ``pairs``
        has an entry [a, b, accuracy] for each pair of labels: among the images of two classes, the share whose class
        has the larger score of the two.
    """
    statistics, labels = held_out
    logits, kernel, classes = classifier.logits(statistics), bool(len(classifier.landmarks)), len(classifier.intercept)
    accuracy = _accuracy(logits, labels)
    rows: list[dict[str, Any]] = [{"group": "all", "acc": accuracy, "pairs": pair_accuracies(logits, labels)}]
    rng = np.random.default_rng(seed)
    for group, columns in group_slices(groups).items():
        permuted = []
        for _ in range(PERMUTATIONS):
            mixed = statistics.copy()
            mixed[:, columns] = statistics[rng.permutation(len(statistics)), columns]
            permuted.append(_accuracy(classifier.logits(mixed), labels))
        alone = fit(train[0][:, columns], train[1], classes, kernel=kernel, landmarks=LANDMARKS, seed=seed)
        scores = alone.logits(statistics[:, columns])
        rows.append(
            {
                "group": group,
                "acc": _accuracy(scores, labels),
                "drop": accuracy - float(np.mean(permuted)),
                "pairs": pair_accuracies(scores, labels),
            }
        )
    return rows


def pair_accuracies(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> list[list[float]]:
    """[a, b, accuracy] for each pair of labels that both have images; ties go to the smaller label."""
    pairs = []
    for a, b in combinations(np.unique(labels).tolist(), 2):
        rows = np.flatnonzero((labels == a) | (labels == b))
        predicted = np.where(logits[rows, b] > logits[rows, a], b, a)
        pairs.append([a, b, float((predicted == labels[rows]).mean())])
    return pairs


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == labels).mean())
