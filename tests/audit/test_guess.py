"""Balanced accuracy with its interval: against scikit-learn, and its errors under the null hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from deepfake_cls.audit import guess as module
from deepfake_cls.audit.guess import Sample, balanced_accuracy, draw_sample, guess


def test_the_value_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [40, 30, 20, 5])
    predicted = np.where(rng.random(95) < 0.5, labels, rng.integers(0, 4, 95))
    found = balanced_accuracy(labels, predicted, np.arange(95))
    assert found.value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found.low < found.value < found.high


def test_the_interval_contains_the_true_value() -> None:
    rng = np.random.default_rng(0)
    labels, recall = np.repeat(np.arange(3), [10, 30, 60]), np.array([0.9, 0.5, 0.4])
    inside = []
    for _ in range(500):
        hit = rng.random(100) < recall[labels]
        found = balanced_accuracy(labels, np.where(hit, labels, (labels + 1) % 3), np.arange(100))
        inside.append(found.low <= recall.mean() <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.99


def test_images_of_one_group_are_one_observation() -> None:
    labels, units = np.arange(200) % 2, np.arange(200) // 10
    hit = np.repeat(np.random.default_rng(0).random(20) < 0.5, 10)
    predicted = np.where(hit, labels, 1 - labels)
    alone = balanced_accuracy(labels, predicted, np.arange(200))
    grouped = balanced_accuracy(labels, predicted, units)
    # The variance of a mean over 20 groups of equal images is ten times that over 200 images.
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(10), rel=0.12)


def test_a_sample_keeps_the_shares_of_the_classes() -> None:
    labels = np.array([0] * 600 + [1] * 60 + [2] + [-1] * 50)
    sample = draw_sample(labels, np.arange(711), 0, most=110)
    assert np.bincount(sample.labels).tolist() == [99, 10]  # class 2 has one image: it is omitted
    assert (labels[sample.rows] == sample.labels).all()
    assert (sample.classes, sample.chance, sample.grouped, sample.testable) == (2, 0.5, False, True)
    assert draw_sample(labels, np.arange(711), 0).rows.tolist() == list(range(660))
    assert draw_sample(labels, np.arange(711), 1, most=110).rows.tolist() != sample.rows.tolist()
    assert not draw_sample(np.array([0, 0, 1]), np.arange(3), 0).testable
    assert not draw_sample(np.array([0, 1, 0, 1]), np.zeros(4, np.int64), 0).testable


def test_a_feature_of_the_class_is_found() -> None:
    sample = Sample(np.arange(90), np.arange(90) % 3, np.arange(90), 3)
    found = guess(sample.labels[:, None].astype(float), sample, 0, 1)
    assert (found.value, found.high) == (1, 1)
    assert found.low > 0.95


def test_images_of_one_group_are_in_one_fold() -> None:
    """The feature names the group, and the label of a group is random: only the same group could tell."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(60), 5)
    labels = np.repeat(rng.permutation(np.arange(60) % 3), 5)
    features = np.repeat(rng.normal(size=(60, 1)), 5, axis=0)
    grouped = guess(features, Sample(np.arange(300), labels, units, 3), 0, 1)
    apart = guess(features, Sample(np.arange(300), labels, np.arange(300), 3), 0, 1)
    assert apart.value == 1
    assert grouped.low < 1 / 3 < grouped.high


def test_permuted_labels_are_rarely_more_than_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TREES", 8)
    rng = np.random.default_rng(0)
    features = np.stack([rng.integers(0, 3, 120), rng.normal(size=120)], axis=1)
    above = 0
    for seed in range(20):
        sample = Sample(np.arange(120), rng.permutation(np.arange(120) % 4), np.arange(120), 4)
        above += guess(features, sample, seed, 1).low > 0.25
    assert above <= 2
