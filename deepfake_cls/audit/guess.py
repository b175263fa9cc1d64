"""How well a few features predict the class: cross-validated balanced accuracy of a random forest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from deepfake_cls.randomness import derive
from deepfake_cls.stats.intervals import critical

FOLDS = 5
TREES = 50
MOST = 10_000  # images that are used: the interval is then narrower than two points


@dataclass(frozen=True)
class Guess:
    """A balanced accuracy: the mean of the classes' recalls.

    Attributes:
        value: A fraction.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Sample:
    """The images of a test.

    Attributes:
        rows: int64 (n,).
        labels: int64 (n,), 0 to C − 1.
        units: int64 (n,): images of one unit are in one fold, and are not independent.
        classes: C.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    classes: int

    @property
    def grouped(self) -> bool:
        """Whether a unit has several images."""
        return len(np.unique(self.units)) < len(self.units)

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return 1 / self.classes

    @property
    def testable(self) -> bool:
        """Whether there are at least two classes, and at least two units to divide."""
        return self.classes > 1 and len(np.unique(self.units)) > 1


def draw_sample(labels: NDArray[np.int64], units: NDArray[np.int64], seed: int, most: int = MOST) -> Sample:
    """The images that are tested: at most so many, in whole units, of the classes with two units or more.

    Args:
        labels: int64 (N,); −1 is unknown, and omitted.
        units: int64 (N,), see :class:`Sample`.
        seed: Seed of the choice.
        most: Number of images.
    """
    rows = np.flatnonzero(labels >= 0)
    number = np.unique(units[rows], return_inverse=True)[1]
    place = np.random.default_rng(derive(seed, "audit")).permutation(number.max(initial=-1) + 1)[number]
    order = np.lexsort((place, labels[rows]))  # by class, then the units in random order
    sizes = np.bincount(labels[rows])
    starts = np.cumsum(sizes) - sizes
    quantile = np.empty(len(rows))
    quantile[order] = (np.arange(len(rows)) - starts[labels[rows][order]]) / sizes[labels[rows][order]]
    rows = rows[np.sort(np.argsort(quantile, kind="stable")[:most])]  # the same share of each class
    pairs = np.unique(np.stack([labels[rows], units[rows]], axis=1), axis=0)  # each class with each of its units
    names, per_class = np.unique(pairs[:, 0], return_counts=True)
    kept = names[per_class > 1]
    rows = rows[np.isin(labels[rows], kept)]
    return Sample(rows, np.searchsorted(kept, labels[rows]), units[rows], len(kept))


def guess(features: NDArray[np.float64], sample: Sample, seed: int, workers: int, smooth: bool = False) -> Guess:
    """Predict the class of each image by a forest that was fitted on the images of other folds.

    Args:
        features: (n, D), of the images of the sample.
        sample: The images; they have to be testable.
        seed: Seed of folds and forest.
        workers: Number of threads.
        smooth: For one continuous feature: each leaf gets at least 0.5 % of the images.
    """
    forest = RandomForestClassifier(
        TREES,
        min_samples_leaf=0.005 if smooth else 1,
        class_weight="balanced",
        n_jobs=workers,
        random_state=derive(seed, "audit", "forest") % 2**32,
    )
    count = min(FOLDS, len(np.unique(sample.units)))
    state = derive(seed, "audit", "folds") % 2**32
    folds: BaseCrossValidator = (StratifiedGroupKFold if sample.grouped else StratifiedKFold)(
        count, shuffle=True, random_state=state
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # fewer images than folds: some folds have none
        groups = sample.units if sample.grouped else None
        predicted = cross_val_predict(forest, features, sample.labels, groups=groups, cv=folds)
    return balanced_accuracy(sample.labels, predicted, sample.units)


def balanced_accuracy(labels: NDArray[np.int64], predicted: NDArray[np.int64], units: NDArray[np.int64]) -> Guess:
    """Mean recall of the classes with its 95 % interval over images, or over units if that is wider.

    The variance over images adds p (1 − p) / n of the recalls, where p has half a success and half a failure more
    (Jeffreys), so that a class of few images that are all right or all wrong does not look certain. The variance over
    units adds the squared sums of the linearised errors in each unit (Liang and Zeger 1986).

    Args:
        labels: int64 (n,), 0 to C − 1; each class occurs.
        predicted: int64 (n,).
        units: int64 (n,); images of one unit may be dependent.
    """
    hit = predicted == labels
    sizes, hits = np.bincount(labels), np.bincount(labels, hit)
    recall, classes = hits / sizes, len(sizes)
    shares = (hits + 0.5) / (sizes + 1)
    over_images = float((shares * (1 - shares) / sizes).sum()) / classes**2
    number = np.unique(units, return_inverse=True)[1]
    sums = np.bincount(number, (hit - recall[labels]) / sizes[labels]) / classes
    over_units = float(np.square(sums).sum()) * len(sums) / (len(sums) - 1)
    half = critical(len(sums) - 1, 0.05) * sqrt(max(over_images, over_units))
    value = float(recall.mean())
    return Guess(value, max(0.0, value - half), min(1.0, value + half))
