from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from deepfake_cls.stats.compare import Components, Difference, difference, difference_folds
from deepfake_cls.stats.verdict import judge, points
from tests.stats.simulation import Noise

NOTHING = Components(0, 0, 0)


def found(low: float, high: float, p: float, components: Components = NOTHING, seeds: int = 3) -> Difference:
    middle = (low + high) / 2
    return Difference(middle, low, high, 0.95, p, 0.001, 5.0, seeds, 1250, components, NOTHING, 0.01)


@pytest.mark.parametrize(
    ("low", "high", "p", "word"),
    [
        (0.002, 0.03, 0.03, "better"),
        (-0.03, -0.002, 0.03, "worse"),
        (0.0, 0.03, 0.0499, "inconclusive"),  # touching 0 is not excluding it
        (-0.03, 0.0, 0.0499, "inconclusive"),
        (-0.009, 0.009, 1.0, "equivalent"),
        (-0.01, 0.009, 0.9, "inconclusive"),  # touching the margin is not lying within
        (-0.009, 0.01, 0.9, "inconclusive"),
        (0.002, 0.01, 0.01, "better"),
        (0.002, 0.009, 0.01, "equivalent"),  # both hold: the margin has the say
        (-0.009, -0.002, 0.01, "equivalent"),
    ],
)
def test_the_rules_at_their_edges(low: float, high: float, p: float, word: str) -> None:
    assert judge(found(low, high, p)).word == word


def test_the_adjusted_p_value_decides() -> None:
    one = found(0.002, 0.03, 0.03, Components(1e-4, 0.01, 0.05))
    assert judge(one, 0.0499).word == "better"
    assert judge(one, 0.05).word == "inconclusive"
    assert "after correction (adjusted p = 0.06)" in judge(one, 0.06).sentence
    needed, more = judge(one, 0.06).seeds_needed, judge(one, 0.3).seeds_needed
    assert needed is not None
    assert more is not None
    assert needed < more


def test_a_tiny_gain_is_told() -> None:
    assert judge(found(0.002, 0.009, 0.01)).sentence.endswith("surely a gain but one too small to matter")
    assert judge(found(-0.009, -0.002, 0.01)).sentence.endswith("surely a loss but one too small to matter")
    assert judge(found(-0.009, 0.007, 0.9)).sentence.startswith(
        "equivalent within 1.0 points: −0.1 points (−0.9 to +0.7)"
    )


def test_the_margin_is_the_readers() -> None:
    one = found(-0.009, 0.009, 1.0, Components(1e-5, 0, 0))
    assert judge(one, margin=0.02).word == "equivalent"
    assert judge(one, margin=0.005).word == "inconclusive"


def test_one_seed_decides_nothing() -> None:
    one = replace(found(0.2, 0.3, 1e-9), seeds=1, seeds_ignored=True)
    assert judge(one).word == "inconclusive"
    assert judge(one).sentence.endswith("over images alone; one seed decides nothing")
    assert judge(replace(one, low=-0.001, high=0.001)).word == "inconclusive"


def half_width(components: Components, seeds: int, images: int) -> float:
    seed = components.seed / seeds + components.residual / seeds / images
    image = components.image / images
    t, z = stats.t.isf(0.025, seeds - 1), stats.t.isf(0.025, images - 1)
    return float((seed * t + image * z) / np.sqrt(seed + image))


def test_the_fewest_seeds_that_settle_it() -> None:
    components = Components(1e-4, 0.005, 0.02)
    said = judge(found(-0.019, 0.011, 0.5, components))
    needed = said.seeds_needed
    assert needed is not None
    # −0.4 points lie 0.6 from the margin, so a half-width below 0.6 would make it equivalent
    assert half_width(components, needed, 1250) < 0.006 <= half_width(components, needed - 1, 1250)
    assert said.sentence == f"inconclusive: −0.4 points (−1.9 to +1.1); {needed} seeds would settle it"


def test_image_noise_that_no_seed_removes() -> None:
    components = Components(2e-6, 0.05, 0.05)
    said = judge(found(-0.02, 0.012, 0.5, components))
    assert said.seeds_needed is None
    assert said.seeds_floor == pytest.approx(1.96 * np.sqrt(0.05 / 1250), rel=1e-3)
    assert "more seeds cannot settle it: image noise alone is ±1.2 points; more images would" in said.sentence
    needed = said.images_needed
    assert needed is not None
    assert half_width(components, 3, needed) < 0.006 <= half_width(components, 3, needed - 1)


def test_neither_alone() -> None:
    said = judge(found(-0.03, 0.025, 0.9, Components(2e-4, 0.05, 0.05)))
    assert (said.seeds_needed, said.images_needed) == (None, None)
    assert said.images_floor == pytest.approx(4.3027 * np.sqrt(2e-4 / 3), rel=1e-3)
    assert said.sentence.endswith("it takes more of both")


def test_few_images_without_disagreement_call_for_images() -> None:
    right = np.ones((3, 100), dtype=bool)
    said = judge(difference(right, right))
    assert said.seeds_needed is None
    assert said.seeds_floor == pytest.approx(0.01984, rel=1e-3)  # t(99) of one image in 100
    assert said.images_needed == 198


def test_more_folds_settle_anything() -> None:
    rng = np.random.default_rng(0)
    folds = Noise(500, gap=0.01, seed_sd=0.01).draw(1, 3, rng)[:, 0]
    said = judge(difference_folds([(d > 0, d < 0) for d in folds]))
    assert said.word == "inconclusive"
    assert said.seeds_needed is not None


@pytest.mark.parametrize(("gap", "word"), [(0.06, "better"), (-0.06, "worse"), (0.0, "equivalent")])
def test_from_predictions_to_words(gap: float, word: str) -> None:
    d = Noise(5000, gap=gap, seed_sd=0.004, interaction=0.5).draw(10, 1, np.random.default_rng(1))[0]
    assert judge(difference(d > 0, d < 0)).word == word


def test_senseless_margins_and_p_values_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        judge(found(0, 0.1, 0.2), margin=0)
    for p in (0.1, 1.1):
        with pytest.raises(ValueError, match="raises a p value"):
            judge(found(0, 0.1, 0.2), p)


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


def test_a_verdict_shows_no_signed_zero() -> None:
    sentence = judge(found(-0.009, 0.0082, 0.9)).sentence
    assert sentence == "equivalent within 1.0 points: 0.0 points (−0.9 to +0.8)"
