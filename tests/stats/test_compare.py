from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from deepfake_cls.stats.compare import crossed, difference, difference_folds, difference_of_metrics, mean_squares
from tests.stats.simulation import Noise

TYPICAL = Noise(1250, gap=0.01)
NO_SEEDS = Noise(1250, gap=0.01, seed_sd=0)
NO_INTERACTION = Noise(1250, gap=0.01, interaction=0)
NEITHER = Noise(1250, gap=0.01, seed_sd=0, interaction=0)
STRONG_INTERACTION = Noise(1250, accuracy=0.75, gap=0.02, seed_sd=0.003, interaction=3)
RARE = Noise(2500, accuracy=0.93, gap=0.01, seed_sd=0.003, difficulty=8)


def arms(noise: Noise, seeds: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Correctness of both arms; where both are correct, both are set to wrong, which changes no difference."""
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
def test_coverage_equals_the_confidence_level(noise: Noise, seeds: int) -> None:
    # The weighted critical value gives at most 97.1 % at 3 seeds; 0.01 is at least two standard errors.
    assert 0.94 <= coverage(noise, seeds) <= (0.98 if seeds == 3 else 0.97)


@pytest.mark.parametrize(("seeds", "least", "most"), [(2, 0.93, 0.985), (3, 0.945, 0.98), (10, 0.945, 0.975)])
def test_coverage_where_neither_seeds_nor_images_matter(seeds: int, least: float, most: float) -> None:
    assert least <= coverage(NEITHER, seeds) <= most


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_arms_are_significant_in_5_percent(seeds: int) -> None:
    rng, noise = np.random.default_rng(seeds), Noise(1250, seed_sd=0.015)
    significant = []
    for _ in range(20):
        estimate, half = crossed(noise.draw(seeds, 50, rng))
        significant.append(np.abs(estimate) > half)
    assert 0.03 <= np.mean(significant) <= 0.07


def test_equal_folds_are_significant_in_5_percent() -> None:
    rng, p = np.random.default_rng(1), []
    for _ in range(1000):
        folds = Noise(250, seed_sd=0.015).draw(1, 5, rng)[:, 0]
        p.append(difference_folds([(d > 0, d < 0) for d in folds]).p)
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_a_detectable_difference_is_found_with_80_percent_power() -> None:
    noise = Noise(1250, seed_sd=0.01)
    rng = np.random.default_rng(0)
    detectable = [difference(d > 0, d < 0).detectable for d in noise.draw(10, 100, rng)]
    noise = Noise(1250, gap=float(np.median(detectable)), seed_sd=0.01)
    estimate, half = crossed(noise.draw(10, 400, rng))
    assert 0.7 <= (estimate > half).mean() <= 0.88


def test_mean_squares_against_their_definition() -> None:
    d = Noise(60, seed_sd=0.05).draw(4, 3, np.random.default_rng(0))
    for one, *squares in zip(d.astype(float), *mean_squares(d), strict=True):
        rows, columns = one.mean(axis=1, keepdims=True), one.mean(axis=0, keepdims=True)
        residual = one - rows - columns + one.mean()
        expected = [60 * rows.var(ddof=1), 4 * columns.var(ddof=1), (residual**2).sum() / (3 * 59)]
        assert squares == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_against_its_formula(confidence: float) -> None:
    a, b = arms(TYPICAL, 4, 1)
    d = a.astype(float) - b
    residual = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
    ms_residual = (residual**2).sum() / (3 * 1249)
    v1, v2 = d.mean(axis=1).var(ddof=1) / 4, d.mean(axis=0).var(ddof=1) / 1250 - ms_residual / 5000
    quantiles = [stats.t.isf((1 - confidence) / 2, df) for df in (3, 1249)]
    half = (v1 * quantiles[0] + v2 * quantiles[1]) / np.sqrt(v1 + v2)
    result = difference(a, b, confidence)
    assert result.estimate == pytest.approx(d.mean())
    assert result.low == pytest.approx(d.mean() - half)
    assert result.high == pytest.approx(d.mean() + half)
    assert result.standard_error == pytest.approx(np.sqrt(v1 + v2))
    assert stats.t.isf((1 - confidence) / 2, result.df) * result.standard_error == pytest.approx(half, rel=1e-4)
    assert 3 < result.df < 1249
    shares = result.shares
    variance = result.components.of_mean(4, 1250)
    assert variance.total == pytest.approx(result.standard_error**2)
    assert shares.total == pytest.approx(1)
    assert shares.image == pytest.approx(v2 / (v1 + v2))
    assert shares.seed * variance.total + ms_residual / 5000 == pytest.approx(v1)


def test_without_an_image_component_it_equals_the_paired_t_test() -> None:
    a, b = arms(NO_INTERACTION, 5, 4)
    result = difference(a, b)
    assert result.components.image == 0  # by chance of the random seed; this case is tested here
    oracle = stats.ttest_rel(a.mean(axis=1), b.mean(axis=1))
    assert (result.low, result.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert result.p == pytest.approx(oracle.pvalue)
    assert result.df == 4


def test_folds_equal_the_paired_t_test() -> None:
    pairs = [tuple(side[0] for side in arms(Noise(100 + 10 * s, seed_sd=0.05), 1, s)) for s in range(5)]
    result = difference_folds([(a, b) for a, b in pairs])
    oracle = stats.ttest_rel([a.mean() for a, _ in pairs], [b.mean() for _, b in pairs])
    assert (result.low, result.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert result.p == pytest.approx(oracle.pvalue)
    assert (result.df, result.seeds, result.images) == (4, 5, 120)
    assert result.components.of_mean(5, 120).total == pytest.approx(result.standard_error**2)


@pytest.mark.parametrize("noise", [TYPICAL, NO_SEEDS, NO_INTERACTION, Noise(500, accuracy=0.6, gap=0.2)])
@pytest.mark.parametrize("seeds", [1, 2, 3, 10])
def test_the_p_value_agrees_with_the_interval(noise: Noise, seeds: int) -> None:
    a, b = arms(noise, seeds, 2)
    p = difference(a, b).p
    at_p = difference(a, b, 1 - p)
    if p > 1e-12:
        assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-6)
    else:
        assert at_p.estimate > 0.1


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_a_claim_is_rejected_exactly_where_it_is_outside_the_interval(seeds: int) -> None:
    result = difference(*arms(TYPICAL, seeds, 2))
    assert result.p_of(0) == result.p
    assert result.p_of(result.estimate) == 1
    for end, inward in ((result.low, 1e-6), (result.high, -1e-6)):
        assert result.p_of(end - inward) < 0.05 < result.p_of(end + inward)
    assert result.p_of(-1, result.low) == result.p_of(result.low)  # the nearest value of a range
    assert result.p_of(result.low, np.inf) == result.p_of(-1, 1) == 1
    assert result.p_of(-np.inf, result.low) == pytest.approx(0.05, abs=1e-6)


def test_p_of_a_claim_equals_the_paired_t_test() -> None:
    a, b = arms(NO_INTERACTION, 5, 4)
    shifted = stats.ttest_1samp(a.mean(axis=1) - b.mean(axis=1), 0.02)
    assert difference(a, b).p_of(0.02) == pytest.approx(shifted.pvalue)


def test_metrics_equal_the_paired_t_test() -> None:
    a, b = [0.1, 0.15, 0.13], [0.07, 0.06, 0.11]
    result, oracle = difference_of_metrics(a, b, 1250), stats.ttest_rel(a, b)
    assert result.estimate == pytest.approx(0.14 / 3)
    assert (result.low, result.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert result.p == pytest.approx(oracle.pvalue)
    assert (result.df, result.seeds, result.shares.seed) == (2, 3, 1)
    assert difference_of_metrics(b, b, 1250).high > 0
    for arms_of_a in ([], [0.1], [0.1, 0.2]):
        with pytest.raises(ValueError, match="at least two"):
            difference_of_metrics(arms_of_a, b[:1], 1250)


def test_swapping_the_arms_changes_the_sign() -> None:
    a, b = arms(TYPICAL, 3, 3)
    one, other = difference(a, b), difference(b, a)
    assert (one.low, one.high, one.p) == pytest.approx((-other.high, -other.low, other.p))


@pytest.mark.parametrize("noise", [TYPICAL, NO_SEEDS, RARE])
def test_detectable_against_the_noncentral_t(noise: Noise) -> None:
    result = difference(*arms(noise, 3, 4))
    limit = stats.t.isf(0.025, result.df)
    assert stats.nct.sf(limit, result.df, result.detectable / result.standard_error) == pytest.approx(0.8, abs=1e-3)


def test_the_interval_of_one_seed_covers_images_only() -> None:
    a, b = arms(TYPICAL, 1, 0)
    result = difference(a, b)
    oracle = stats.ttest_1samp(a[0].astype(float) - b[0], 0)
    assert (result.low, result.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert result.p == pytest.approx(oracle.pvalue)
    assert result.seeds_ignored
    assert difference_folds([(a[0], b[0])]) == result
    assert not difference(*arms(TYPICAL, 2, 0)).seeds_ignored


@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_predictions_have_an_interval_of_positive_width(seeds: int) -> None:
    a = np.ones((seeds, 1000), dtype=bool)
    result = difference(a, a)
    assert (result.estimate, result.p) == (0, 1)
    assert result.high == -result.low == pytest.approx(1.96 / 1000, rel=0.01)
    assert result.shares.total == 0


def test_seeds_that_agree_by_chance_do_not_give_a_narrow_interval() -> None:
    a, b = np.zeros((3, 1000), dtype=bool), np.zeros((3, 1000), dtype=bool)
    for s in range(3):  # each seed on other images: seeds agree exactly, and images seem not to matter
        a[s, 100 * s : 100 * s + 30] = b[s, 100 * s + 50 : 100 * s + 70] = True
    result = difference(a, b)
    images_alone = stats.t.isf(0.025, 999) * (a.astype(float) - b).mean(axis=0).std(ddof=1) / np.sqrt(1000)
    assert result.high - result.estimate == pytest.approx(images_alone / np.sqrt(2))
    folds = difference_folds([(a[s], b[s]) for s in range(3)])
    assert folds.high - folds.estimate > 0.003


def test_invalid_input_is_refused() -> None:
    right = np.ones((3, 10), dtype=bool)
    with pytest.raises(ValueError, match=r"differ in shape: \(3, 10\) and \(2, 10\)"):
        difference(right, right[:2])
    with pytest.raises(ValueError, match=r"S ≥ 1 and N ≥ 2, not \(0, 10\)"):
        difference(right[:0], right[:0])
    with pytest.raises(ValueError, match=r"not \(10,\)"):
        difference(right[0], right[0])
    with pytest.raises(ValueError, match=r"N ≥ 2, not \(3, 1\)"):
        difference(right[:, :1], right[:, :1])
    with pytest.raises(ValueError, match="boolean arrays, not float64"):
        difference(right.astype(float), right)
    with pytest.raises(ValueError, match="at least one fold"):
        difference_folds([])
    with pytest.raises(ValueError, match=r"differ in shape: \(10,\) and \(9,\)"):
        difference_folds([(right[0], right[0, 1:])])
    with pytest.raises(ValueError, match=r"not \(1,\)"):
        difference_folds([(right[0, :1], right[0, :1])])
