"""Turn the difference between two arms into a verdict, by fixed rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from deepfake_cls.stats.compare import Components, Difference, Spread

MAX_SEEDS = 1_000  # no plan needs more
MAX_IMAGES = 1_000_000

Word = Literal["better", "worse", "equivalent", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """Conclusion from a difference.

    Attributes:
        word: ``better``, ``worse``, ``equivalent`` or ``inconclusive``.
        sentence: The verdict with its numbers, in points (hundredths of accuracy).
        seeds_needed: If inconclusive: total number of seeds that would decide, with the same estimate and variances.
            None for one seed, or if 1,000 are too few.
        images_needed: The same for images per seed, up to 1,000,000.
        seeds_floor: Half-width that remains with infinitely many seeds, from image noise alone, a fraction. None for
            one seed.
        images_floor: Likewise with infinitely many images, from seed noise alone.
    """

    word: Word
    sentence: str
    seeds_needed: int | None = None
    images_needed: int | None = None
    seeds_floor: float | None = None
    images_floor: float | None = None


def points(fraction: float) -> str:
    """A difference of fractions in points, with its sign: ``+1.2``, ``−1.2``; ``0.0`` if it rounds to zero."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the number of comparisons (Holm 1979).

    With adjusted values below 0.05 as significant, the family-wise error rate is at most 5 %.

    Args:
        p_values: Of one family of comparisons, in any order.

    Returns:
        Adjusted values in the same order.

    Raises:
        ValueError: If a value is outside [0, 1] or NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values lie between 0 and 1: {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return [float(value) for value in adjusted]


def judge(difference: Difference, p_adjusted: float | None = None, margin: float = 0.01) -> Verdict:
    """Turn a difference into a verdict by the first of these rules that applies.

    1. One seed: **inconclusive**.
    2. The interval lies strictly within ±margin: **equivalent**, even if it excludes 0. A 95 % interval is stricter
       than the common two one-sided tests at 5 %, which use a 90 % interval (Schuirmann 1987).
    3. The interval excludes 0 and the p value (adjusted, if given) is below ``difference.alpha``: **better** or
       **worse**.
    4. Else **inconclusive**, with the number of seeds or images that would decide it if the estimate stayed the same:
       the half-width has to be smaller than the distance to 0 (at level alpha · p / adjusted p) or to the
       nearer margin.

    Args:
        difference: From ``compare.difference`` or ``compare.difference_folds``.
        p_adjusted: From :func:`holm`, if this is one of several comparisons.
        margin: Largest difference that does not matter, a fraction.

    Raises:
        ValueError: If the margin is not positive, or the adjusted p value is below the plain one.
    """
    if not margin > 0:
        raise ValueError(f"the margin is a positive fraction, not {margin}")
    if p_adjusted is not None and not difference.p - 1e-12 <= p_adjusted <= 1:
        raise ValueError(f"adjustment cannot lower a p value or exceed 1: {difference.p:.3g} to {p_adjusted:.3g}")
    p = difference.p if p_adjusted is None else p_adjusted
    numbers = f"{points(difference.estimate)} points ({points(difference.low)} to {points(difference.high)})"
    if difference.seeds_ignored:
        return Verdict("inconclusive", f"inconclusive: {numbers}; the interval covers images only, since n = 1 seed")
    excludes_0 = difference.low > 0 or difference.high < 0
    if -margin < difference.low and difference.high < margin:
        sign = "gain" if difference.low > 0 else "loss"
        small = f"; a significant {sign}, but smaller than the margin" if excludes_0 else ""
        return Verdict("equivalent", f"equivalent within {_size(margin)} points: {numbers}{small}")
    if excludes_0 and p < difference.alpha:
        word: Word = "better" if difference.estimate > 0 else "worse"
        return Verdict(word, f"{word}: {numbers}")
    correction = f", not significant after correction (adjusted p = {p:.2g})" if excludes_0 else ""
    return _inconclusive(difference, p, margin, f"inconclusive: {numbers}{correction}")


def _inconclusive(difference: Difference, p: float, margin: float, text: str) -> Verdict:
    alpha = difference.alpha
    size = abs(difference.estimate)
    corrected_alpha = alpha * difference.p / p

    def half_width(seeds: float, images: float, level: float = alpha) -> float:
        return float(_planned(difference.components, seeds, images).half_width(level))

    def decides(seeds: int, images: int) -> bool:
        return half_width(seeds, images, corrected_alpha) < size or half_width(seeds, images) < margin - size

    seeds = _fewest(lambda count: decides(count, difference.images), difference.seeds + 1, MAX_SEEDS)
    images = _fewest(lambda count: decides(difference.seeds, count), difference.images + 1, MAX_IMAGES)
    seeds_floor, images_floor = half_width(inf, difference.images), half_width(difference.seeds, inf)
    if seeds is not None:
        outlook = f"about {seeds} seeds would decide it"
    elif images is not None:
        outlook = (
            f"more seeds cannot decide it (image noise alone is ±{_size(seeds_floor)} points);"
            f" about {_rounded_up(images):,} images would"
        )
    else:
        outlook = (
            f"it needs more seeds and more images (image noise alone is ±{_size(seeds_floor)} points,"
            f" seed noise alone ±{_size(images_floor)})"
        )
    return Verdict("inconclusive", f"{text}; {outlook}", seeds, images, seeds_floor, images_floor)


def _planned(components: Components, seeds: float, images: float) -> Spread:
    """Expected spread for that many seeds and images; either may be infinite."""
    parts = components.of_mean(seeds, images)
    # The same lower bound as in compare.difference.
    floor = max((parts.image + parts.residual) / 2, images**-2.0)
    return Spread(parts.seed + parts.residual, parts.image, floor, seeds - 1, images - 1)


def _fewest(decides: Callable[[int], bool], low: int, high: int) -> int | None:
    """Smallest count that decides, by bisection; None if ``high`` does not."""
    if low > high or not decides(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle + 1, high)
    return low


def _size(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _rounded_up(count: int) -> int:
    """Round up to two digits; the variances are not known more precisely."""
    step: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // step) * step
