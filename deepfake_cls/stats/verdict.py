"""Turn the difference between two arms into a verdict, by fixed rules, and compare it with a claimed difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Literal

import numpy as np

from deepfake_cls.stats.compare import Difference, Spread

MAX_SEEDS = 1_000  # no plan needs more
MAX_IMAGES = 1_000_000

Word = Literal["better", "worse", "equivalent", "inconclusive"]
ClaimWord = Literal["excluded", "compatible", "not tested"]


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


@dataclass(frozen=True)
class Claim:
    """A difference that others claim, or a range of differences; fractions.

    Attributes:
        low: Smallest claimed difference; −inf if only "less" is claimed, with ``high`` 0.
        high: Largest claimed difference; inf if only "more" is claimed, with ``low`` 0.
    """

    low: float
    high: float

    @property
    def direction(self) -> bool:
        """Whether only the sign is claimed."""
        return isinf(self.low) or isinf(self.high)

    def __str__(self) -> str:
        """``+2.2 points``, ``+0.3 to +0.5 points``, ``more than 0``, ``less than 0``."""
        if self.direction:
            return "more than 0" if self.high > 0 else "less than 0"
        return f"{points(self.low) if self.low == self.high else f'{points(self.low)} to {points(self.high)}'} points"


@dataclass(frozen=True)
class ClaimVerdict:
    """Conclusion about a claimed difference.

    Attributes:
        word: ``excluded``, ``compatible`` or ``not tested``.
        sentence: The verdict with its numbers or its reason.
        undecided: Compatible, but the interval contains 0 too: the claim is neither excluded nor supported.
        seeds_needed: If undecided: total number of seeds after which the interval cannot contain both 0 and the claim,
            with the same estimate and variances; None if 1,000 are too few.
        images_needed: The same for images per seed, up to 1,000,000.
    """

    word: ClaimWord
    sentence: str
    undecided: bool = False
    seeds_needed: int | None = None
    images_needed: int | None = None


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
    numbers = _numbers(difference)
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


def judge_claim(difference: Difference, claim: Claim, p_adjusted: float | None = None, where: str = "") -> ClaimVerdict:
    """Say whether a difference excludes a claimed one, by the first of these rules that applies.

    1. One seed: **not tested**.
    2. The interval contains no claimed value, and the p value of the nearest one (adjusted, if given) is below
       ``difference.alpha``: **excluded**.
    3. Else **compatible**, and ``undecided`` if the interval contains 0 too.

    Args:
        difference: From ``compare``.
        claim: The claimed difference. It is taken as exact: a p value says nothing about the noise of the claim.
        p_adjusted: From :func:`holm`, over the ``difference.p_of`` of all claims of the family.
        where: Follows the word in the sentence, such as ``at scale small``.

    Raises:
        ValueError: If the adjusted p value is below the plain one.
    """
    plain = difference.p_of(claim.low, claim.high)
    p = plain if p_adjusted is None else p_adjusted
    if not plain - 1e-12 <= p <= 1:
        raise ValueError(f"adjustment cannot lower a p value or exceed 1: {plain:.3g} to {p:.3g}")
    if difference.seeds_ignored:
        return ClaimVerdict("not tested", "not tested: it needs two seeds or more")
    outside = claim.high < difference.low or claim.low > difference.high
    interval = f"the interval of {_numbers(difference)}"
    if outside and p < difference.alpha:
        return ClaimVerdict("excluded", f"excluded{where and f' {where}'}: {claim} is outside {interval}, p = {p:.2g}")
    inside = difference.low <= claim.low and claim.high <= difference.high
    place = "outside" if outside else "inside" if inside else "partly inside"
    text = f"compatible{where and f' {where}'}: {claim} is {place} {interval}"
    if outside:
        return ClaimVerdict("compatible", f"{text}, but not significantly after correction, adjusted p = {p:.2g}")
    if not difference.low <= 0 <= difference.high or (claim.low <= 0 <= claim.high and not claim.direction):
        return ClaimVerdict("compatible", text)
    size = abs(difference.estimate)
    nearest = min(max(difference.estimate, claim.low), claim.high)
    reach = size if claim.direction else max(size, abs(difference.estimate - nearest))

    def settles(seeds: int, images: int) -> bool:
        return float(_planned(difference, seeds, images).half_width(difference.alpha)) < reach

    text += "; the interval contains 0 too, so the claim is neither excluded nor supported"
    return ClaimVerdict("compatible", text, True, *_needed(difference, settles))


def _inconclusive(difference: Difference, p: float, margin: float, text: str) -> Verdict:
    alpha = difference.alpha
    size = abs(difference.estimate)
    corrected_alpha = alpha * difference.p / p

    def half_width(seeds: float, images: float, level: float = alpha) -> float:
        return float(_planned(difference, seeds, images).half_width(level))

    def decides(seeds: int, images: int) -> bool:
        return half_width(seeds, images, corrected_alpha) < size or half_width(seeds, images) < margin - size

    seeds, images = _needed(difference, decides)
    seeds_floor, images_floor = half_width(inf, difference.units), half_width(difference.seeds, inf)
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


def _needed(difference: Difference, decides: Callable[[int, int], bool]) -> tuple[int | None, int | None]:
    """Smallest numbers of seeds, and of images, that decide; each with the other number as it is."""
    seeds = _fewest(lambda count: decides(count, difference.units), difference.seeds + 1, MAX_SEEDS)
    units = _fewest(lambda count: decides(difference.seeds, count), difference.units + 1, MAX_IMAGES)
    return seeds, None if units is None else round(units * difference.images / difference.units)


def _planned(difference: Difference, seeds: float, units: float) -> Spread:
    """Expected spread for that many seeds, and units (images, or groups of the same sizes); either may be infinite."""
    parts = difference.components.of_mean(seeds, units)
    # The same lower bound as in compare.difference.
    floor = max((parts.image + parts.residual) / 2, (units * difference.images / difference.units) ** -2.0)
    return Spread(parts.seed + parts.residual, parts.image, floor, seeds - 1, units - 1)


def _fewest(decides: Callable[[int], bool], low: int, high: int) -> int | None:
    """Smallest count that decides, by bisection; None if ``high`` does not."""
    if low > high or not decides(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle + 1, high)
    return low


def _numbers(difference: Difference) -> str:
    return f"{points(difference.estimate)} points ({points(difference.low)} to {points(difference.high)})"


def _size(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _rounded_up(count: int) -> int:
    """Round up to two digits; the variances are not known more precisely."""
    step: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // step) * step
