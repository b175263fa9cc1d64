from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from deepfake_cls.stats.compare import Components, Difference, Spread, difference, difference_folds
from deepfake_cls.stats.verdict import Claim, holm, judge, judge_claim, points
from tests.stats.simulation import Noise

NOTHING = Components(0, 0, 0)


def make_difference(low: float, high: float, p: float, components: Components = NOTHING, seeds: int = 3) -> Difference:
    middle = (low + high) / 2
    error = (high - low) / 2 / stats.t.isf(0.025, 5)
    spread = Spread(error**2, 0, 0, 5, 5)
    return Difference(middle, low, high, 0.95, p, error, 5.0, seeds, 1250, components, NOTHING, 0.01, spread=spread)


@pytest.mark.parametrize(
    ("low", "high", "p", "word"),
    [
        (0.002, 0.03, 0.03, "better"),
        (-0.03, -0.002, 0.03, "worse"),
        (0.0, 0.03, 0.0499, "inconclusive"),  # touching 0 does not exclude it
        (-0.03, 0.0, 0.0499, "inconclusive"),
        (-0.009, 0.009, 1.0, "equivalent"),
        (-0.01, 0.009, 0.9, "inconclusive"),  # touching the margin is not within it
        (-0.009, 0.01, 0.9, "inconclusive"),
        (0.002, 0.01, 0.01, "better"),
        (0.002, 0.009, 0.01, "equivalent"),  # both rules hold: the margin decides
        (-0.009, -0.002, 0.01, "equivalent"),
    ],
)
def test_the_rules_at_their_limits(low: float, high: float, p: float, word: str) -> None:
    assert judge(make_difference(low, high, p)).word == word


def test_the_adjusted_p_value_decides() -> None:
    d = make_difference(0.002, 0.03, 0.03, Components(1e-4, 0.01, 0.05))
    assert judge(d, 0.0499).word == "better"
    assert judge(d, 0.05).word == "inconclusive"
    assert "after correction (adjusted p = 0.06)" in judge(d, 0.06).sentence
    few, many = judge(d, 0.06).seeds_needed, judge(d, 0.3).seeds_needed
    assert few is not None
    assert many is not None
    assert few < many


def test_a_small_significant_gain_is_mentioned() -> None:
    assert judge(make_difference(0.002, 0.009, 0.01)).sentence.endswith(
        "; a significant gain, but smaller than the margin"
    )
    assert judge(make_difference(-0.009, -0.002, 0.01)).sentence.endswith(
        "; a significant loss, but smaller than the margin"
    )
    assert judge(make_difference(-0.009, 0.007, 0.9)).sentence.startswith(
        "equivalent within 1.0 points: −0.1 points (−0.9 to +0.7)"
    )


def test_the_margin_can_be_chosen() -> None:
    d = make_difference(-0.009, 0.009, 1.0, Components(1e-5, 0, 0))
    assert judge(d, margin=0.02).word == "equivalent"
    assert judge(d, margin=0.005).word == "inconclusive"


def test_one_seed_is_inconclusive() -> None:
    d = replace(make_difference(0.2, 0.3, 1e-9), seeds=1, seeds_ignored=True)
    assert judge(d).word == "inconclusive"
    assert judge(d).sentence.endswith("the interval covers images only, since n = 1 seed")
    assert judge(replace(d, low=-0.001, high=0.001)).word == "inconclusive"


def half_width(components: Components, seeds: int, images: int) -> float:
    seed = components.seed / seeds + components.residual / seeds / images
    image = components.image / images
    t, z = stats.t.isf(0.025, seeds - 1), stats.t.isf(0.025, images - 1)
    return float((seed * t + image * z) / np.sqrt(seed + image))


def test_seeds_needed() -> None:
    components = Components(1e-4, 0.005, 0.02)
    verdict = judge(make_difference(-0.019, 0.011, 0.5, components))
    needed = verdict.seeds_needed
    assert needed is not None
    # −0.4 points are 0.6 points from the margin, so a half-width below 0.6 gives "equivalent".
    assert half_width(components, needed, 1250) < 0.006 <= half_width(components, needed - 1, 1250)
    assert verdict.sentence == f"inconclusive: −0.4 points (−1.9 to +1.1); about {needed} seeds would decide it"


def test_images_needed_where_seeds_do_not_help() -> None:
    components = Components(2e-6, 0.05, 0.05)
    verdict = judge(make_difference(-0.02, 0.012, 0.5, components))
    assert verdict.seeds_needed is None
    assert verdict.seeds_floor == pytest.approx(1.96 * np.sqrt(0.05 / 1250), rel=1e-3)
    assert "more seeds cannot decide it (image noise alone is ±1.2 points); about" in verdict.sentence
    needed = verdict.images_needed
    assert needed is not None
    assert half_width(components, 3, needed) < 0.006 <= half_width(components, 3, needed - 1)


def test_more_seeds_and_images_needed() -> None:
    verdict = judge(make_difference(-0.03, 0.025, 0.9, Components(2e-4, 0.05, 0.05)))
    assert (verdict.seeds_needed, verdict.images_needed) == (None, None)
    assert verdict.images_floor == pytest.approx(4.3027 * np.sqrt(2e-4 / 3), rel=1e-3)
    assert "it needs more seeds and more images (image noise alone is ±1.2 points" in verdict.sentence


def test_few_images_without_disagreement_need_more_images() -> None:
    right = np.ones((3, 100), dtype=bool)
    verdict = judge(difference(right, right))
    assert verdict.seeds_needed is None
    assert verdict.seeds_floor == pytest.approx(0.01984, rel=1e-3)  # t(99) of one image in 100
    assert verdict.images_needed == 198


def test_more_folds_always_decide() -> None:
    rng = np.random.default_rng(0)
    folds = Noise(500, gap=0.01, seed_sd=0.01).draw(1, 3, rng)[:, 0]
    verdict = judge(difference_folds([(d > 0, d < 0) for d in folds]))
    assert verdict.word == "inconclusive"
    assert verdict.seeds_needed is not None


@pytest.mark.parametrize(("gap", "word"), [(0.06, "better"), (-0.06, "worse"), (0.0, "equivalent")])
def test_verdicts_from_predictions(gap: float, word: str) -> None:
    d = Noise(5000, gap=gap, seed_sd=0.004, interaction=0.5).draw(10, 1, np.random.default_rng(1))[0]
    assert judge(difference(d > 0, d < 0)).word == word


def test_invalid_margins_and_p_values_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        judge(make_difference(0, 0.1, 0.2), margin=0)
    for p in (0.1, 1.1):
        with pytest.raises(ValueError, match="cannot lower a p value"):
            judge(make_difference(0, 0.1, 0.2), p)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.012, "+1.2"),
        (-0.012, "−1.2"),
        (0.0, "0.0"),
        (-0.0, "0.0"),
        (-0.0004, "0.0"),
        (0.0004, "0.0"),
        (0.0006, "+0.1"),
        (-0.0006, "−0.1"),
        (-0.1, "−10.0"),
    ],
)
def test_points_have_a_sign_unless_they_round_to_zero(fraction: float, text: str) -> None:
    assert points(fraction) == text


def test_a_verdict_has_no_signed_zero() -> None:
    sentence = judge(make_difference(-0.009, 0.0082, 0.9)).sentence
    assert sentence == "equivalent within 1.0 points: 0.0 points (−0.9 to +0.8)"


def test_holm_example() -> None:
    # Smallest first: 4 × 0.005, 3 × 0.01, 2 × 0.03, then 0.04, raised to the value before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_the_same_as_its_step_down_procedure() -> None:
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
def test_invalid_p_values_are_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p)


RGBA = Claim(0.022, 0.022)
MORE, LESS = Claim(0, np.inf), Claim(-np.inf, 0)
FLIP = Claim(0.003, 0.005)


@pytest.mark.parametrize(
    ("low", "high", "claim", "word", "undecided"),
    [
        (-0.011, 0.007, RGBA, "excluded", False),
        (0.001, 0.0219, RGBA, "excluded", False),
        (0.001, 0.022, RGBA, "compatible", False),  # touching the claim does not exclude it
        (-0.011, 0.03, RGBA, "compatible", True),
        (0.0, 0.03, RGBA, "compatible", True),  # touching 0 contains it
        (0.023, 0.03, RGBA, "excluded", False),  # more than claimed
        (-0.03, 0.0029, FLIP, "excluded", False),
        (-0.03, 0.0031, FLIP, "compatible", True),  # only the whole range is excluded
        (0.0049, 0.03, FLIP, "compatible", False),
        (0.0051, 0.03, FLIP, "excluded", False),
        (0.001, 0.03, MORE, "compatible", False),
        (-0.001, 0.03, MORE, "compatible", True),
        (-0.03, -0.001, MORE, "excluded", False),
        (-0.03, -0.001, LESS, "compatible", False),
        (-0.03, 0.001, LESS, "compatible", True),
        (0.001, 0.03, LESS, "excluded", False),
        (-0.001, 0.03, Claim(0, 0), "compatible", False),  # 0 is the claim
    ],
)
def test_claims_at_their_limits(low: float, high: float, claim: Claim, word: str, undecided: bool) -> None:
    verdict = judge_claim(make_difference(low, high, 0.5), claim)
    assert (verdict.word, verdict.undecided) == (word, undecided)
    assert verdict.sentence.startswith(f"{word}: {claim} is ")
    assert ("neither excluded nor supported" in verdict.sentence) == undecided


def test_the_adjusted_p_value_decides_about_a_claim() -> None:
    d = make_difference(-0.011, 0.02, 0.5)
    plain = d.p_of(0.022)
    assert 0.02 < plain < 0.05
    assert judge_claim(d, RGBA).word == "excluded"
    assert judge_claim(d, RGBA, 0.0499, "at scale small").sentence == (
        "excluded at scale small: +2.2 points is outside the interval of +0.5 points (−1.1 to +2.0), p = 0.05"
    )
    corrected = judge_claim(d, RGBA, 0.05)
    assert corrected.word == "compatible"
    assert corrected.sentence.endswith("but not significantly after correction, adjusted p = 0.05")
    with pytest.raises(ValueError, match="cannot lower a p value"):
        judge_claim(d, RGBA, 0.01)


def test_one_seed_tests_no_claim() -> None:
    d = replace(make_difference(-0.011, -0.007, 0.5), seeds=1, seeds_ignored=True)
    assert judge_claim(d, RGBA).word == "not tested"


def test_seeds_that_settle_a_claim() -> None:
    components = Components(1e-4, 0.001, 0.02)
    verdict = judge_claim(make_difference(-0.024, 0.006, 0.5, components), Claim(-0.015, -0.015))
    needed = verdict.seeds_needed
    assert needed is not None
    # −0.9 points are 0.6 points from the claim and 0.9 from 0: below 0.9 the interval contains at most one of them.
    assert half_width(components, needed, 1250) < 0.009 <= half_width(components, needed - 1, 1250)
    direction = judge_claim(make_difference(-0.024, 0.016, 0.5, components), MORE).seeds_needed
    assert direction is not None
    assert half_width(components, direction, 1250) < 0.004 <= half_width(components, direction - 1, 1250)


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (RGBA, "+2.2 points"),
        (FLIP, "+0.3 to +0.5 points"),
        (MORE, "more than 0"),
        (LESS, "less than 0"),
    ],
)
def test_claims_as_text(claim: Claim, text: str) -> None:
    assert str(claim) == text
