from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from deepfake_cls.models import statistics_classifier
from deepfake_cls.models.statistics_classifier import fit, fit_temperature, stratified_folds
from deepfake_cls.models.statistics_importance import importance, pair_accuracies


def problem(count: int, seed: int = 0, classes: int = 3, columns: int = 6) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Classes on circles of different radius in the first two columns, which no linear classifier separates."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    x = rng.standard_normal((count, columns)) * 0.3
    angles = rng.random(count) * 2 * np.pi
    x[:, :2] += (1 + 2 * labels[:, None]) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x[:, 2] = 7.0  # a constant column
    return (100 * x).astype(np.float32), labels.astype(np.int64)


def test_with_every_image_as_landmark_it_is_kernel_ridge_regression() -> None:
    kernel_ridge = pytest.importorskip("sklearn.kernel_ridge")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, labels = problem(60)
    q, _ = problem(30, seed=1)

    classifier = fit(x, labels, 3)

    scaler = preprocessing.StandardScaler().fit(x.astype(np.float64))
    train, test = (np.clip(scaler.transform(values), -5, 5) for values in (x, q))
    oracle = kernel_ridge.KernelRidge(alpha=classifier.strength, kernel="rbf", gamma=classifier.width / 6)
    expected = oracle.fit(train, np.eye(3)[labels] - 1 / 3).predict(test) + 1 / 3
    np.testing.assert_allclose(classifier.logits(q) * classifier.temperature, expected, atol=2e-3)


def test_a_linear_classifier_is_ridge_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = problem(60)
    q, _ = problem(30, seed=1)

    classifier = fit(x, labels, 3, kernel=False)

    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale[2] = 1
    oracle = linear_model.Ridge(alpha=classifier.strength, fit_intercept=False)
    oracle.fit((x - mean) / scale, np.eye(3)[labels] - 1 / 3)
    expected = oracle.predict((q - mean) / scale) + 1 / 3
    np.testing.assert_allclose(classifier.logits(q) * classifier.temperature, expected, atol=1e-5)


def test_strength_and_temperature_are_those_of_a_cross_validation() -> None:
    """Each fold is fitted anew by scikit-learn, instead of from the Gram matrix of all images."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, labels = problem(120)
    x, labels = x[30:], np.where(np.arange(90) < 50, 1, labels[30:])  # classes of unequal size
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    folds = stratified_folds(labels, np.random.default_rng(0))
    priors = np.bincount(labels) / 90
    targets = np.eye(3)[labels] - priors
    found = {}
    for strength in statistics_classifier.LINEAR_STRENGTHS:
        scores = np.empty_like(targets)
        for fold in range(3):
            ridge = linear_model.Ridge(alpha=strength, fit_intercept=False).fit(
                x[folds != fold], targets[folds != fold]
            )
            scores[folds == fold] = ridge.predict(x[folds == fold])
        found[float(np.square(scores - targets).mean())] = strength, fit_temperature(scores + priors, labels)

    classifier = fit(x, labels, 3, kernel=False)

    strength, temperature = found[min(found)]
    assert classifier.strength == strength
    assert classifier.temperature == pytest.approx(temperature, rel=1e-3)


def test_the_kernel_learns_what_is_not_linear() -> None:
    x, labels = problem(240)
    q, truth = problem(120, seed=1)
    accuracies = [
        float((fit(x, labels, 3, kernel=kernel).logits(q).argmax(axis=1) == truth).mean()) for kernel in (True, False)
    ]
    assert accuracies[0] > 0.65
    assert accuracies[1] < 0.5


def test_equal_seeds_give_equal_classifiers_and_fewer_landmarks_others() -> None:
    x, labels = problem(60)
    first, second = (fit(x, labels, 3, landmarks=20, seed=3).logits(x) for _ in range(2))
    assert np.array_equal(first, second)
    assert len(fit(x, labels, 3, landmarks=20).landmarks) == 20
    assert not np.array_equal(first, fit(x, labels, 3, landmarks=20, seed=4).logits(x))


def test_equal_images_as_landmarks() -> None:
    x, labels = problem(30)
    doubled, both = np.concatenate([x, x]), np.concatenate([labels, labels])
    assert np.isfinite(fit(doubled, both, 3).logits(x)).all()


def test_the_temperature_has_the_smallest_nll() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((500, 4))
    labels = np.array([rng.choice(4, p=np.exp(row)) for row in log_softmax(logits * 2.5, axis=1)])
    temperature = fit_temperature(logits, labels)

    def nll(value: float) -> float:
        return -float(log_softmax(logits / value, axis=1)[np.arange(500), labels].mean())

    assert nll(temperature) == pytest.approx(min(map(nll, np.linspace(0.1, 2, 2001))), abs=1e-6)


def test_folds_share_each_class_equally() -> None:
    labels = np.array([0] * 7 + [1] * 3 + [2] * 30)
    folds = stratified_folds(labels, np.random.default_rng(0))
    for label, count in ((0, 7), (1, 3), (2, 30)):
        counts = np.bincount(folds[labels == label], minlength=3)
        assert counts.sum() == count
        assert counts.max() - counts.min() <= 1


def test_pair_accuracies_count_the_images_of_two_classes() -> None:
    logits = np.array([[3, 1, 2], [1, 3, 9], [0, 5, 4], [1, 1, 0]], dtype=np.float32)
    assert pair_accuracies(logits, np.array([0, 1, 2, 1])) == [[0, 1, 2 / 3], [0, 2, 1.0], [1, 2, 1 / 3]]


def test_only_the_group_that_tells_the_classes_apart_is_important() -> None:
    rng = np.random.default_rng(0)

    def images(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        labels = (np.arange(count) % 2).astype(np.int64)
        x = rng.standard_normal((count, 90 + 90)).astype(np.float32)
        x[:, 100] += 6 * labels  # in the second group
        return x, labels

    train, held_out = images(200), images(100)
    groups = ["derivatives", "covariance"]
    classifier = fit(*train, 2, kernel=False)

    together, useless, useful = importance(classifier, groups, train, held_out)

    assert [row["group"] for row in (together, useless, useful)] == ["all", *groups]
    assert together["acc"] > 0.9
    assert useful["acc"] > 0.9
    assert useful["drop"] > 0.3
    assert abs(useless["acc"] - 0.5) < 0.2
    assert abs(useless["drop"]) < 0.1
    assert useful["pairs"] == [[0, 1, useful["acc"]]]


def test_the_cross_validation_divides_no_group() -> None:
    labels, groups = np.arange(60) % 3, np.arange(60) // 6
    folds = stratified_folds(labels, np.random.default_rng(0), groups)
    assert all(len({*folds[groups == group].tolist()}) == 1 for group in range(10))
    assert {*folds.tolist()} == {0, 1, 2}
    # Twins of one label among noise: within a group they agree, so a cross-validation by image chooses a weak penalty.
    rng = np.random.default_rng(1)
    twins = np.repeat(rng.standard_normal((60, 8)), 4, axis=0) + 0.01 * rng.standard_normal((240, 8))
    labels, groups = np.repeat(rng.integers(0, 3, 60), 4), np.repeat(np.arange(60), 4)
    grouped, single = fit(twins, labels, 3, groups=groups), fit(twins, labels, 3)
    assert grouped.temperature > single.temperature
