"""From the difference of two arms to words, by stated rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

from deepfake_cls.stats.compare import Components, Difference, Spread

MOST_SEEDS = 1_000  # more than this is not a plan
MOST_IMAGES = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """What may be said of a difference.

    Attributes:
        word: One of the four.
        sentence: Plain English, in points (hundredths of accuracy).
        seeds_needed: Where inconclusive: seeds in all that would settle it if the estimate and the variances stay as
            they are; None where no number up to 1,000 does, or one seed says nothing of it.
        images_needed: Likewise images in all (per seed), up to 1,000,000.
        seeds_floor: Half-width that remains with infinitely many seeds on as many images; fraction. None at one seed.
        images_floor: Half-width that remains with infinitely many images and as many seeds. None at one seed.
    """

    word: Literal["better", "worse", "equivalent", "inconclusive"]
    sentence: str
    seeds_needed: int | None = None
    images_needed: int | None = None
    seeds_floor: float | None = None
    images_floor: float | None = None


def points(fraction: float) -> str:
    """A difference of fractions in points, with its sign: ``+1.2``, ``−1.2``; what rounds to zero is ``0.0``."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def judge(found: Difference, p_adjusted: float | None = None, margin: float = 0.01) -> Verdict:
    """Turn a difference into words, by these rules in this order.

    1. One seed decides nothing: inconclusive.
    2. **equivalent** where the interval lies strictly within ±margin, even where it excludes 0: the margin says what is
       too small to matter, and a surely tiny gain is told in the sentence. An interval of 95 % makes this stricter than
       the usual two one-sided tests at 5 %, which need 90 % (Schuirmann 1987).
    3. **better** or **worse** where the interval excludes 0 and the p value, adjusted if given, is below
       1 − confidence.
    4. **inconclusive** otherwise, with what would settle it if the estimate stayed where it is: a half-width below the
       distance to 0 (at the level that the adjustment left) or to the nearer margin.

    Args:
        found: Of ``difference`` or ``difference_folds``.
        p_adjusted: Of ``holm``, where this is one of several comparisons.
        margin: Largest difference that does not matter; fraction.

    Raises:
        ValueError: The margin is not positive, or the adjusted p value is below the plain one.
    """
    if not margin > 0:
        raise ValueError(f"the margin is a positive fraction, not {margin}")
    if p_adjusted is not None and not found.p - 1e-12 <= p_adjusted <= 1:
        raise ValueError(f"adjusting raises a p value, to 1 at most: {found.p:.3g} cannot become {p_adjusted:.3g}")
    p = found.p if p_adjusted is None else p_adjusted
    figures = f"{points(found.estimate)} points ({points(found.low)} to {points(found.high)})"
    if found.seeds_ignored:
        return Verdict("inconclusive", f"inconclusive: {figures} over images alone; one seed decides nothing")
    apart = found.low > 0 or found.high < 0
    if -margin < found.low and found.high < margin:
        tiny = f", surely a {'gain' if found.low > 0 else 'loss'} but one too small to matter" if apart else ""
        return Verdict("equivalent", f"equivalent within {_size(margin)} points: {figures}{tiny}")
    if apart and p < found.alpha:
        word: Literal["better", "worse"] = "better" if found.estimate > 0 else "worse"
        return Verdict(word, f"{word}: {figures}")
    return _inconclusive(found, p, margin, figures, apart)


def _inconclusive(found: Difference, p: float, margin: float, figures: str, apart: bool) -> Verdict:
    alpha = found.alpha
    size = abs(found.estimate)
    corrected = alpha * found.p / p

    def settles(seeds: float, images: float) -> bool:
        spread = _planned(found.components, seeds, images)
        return bool(spread.half_width(corrected) < size or spread.half_width(alpha) < margin - size)

    seeds = _fewest(lambda count: settles(count, found.images), found.seeds + 1, MOST_SEEDS)
    images = _fewest(lambda count: settles(found.seeds, count), found.images + 1, MOST_IMAGES)
    seeds_floor = float(_planned(found.components, inf, found.images).half_width(alpha))
    images_floor = float(_planned(found.components, found.seeds, inf).half_width(alpha))
    if seeds is not None:
        outlook = f"{seeds} seeds would settle it"
    elif images is not None:
        outlook = (
            f"more seeds cannot settle it: image noise alone is ±{_size(seeds_floor)} points; "
            f"more images would (about {_rounded(images):,})"
        )
    else:
        outlook = (
            f"neither more seeds nor more images alone would settle it: image noise alone is ±{_size(seeds_floor)} "
            f"points, seed noise alone ±{_size(images_floor)}; it takes more of both"
        )
    correction = f", not beyond doubt after correction (adjusted p = {p:.2g})" if apart else ""
    sentence = f"inconclusive: {figures}{correction}; {outlook}"
    return Verdict("inconclusive", sentence, seeds, images, seeds_floor, images_floor)


def _planned(components: Components, seeds: float, images: float) -> Spread:
    """What ``difference`` would find on average with so many seeds and images; either may be infinite."""
    parts = components.of_mean(seeds, images)
    floor = max((parts.image + parts.residual) / 2, images**-2.0)
    return Spread(parts.seed + parts.residual, parts.image, floor, seeds - 1, images - 1)


def _fewest(settles: Callable[[int], bool], low: int, high: int) -> int | None:
    """Smallest count that settles it, by bisection; None where not even ``high`` does."""
    if low > high or not settles(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle + 1, high)
    return low


def _size(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _rounded(count: int) -> int:
    """Two digits, upwards: more would feign a precision that the variances do not have."""
    step: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // step) * step
