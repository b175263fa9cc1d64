"""Intervals where images of one group are not independent: the group is the unit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from deepfake_cls.stats.compare import difference, difference_folds
from deepfake_cls.stats.groups import effective_count
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.stats.verdict import judge
from tests.stats.simulation import Noise


def drawn(
    rng: np.random.Generator, groups: int, share: float, correlation: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Correct predictions, beta-binomial within groups of 1 to 19 images, and their groups."""
    total = 1 / correlation - 1
    by_group = rng.beta(share * total, (1 - share) * total, groups)
    names = np.repeat(np.arange(groups, dtype=np.int64), rng.integers(1, 20, groups))
    return rng.random(len(names)) < by_group[names], names


@pytest.mark.parametrize(("groups", "share", "correlation"), [(135, 0.88, 0.3), (25, 0.7, 0.3), (60, 0.95, 0.1)])
def test_the_interval_of_an_accuracy_covers(groups: int, share: float, correlation: float) -> None:
    rng, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(600):
        correct, names = drawn(rng, groups, share, correlation)
        count = effective_count(correct, names)
        low, high = wilson(correct.mean() * count, count)
        covered += low <= share <= high
        low, high = wilson(correct.sum(), len(correct))
        naive += low <= share <= high
    assert 0.92 <= covered / 600 <= 0.98  # the standard error is 0.9 points
    assert naive / 600 < 0.85


def test_the_effective_number_of_images() -> None:
    # Groups of equal images are worth one image each, apart from the t distribution of the few groups.
    groups = np.repeat(np.arange(40), 5)
    one_each = np.arange(40) % 4 > 0
    few = (stats.norm.isf(0.025) / stats.t.isf(0.025, 39)) ** 2
    expected = 40 * few * (39 / 40)  # the sample variance has the divisor G − 1
    assert effective_count(np.repeat(one_each, 5), groups) == pytest.approx(expected)
    assert effective_count(np.ones(200, bool), groups) == pytest.approx(40 * few)
    # The errors of independent images are spread over the groups, so the images keep their number.
    spread = np.arange(200) % 5 > 0
    assert effective_count(spread, groups) == pytest.approx(200 * few)
    assert effective_count(spread, np.arange(200)) == 200
    assert effective_count(spread, np.zeros(200, int)) == 1


def test_the_design_effect_against_a_linear_model_with_clusters() -> None:
    correct, groups = drawn(np.random.default_rng(3), 50, 0.8, 0.3)
    share = correct.mean()
    score = np.array([sum(correct[groups == g] - share) for g in range(50)])  # sandwich estimator of a mean
    variance = 50 / 49 * score @ score / len(correct) ** 2
    few = (stats.norm.isf(0.025) / stats.t.isf(0.025, 49)) ** 2
    assert effective_count(correct, groups) == pytest.approx(share * (1 - share) / variance * few)


def test_copies_of_an_image_count_as_one_image() -> None:
    d = Noise(images=80, seed_sd=0.001).draw(10, 1, np.random.default_rng(1))[0]
    groups = np.repeat(np.arange(80), 4)
    plain = difference(d > 0, d < 0)
    copied = difference(np.repeat(d > 0, 4, axis=1), np.repeat(d < 0, 4, axis=1), groups=groups)
    assert (copied.images, copied.groups, copied.units, plain.units) == (320, 80, 80, 80)
    for name in ("estimate", "low", "high", "p", "df", "detectable"):
        assert getattr(copied, name) == pytest.approx(getattr(plain, name)), name
    ignored = difference(np.repeat(d > 0, 4, axis=1), np.repeat(d < 0, 4, axis=1))
    assert ignored.high - ignored.low < 0.9 * (plain.high - plain.low)
    pairs = [(each > 0, each < 0) for each in d]
    repeated = [(np.repeat(a, 4), np.repeat(b, 4)) for a, b in pairs]
    folds, of_copies = difference_folds(pairs), difference_folds(repeated, groups=[groups] * len(pairs))
    assert (of_copies.low, of_copies.high, of_copies.p) == pytest.approx((folds.low, folds.high, folds.p))
    assert (of_copies.images, of_copies.groups) == (320, 80)
    # Four times as many images of as many groups are needed.
    needed, of_groups = judge(plain), judge(copied)
    assert needed.word == of_groups.word == "inconclusive"
    assert of_groups.seeds_needed == needed.seeds_needed
    if needed.images_needed is not None:
        assert of_groups.images_needed == pytest.approx(4 * needed.images_needed, rel=0.02)


def test_one_group_is_refused() -> None:
    right = np.ones((3, 10), bool)
    with pytest.raises(ValueError, match="2 or more groups"):
        difference(right, right, groups=np.zeros(10, np.int64))


def test_the_interval_of_a_difference_covers() -> None:
    rng = np.random.default_rng(0)
    covered, naive = 0, 0
    for _ in range(300):
        names = np.repeat(np.arange(40), rng.integers(1, 12, 40))
        # Both arms have an accuracy of 0.5 on average. What distinguishes them is shared by the images of a group.
        effect = rng.normal(0, 1.5, 40)[names] + rng.normal(0, 1, (8, len(names)))
        other = rng.normal(0, 1.8, (8, len(names)))
        a, b = effect > 0, other > 0
        for groups in (names, None):
            found = difference(a, b, groups=groups)
            hit = found.low <= 0 <= found.high
            covered += hit and groups is not None
            naive += hit and groups is None
    assert covered / 300 >= 0.92
    assert naive / 300 < 0.85


def test_groups_of_unequal_size_have_the_variance_of_a_ratio() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), rng.integers(1, 30, 30))
    a, b = rng.random((1, len(groups))) < 0.9, rng.random((1, len(groups))) < 0.5
    found = difference(a, b, groups=groups)
    d = a[0].astype(int) - b[0]
    residuals = np.array([(d[groups == group] - d.mean()).sum() for group in range(30)])
    assert found.estimate == pytest.approx(d.mean())
    assert found.standard_error == pytest.approx(np.sqrt(30 / 29 * (residuals**2).sum()) / len(groups))
    assert found.high - found.estimate == pytest.approx(stats.t.isf(0.025, 29) * found.standard_error)
