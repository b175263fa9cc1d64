"""Classify image statistics: linear or kernel ridge regression with cross-validated strength, in numpy and scipy.

The kernel is a Gaussian, approximated by landmarks (Nyström's method; Rudi, Camoriano and Rosasco 2015, "Less is
more"). The folds of the cross-validation share one Gram matrix, from which the part of a fold is subtracted. With
scikit-learn's ``Nystroem`` and ``RidgeCV`` the same takes about twice as long (``experiments/LOG.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # imports its submodules on first use
from numpy.typing import NDArray

FOLDS = 3
LANDMARKS = 2_000  # at most; training images at random
WIDTHS = (0.1, 0.2)  # of the kernel exp(-w ‖x − y‖² / D)
KERNEL_STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
LINEAR_STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4)
CLIP = 5.0  # standard deviations
_JITTER = 1e-6  # added to the diagonal of the landmarks' kernel, since training images may be equal
_ROWS = 4_096  # images in a block

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier; all that prediction needs.

    Attributes:
        mean: float64 (D,), of the training statistics.
        scale: float64 (D,), their standard deviation; 1 where it is 0.
        landmarks: float64 (M, D), standardised statistics of some training images; M = 0 for a linear classifier.
        width: w of the kernel exp(-w ‖x − y‖² / D).
        coefficients: float64 (M, C), or (D, C) of a linear classifier.
        intercept: float64 (C,), the shares of the classes in the training images.
        temperature: T of the probabilities softmax(scores / T).
        strength: The chosen ridge penalty.
    """

    mean: Floats
    scale: Floats
    landmarks: Floats
    width: float
    coefficients: Floats
    intercept: Floats
    temperature: float
    strength: float

    def logits(self, statistics: NDArray[Any]) -> NDArray[np.float32]:
        """Regression scores divided by the temperature: statistics (N, D) to float32 (N, C)."""
        parts = [self._features(rows) @ self.coefficients for rows in _blocks(statistics)]
        return ((np.concatenate(parts) + self.intercept) / self.temperature).astype(np.float32)

    def _features(self, statistics: NDArray[Any]) -> Floats:
        x = standardise(statistics, self.mean, self.scale)
        return x if not len(self.landmarks) else gaussian(squared_distances(x, self.landmarks), self.width, x.shape[1])


def fit(
    statistics: NDArray[Any],
    labels: NDArray[np.int64],
    classes: int,
    *,
    kernel: bool = True,
    landmarks: int = LANDMARKS,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> Classifier:
    """Fit a classifier; width and strength have the smallest squared error in a cross-validation of three folds.

    Args:
        statistics: (N, D), of the training images.
        labels: int64 (N,); every class has at least ``FOLDS`` images.
        classes: Number of classes C.
        kernel: Use the Gaussian kernel; false fits a linear classifier.
        landmarks: Largest number of landmarks.
        seed: Seed of the folds and the landmarks.
        groups: int64 (N,), the group of each image, which is not divided by the cross-validation; None: no groups.
    """
    mean, scale = statistics.mean(axis=0, dtype=np.float64), statistics.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1.0
    rng = np.random.default_rng(seed)
    folds = stratified_folds(labels, rng, groups)
    chosen = rng.permutation(len(labels))[: landmarks if kernel else 0]
    x = standardise(statistics, mean, scale)
    targets = np.eye(classes)[labels]
    intercept = targets.mean(axis=0)
    fits = []
    for width in WIDTHS if kernel else (0.0,):
        features, whiten = _nystroem(x, x[chosen], width) if kernel else (x, None)
        strengths = KERNEL_STRENGTHS if kernel else LINEAR_STRENGTHS
        fits.append((*_ridge(features, targets - intercept, folds, strengths), whiten, width))
    _, strength, coefficients, scores, whiten, width = min(fits, key=lambda fit: fit[0])
    if whiten is not None:
        coefficients = scipy.linalg.solve_triangular(whiten, coefficients, lower=True, trans="T")
    temperature = fit_temperature(scores + intercept, labels)
    return Classifier(mean, scale, x[chosen], width, coefficients, intercept, temperature, strength)


def standardise(statistics: NDArray[Any], mean: Floats, scale: Floats) -> Floats:
    """Standardised statistics, clipped to ±5: float64 (N, D)."""
    x: Floats = (statistics - mean) / scale
    np.clip(x, -CLIP, CLIP, out=x)
    return x


def squared_distances(x: Floats, y: Floats) -> Floats:
    """‖x − y‖² of all pairs: (N, D) and (M, D) to (N, M)."""
    products = x @ y.T
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)
    distances: Floats = np.maximum(squares - 2 * products, 0.0)  # rounding may give small negative numbers
    return distances


def gaussian(distances: Floats, width: float, columns: int) -> Floats:
    """The kernel of squared distances between vectors with this number of columns."""
    kernel: Floats = np.exp(-width / columns * distances)
    return kernel


def stratified_folds(
    labels: NDArray[np.int64], rng: np.random.Generator, groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """A fold, 0 to ``FOLDS`` − 1, for each image: int64 (N,); each class is shared equally, and no group is divided."""
    folds, order = np.empty(len(labels), dtype=np.int64), rng.permutation(len(labels))
    if groups is not None:
        from sklearn.model_selection import StratifiedGroupKFold  # imported here, since it takes a second

        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        for fold, (_, rows) in enumerate(splitter.split(labels, labels, groups)):
            folds[rows] = fold
        return folds
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def fit_temperature(scores: Floats, labels: NDArray[np.int64]) -> float:
    """The T with the smallest negative log-likelihood of softmax(scores / T) (Guo et al. 2017), from 0.01 to 10."""

    def loss(log_temperature: float) -> float:
        logs = scipy.special.log_softmax(scores / np.exp(log_temperature), axis=1)
        return float(-logs[np.arange(len(labels)), labels].mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=(np.log(0.01), np.log(10.0)), method="bounded")
    return float(np.exp(found.x))


def _nystroem(x: Floats, landmarks: Floats, width: float) -> tuple[Floats, Floats]:
    """Features (N, M) whose products are the approximated kernel, and the Cholesky factor L (M, M) that made them."""
    own = gaussian(squared_distances(landmarks, landmarks), width, x.shape[1])
    own[np.diag_indices_from(own)] += _JITTER
    factor: Floats = scipy.linalg.cholesky(own, lower=True)
    features = np.empty((len(x), len(landmarks)))
    for start in range(0, len(x), _ROWS):
        kernel = gaussian(squared_distances(x[start : start + _ROWS], landmarks), width, x.shape[1])
        features[start : start + _ROWS] = scipy.linalg.solve_triangular(factor, kernel.T, lower=True).T
    return features, factor


def _ridge(
    features: Floats, targets: Floats, folds: NDArray[np.int64], strengths: tuple[float, ...]
) -> tuple[float, float, Floats, Floats]:
    """Ridge regression without an intercept, with the best of several strengths.

    Returns:
        The mean squared error of the cross-validation, the strength, the coefficients (M, C) of a fit to all images,
        and the scores (N, C) of each image when its fold was held out.
    """
    parts = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    grams = [features[rows].T @ features[rows] for rows in parts]
    products = [features[rows].T @ targets[rows] for rows in parts]
    gram, product = sum(grams[1:], start=grams[0].copy()), sum(products[1:], start=products[0].copy())
    best: tuple[float, float, Floats] | None = None
    for strength in strengths:
        scores = np.empty_like(targets)
        for rows, own_gram, own_product in zip(parts, grams, products, strict=True):
            scores[rows] = features[rows] @ _solve(gram - own_gram, strength, product - own_product)
        error = float(np.square(scores - targets).mean())
        if best is None or error < best[0]:
            best = error, strength, scores
    assert best is not None
    error, strength, scores = best
    return error, strength, _solve(gram, strength, product), scores


def _solve(gram: Floats, strength: float, product: Floats) -> Floats:
    """(gram + strength · I)⁻¹ product."""
    gram = gram.copy()
    gram[np.diag_indices_from(gram)] += strength
    return np.asarray(scipy.linalg.solve(gram, product, assume_a="pos", overwrite_a=True, check_finite=False))


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (rows[start : start + _ROWS] for start in range(0, max(len(rows), 1), _ROWS))
