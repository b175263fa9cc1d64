from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from deepfake_cls.stats.compare import (
    crossed,
    difference,
    difference_folds,
    holm,
    mcnemar,
    mean_squares,
    probability_better,
)
from tests.stats.simulation import Noise

TYPICAL = Noise(1250, gap=0.01)
NO_SEEDS = Noise(1250, gap=0.01, seed_sd=0)
NO_INTERACTION = Noise(1250, gap=0.01, interaction=0)
NEITHER = Noise(1250, gap=0.01, seed_sd=0, interaction=0)
STRONG_INTERACTION = Noise(1250, accuracy=0.75, gap=0.02, seed_sd=0.003, interaction=3)
RARE = Noise(2500, accuracy=0.93, gap=0.01, seed_sd=0.003, difficulty=8)


def arms(noise: Noise, seeds: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Correctness of both arms; an image that both get right or both wrong counts the same here."""
    d = noise.draw(seeds, 1, np.random.default_rng(seed))[0]
    return d > 0, d < 0


def coverage(noise: Noise, seeds: int) -> float:
    rng, inside, runs = np.random.default_rng(seeds), 0, 9000 // seeds
    for _ in range(runs // 50):
        estimate, half = crossed(noise.draw(seeds, 50, rng))
        inside += int((np.abs(estimate - noise.gap) < half).sum())
    return inside / runs


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("noise", [TYPICAL, NO_SEEDS, NO_INTERACTION, STRONG_INTERACTION, RARE])
def test_the_interval_covers_as_often_as_it_says(noise: Noise, seeds: int) -> None:
    # 97.1 % is the most that the weighted critical value gives at 3 seeds; 0.01 is two standard errors or more
    assert 0.94 <= coverage(noise, seeds) <= (0.98 if seeds == 3 else 0.97)


@pytest.mark.parametrize(("seeds", "least", "most"), [(2, 0.93, 0.985), (3, 0.945, 0.98), (10, 0.945, 0.975)])
def test_nor_do_the_floors_widen_it_much_where_neither_seeds_nor_images_matter(
    seeds: int, least: float, most: float
) -> None:
    assert least <= coverage(NEITHER, seeds) <= most


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_arms_that_do_not_differ_are_told_apart_one_time_in_twenty(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    noise = Noise(1250, seed_sd=0.015)
    p = [difference(d > 0, d < 0).p for _ in range(20) for d in noise.draw(seeds, 50, rng)]
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_folds_that_do_not_differ_are_told_apart_one_time_in_twenty() -> None:
    rng, p = np.random.default_rng(1), []
    for _ in range(1000):
        folds = Noise(250, seed_sd=0.015).draw(1, 5, rng)[:, 0]
        p.append(difference_folds([(d > 0, d < 0) for d in folds]).p)
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    noise = Noise(1250, seed_sd=0.01)
    rng = np.random.default_rng(0)
    found = [difference(d > 0, d < 0).detectable for d in noise.draw(10, 100, rng)]
    there = Noise(1250, gap=float(np.median(found)), seed_sd=0.01)
    estimate, half = crossed(there.draw(10, 400, rng))
    assert 0.7 <= (estimate > half).mean() <= 0.88


def test_mean_squares_against_their_definition() -> None:
    d = Noise(60, seed_sd=0.05).draw(4, 3, np.random.default_rng(0))
    of_seeds, of_images, rest = mean_squares(d)
    for one, *found in zip(d.astype(float), of_seeds, of_images, rest, strict=True):
        rows, columns = one.mean(axis=1, keepdims=True), one.mean(axis=0, keepdims=True)
        left = one - rows - columns + one.mean()
        wanted = [60 * rows.var(ddof=1), 4 * columns.var(ddof=1), (left**2).sum() / (3 * 59)]
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_by_hand(confidence: float) -> None:
    a, b = arms(TYPICAL, 4, 1)
    d = a.astype(float) - b
    left = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
    rest = (left**2).sum() / (3 * 1249)
    v1, v2 = d.mean(axis=1).var(ddof=1) / 4, d.mean(axis=0).var(ddof=1) / 1250 - rest / 5000
    quantiles = [stats.t.isf((1 - confidence) / 2, df) for df in (3, 1249)]
    half = (v1 * quantiles[0] + v2 * quantiles[1]) / np.sqrt(v1 + v2)
    found = difference(a, b, confidence)
    assert found.estimate == pytest.approx(d.mean())
    assert found.low == pytest.approx(d.mean() - half)
    assert found.high == pytest.approx(d.mean() + half)
    assert found.standard_error == pytest.approx(np.sqrt(v1 + v2))
    assert stats.t.isf((1 - confidence) / 2, found.df) * found.standard_error == pytest.approx(half, rel=1e-4)
    assert 3 < found.df < 1249
    shares = found.shares
    variance = found.components.of_mean(4, 1250)
    assert variance.total == pytest.approx(found.standard_error**2)
    assert shares.total == pytest.approx(1)
    assert shares.image == pytest.approx(v2 / (v1 + v2))
    assert shares.seed * variance.total + rest / 5000 == pytest.approx(v1)


def test_without_an_image_component_it_is_the_paired_t_test() -> None:
    a, b = arms(NO_INTERACTION, 5, 4)
    found = difference(a, b)
    assert found.components.image == 0  # so by chance of the generator's seed; the rest is for this case
    oracle = stats.ttest_rel(a.mean(axis=1), b.mean(axis=1))
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert found.p == pytest.approx(oracle.pvalue)
    assert found.df == 4


def test_folds_are_the_paired_t_test() -> None:
    pairs = [tuple(side[0] for side in arms(Noise(100 + 10 * s, seed_sd=0.05), 1, s)) for s in range(5)]
    found = difference_folds([(a, b) for a, b in pairs])
    oracle = stats.ttest_rel([a.mean() for a, _ in pairs], [b.mean() for _, b in pairs])
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.df, found.seeds, found.images) == (4, 5, 120)
    assert found.components.of_mean(5, 120).total == pytest.approx(found.standard_error**2)


@pytest.mark.parametrize("noise", [TYPICAL, NO_SEEDS, NO_INTERACTION, Noise(500, accuracy=0.6, gap=0.2)])
@pytest.mark.parametrize("seeds", [1, 2, 3, 10])
def test_p_and_the_interval_say_the_same(noise: Noise, seeds: int) -> None:
    a, b = arms(noise, seeds, 2)
    p = difference(a, b).p
    at = difference(a, b, 1 - p)
    if p > 1e-12:
        assert min(abs(at.low), abs(at.high)) == pytest.approx(0, abs=1e-6)
    else:
        assert at.estimate > 0.1


def test_swapping_the_arms_turns_the_sign() -> None:
    a, b = arms(TYPICAL, 3, 3)
    one, other = difference(a, b), difference(b, a)
    assert (one.low, one.high, one.p) == pytest.approx((-other.high, -other.low, other.p))


@pytest.mark.parametrize("noise", [TYPICAL, NO_SEEDS, RARE])
def test_detectable_against_the_noncentral_t(noise: Noise) -> None:
    found = difference(*arms(noise, 3, 4))
    limit = stats.t.isf(0.025, found.df)
    assert stats.nct.sf(limit, found.df, found.detectable / found.standard_error) == pytest.approx(0.8, abs=1e-3)


def test_one_seed_speaks_of_images_alone() -> None:
    a, b = arms(TYPICAL, 1, 0)
    found = difference(a, b)
    oracle = stats.ttest_1samp(a[0].astype(float) - b[0], 0)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert found.p == pytest.approx(oracle.pvalue)
    assert found.seeds_ignored
    assert difference_folds([(a[0], b[0])]) == found
    assert not difference(*arms(TYPICAL, 2, 0)).seeds_ignored


@pytest.mark.parametrize("seeds", [1, 3])
def test_arms_that_never_disagree_are_not_known_to_be_equal(seeds: int) -> None:
    a = np.ones((seeds, 1000), dtype=bool)
    found = difference(a, a)
    assert (found.estimate, found.p) == (0, 1)
    assert found.high == -found.low == pytest.approx(1.96 / 1000, rel=0.01)
    assert found.shares.total == 0


def test_seeds_that_agree_by_luck_do_not_make_a_narrow_interval() -> None:
    a, b = np.zeros((3, 1000), dtype=bool), np.zeros((3, 1000), dtype=bool)
    for s in range(3):  # on other images each, so that seeds agree exactly and images seem not to matter
        a[s, 100 * s : 100 * s + 30] = b[s, 100 * s + 50 : 100 * s + 70] = True
    found = difference(a, b)
    images_alone = stats.t.isf(0.025, 999) * (a.astype(float) - b).mean(axis=0).std(ddof=1) / np.sqrt(1000)
    assert found.high - found.estimate == pytest.approx(images_alone / np.sqrt(2))
    folds = difference_folds([(a[s], b[s]) for s in range(3)])
    assert folds.high - folds.estimate > 0.003


def test_bad_input_is_named() -> None:
    right = np.ones((3, 10), dtype=bool)
    with pytest.raises(ValueError, match=r"differ in shape: \(3, 10\) and \(2, 10\)"):
        difference(right, right[:2])
    with pytest.raises(ValueError, match=r"one seed or more .* not \(0, 10\)"):
        difference(right[:0], right[:0])
    with pytest.raises(ValueError, match=r"not \(10,\)"):
        difference(right[0], right[0])
    with pytest.raises(ValueError, match=r"two images or more, not \(3, 1\)"):
        difference(right[:, :1], right[:, :1])
    with pytest.raises(ValueError, match="boolean, not float64"):
        difference(right.astype(float), right)
    with pytest.raises(ValueError, match="at least one fold"):
        difference_folds([])
    with pytest.raises(ValueError, match=r"differ in shape: \(10,\) and \(9,\)"):
        difference_folds([(right[0], right[0, 1:])])
    with pytest.raises(ValueError, match=r"not \(1,\)"):
        difference_folds([(right[0, :1], right[0, :1])])


def test_holm_by_hand() -> None:
    # smallest first: 4 × 0.005, 3 × 0.01, 2 × 0.03, then 0.04, which may not fall below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_keeps_the_order_and_rejects_what_the_steps_of_the_paper_reject() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = np.round(rng.uniform(0, 0.1, 6), 3)
        adjusted = np.array(holm(list(p)))
        order = np.argsort(p, kind="stable")
        assert (np.diff(adjusted[order]) >= 0).all()
        rejected = np.zeros(6, dtype=bool)
        for step, index in enumerate(order):
            if p[index] * (6 - step) >= 0.05:
                break
            rejected[index] = True
        assert ((adjusted < 0.05) == rejected).all()


@pytest.mark.parametrize("p", [[-0.1], [1.1], [0.5, float("nan")]])
def test_what_is_no_p_value_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (12, 3), (3, 12), (60, 90)])
def test_mcnemar_against_scipy(only_a: int, only_b: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True] * 10 + [False] * 10)
    b = np.array([False] * only_a + [True] * only_b + [True] * 10 + [False] * 10)
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    oracle = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.p == pytest.approx(oracle)


def test_mcnemar_refuses_what_is_not_paired() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        mcnemar(np.ones(3, dtype=bool), np.ones(4, dtype=bool))


def test_ties_count_half() -> None:
    assert probability_better([0.9, 0.8, 0.7, 0.6], [0.8, 0.8, 0.9, 0.5]) == 0.625
    with pytest.raises(ValueError, match="2 and 1"):
        probability_better([0.9, 0.8], [0.8])
    with pytest.raises(ValueError, match="0 and 0"):
        probability_better([], [])
