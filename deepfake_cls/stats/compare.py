"""Paired comparison of two arms over the same seeds and images.

Both arms are trained with the same S seeds and scored on the same N images. A claim about the arms has to hold for
other seeds and other images, so the interval of :func:`difference` accounts for both. Its measured coverage is in
``experiments/results/coverage.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.stats.groups import by_group
from deepfake_cls.stats.intervals import critical

POWER = 0.8
SMALLEST_P = 1e-15  # quantiles of t are not reliable beyond it


@dataclass(frozen=True)
class Components:
    """Variance components of one cell (one seed on one image), or their shares in a variance.

    Attributes:
        seed: Between seeds: change of the difference from one training to the next.
        image: Between images: image-by-arm interaction, the same for every seed.
        residual: The remainder, of one seed on one image.
    """

    seed: float
    image: float
    residual: float

    def of_mean(self, seeds: float, images: float) -> Components:
        """Variances of the mean over that many seeds and images; either may be infinite."""
        return Components(self.seed / seeds, self.image / images, self.residual / (seeds * images))

    @property
    def total(self) -> float:
        """Sum of the three."""
        return self.seed + self.image + self.residual


@dataclass(frozen=True)
class Difference:
    """Accuracy of arm A minus accuracy of arm B, as fractions.

    Attributes:
        estimate: Mean over seeds and images.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Two-sided level of the interval.
        p: Two-sided p value of "no difference", at least 1e-15. It is below 1 − ``confidence`` exactly where the
            interval excludes 0.
        standard_error: Half-width of the interval divided by the critical value of t at ``df``.
        df: Degrees of freedom of that t: from S − 1 (only seeds matter) to N − 1 (only images matter).
        seeds: S.
        images: N, per seed; the rounded mean for folds of unequal size.
        groups: G, the number of groups of these images, which are then the unit instead of images: ``df``,
            ``components`` and ``shares`` are those of groups. None if each image is a unit.
        components: Variances of a cell, in squared fractions, at least 0.
        shares: Shares of the components in the variance of the estimate; they sum to 1, or are all 0.
        detectable: Smallest true difference that is found with 80 % power at this standard error (alpha 0.05).
        seeds_ignored: The interval covers images only, since there is one seed.
        spread: The variances behind the interval.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    p: float
    standard_error: float
    df: float
    seeds: int
    images: int
    components: Components
    shares: Components
    detectable: float
    seeds_ignored: bool = False
    groups: int | None = None
    spread: Spread = field(kw_only=True)

    @property
    def units(self) -> int:
        """Number of groups, or of images where there are none."""
        return self.images if self.groups is None else self.groups

    def p_of(self, low: float, high: float | None = None) -> float:
        """Two-sided p value of "the true difference is ``low``", or of "it lies between ``low`` and ``high``".

        The spread is that of the interval, so the p value is below 1 − ``confidence`` exactly where the interval
        contains no value of the range. ``p_of(0)`` is ``p``.

        Args:
            low: Fraction; may be −inf if ``high`` is given.
            high: Fraction, ``low`` or more; may be inf. The p value is that of the nearest value of the range (a
                composite hypothesis), 1 if the estimate lies in it.
        """
        nearest = min(max(self.estimate, low), low if high is None else high)
        return _p_value(abs(self.estimate - nearest), self.spread)

    @property
    def alpha(self) -> float:
        """Error rate of the interval, without rounding noise: 0.05 at 95 %."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True)
class Spread:
    """Estimated variances of a mean difference with their degrees of freedom; scalars or arrays.

    Attributes:
        seed: From the spread between seeds.
        image: From the additional spread between images.
        floor: Lower bound of the variance of the mean.
        df_seed: Degrees of freedom of ``seed``.
        df_image: Degrees of freedom of ``image`` and ``floor``.
    """

    seed: NDArray[np.float64] | float
    image: NDArray[np.float64] | float
    floor: NDArray[np.float64] | float
    df_seed: float
    df_image: float

    def weighted(self, alpha: float) -> NDArray[np.float64]:
        """Half-width from the weighted critical value of Cochran (1964), at a two-sided error rate."""
        t_seed, t_image = critical(self.df_seed, alpha), critical(self.df_image, alpha)
        total = np.maximum(self.seed + self.image, np.finfo(np.float64).tiny)
        return np.asarray((t_seed * self.seed + t_image * self.image) / np.sqrt(total))

    def floored(self, alpha: float) -> NDArray[np.float64]:
        """Half-width from ``floor``."""
        return np.asarray(critical(self.df_image, alpha) * np.sqrt(self.floor))

    def half_width(self, alpha: float) -> NDArray[np.float64]:
        """The larger of the two half-widths."""
        return np.asarray(np.maximum(self.weighted(alpha), self.floored(alpha)))


def mean_squares(
    d: NDArray[np.int8] | NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean squares of a two-way layout with one observation per cell (Scheffé 1959, chapter 7).

    Args:
        d: (..., S, N), S and N at least 2.

    Returns:
        Of seeds (S − 1 degrees of freedom), of images (N − 1) and of the residual, each (...).
    """
    seeds, images = d.shape[-2:]
    seed_means, image_means = d.mean(axis=-1, dtype=np.float64), d.mean(axis=-2, dtype=np.float64)
    grand_mean = seed_means.mean(axis=-1)
    ms_seed = images * seed_means.var(axis=-1, ddof=1)
    ms_image = seeds * image_means.var(axis=-1, ddof=1)
    squares = (
        np.square(d, dtype=np.int64 if d.dtype.kind == "i" else np.float64).sum(axis=(-2, -1))
        - seeds * images * grand_mean**2
    )
    residual = squares - (seeds - 1) * ms_seed - (images - 1) * ms_image
    return ms_seed, ms_image, np.maximum(residual, 0) / ((seeds - 1) * (images - 1))


def crossed(d: NDArray[np.int8], confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean differences and half-widths of their intervals over seeds and images, for many experiments at once.

    Args:
        d: (..., S, N), S and N at least 2.
        confidence: Two-sided level.

    Returns:
        Estimate and half-width, each (...); fractions.
    """
    estimate = np.asarray(d.mean(axis=(-2, -1), dtype=np.float64))
    seeds, images = d.shape[-2:]
    return estimate, _crossed_spread(mean_squares(d), seeds, images, images).half_width(1 - confidence)


def _crossed_spread(
    squares: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], seeds: int, units: int, images: int
) -> Spread:
    ms_seed, ms_image, ms_residual = (square / (seeds * units) for square in squares)
    # With few seeds, their mean square can be small by chance. If seeds had no effect, the mean square of images would
    # be the variance of the estimate; it is estimated well, and half of it is a safe lower bound.
    floor = np.maximum(ms_image / 2, images**-2.0)
    return Spread(ms_seed, np.maximum(ms_image - ms_residual, 0), floor, seeds - 1, units - 1)


def difference(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    confidence: float = 0.95,
    groups: NDArray[np.int64] | None = None,
) -> Difference:
    """Difference in accuracy of two arms, with an interval over seeds and images.

    D[s, i] = A[s, i] − B[s, i] is a two-way layout of random effects: seeds crossed with images, one observation per
    cell. The variance of its mean is σ²_seed / S + σ²_image / N + σ²_residual / (S N). Its unbiased estimate is
    V_1 + V_2 with V_1 = MS_seed / (S N) and V_2 = (MS_image − MS_residual) / (S N), V_2 at least 0. V_1 has only S − 1
    degrees of freedom, V_2 about N − 1. The critical value is the mean of those of t(S − 1) and t(N − 1), weighted by
    V_1 and V_2 (Cochran 1964, for the Behrens-Fisher problem).

    The common alternative is one t with the degrees of freedom of Satterthwaite (1946). It fails where MS_seed is small
    by chance: in simulation it covers 92 to 99 % at 3 seeds; this one covers 95 to 97 % (``benchmarks/coverage.py``).
    The variance has two lower bounds: half of the variance from images only, and 1 / N² (one image).

    With one seed, the interval covers images only and ``seeds_ignored`` is set; ``verdict.judge`` is then inconclusive.

    Args:
        a: bool (S, N), correct predictions of arm A: seeds by images, at least 2 images.
        b: bool (S, N), of arm B; same seeds and images, in the same order.
        confidence: Two-sided level.
        groups: int64 (N,), the group of each image, such as its prompt. Images of one group are not independent, so the
            interval is over groups: in the formulas above, N and i stand for groups, except in the lower bound 1 / N².
            None: each image is a unit.

    Raises:
        ValueError: If the arrays are not boolean, their shapes differ, or there are no seeds or fewer than 2 images or
            groups.
    """
    d = _paired_differences(a, b, 2)
    if groups is None:
        return _difference(d, d.shape[1], confidence)
    by_unit = by_group(d, groups)
    return replace(_difference(by_unit, d.shape[1], confidence), groups=by_unit.shape[1])


def _difference(d: NDArray[np.int8] | NDArray[np.float64], images: int, confidence: float) -> Difference:
    """See :func:`difference`; of images, or of U groups as if they were images, (S, U)."""
    seeds, units = d.shape
    if seeds == 1:
        return _one_seed(d[0], images, confidence)
    squares = mean_squares(d)
    ms_seed, ms_image, ms_residual = (float(square) for square in squares)
    components = Components(max(ms_seed - ms_residual, 0) / units, max(ms_image - ms_residual, 0) / seeds, ms_residual)
    spread = _crossed_spread(squares, seeds, units, images)
    return _with_interval(float(d.mean(dtype=np.float64)), spread, components, (seeds, units, images), confidence)


def difference_folds(
    pairs: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    confidence: float = 0.95,
    groups: Sequence[NDArray[np.int64]] | None = None,
) -> Difference:
    """Difference in accuracy where every seed has its own held-out images: a paired t test over folds, equal weights.

    The spread between folds contains both seed and image noise, since no image occurs twice. The training sets of the
    folds overlap, which the interval ignores: it is too narrow where the choice of training images matters (Nadeau &
    Bengio 2003; Bouthillier et al. 2021). Images count as residual variance, so ``components.image`` is 0. The variance
    is at least half of the variance from images only.

    Args:
        pairs: For each seed, two bool (N_s,) of the same images: correct predictions of arm A and of arm B.
        confidence: Two-sided level.
        groups: For each seed int64 (N_s,), the group of each image; see :func:`difference`.

    Raises:
        ValueError: If there is no pair, a pair is not boolean, its shapes differ, or it has fewer than 2 images or
            groups.
    """
    if not pairs:
        raise ValueError("expected at least one fold")
    folds = [_paired_differences(a, b, 1) for a, b in pairs]
    images = round(sum(map(len, folds)) / len(folds))
    if groups is None:
        return _difference_folds(folds, images, confidence)
    by_unit = [by_group(d, own) for d, own in zip(folds, groups, strict=True)]
    units = round(sum(map(len, by_unit)) / len(by_unit))
    return replace(_difference_folds(by_unit, images, confidence), groups=units)


def _difference_folds(
    folds: Sequence[NDArray[np.int8] | NDArray[np.float64]], images: int, confidence: float
) -> Difference:
    """See :func:`difference_folds`; of images, or of groups as if they were images."""
    if len(folds) == 1:
        return _one_seed(folds[0], images, confidence)
    seeds, units = len(folds), round(sum(map(len, folds)) / len(folds))
    means = np.array([fold.mean(dtype=np.float64) for fold in folds])
    between = float(means.var(ddof=1))
    within = float(np.mean([fold.var(ddof=1, dtype=np.float64) / len(fold) for fold in folds]))
    components = Components(max(between - within, 0), 0.0, within * units)
    floor = max(within / (2 * seeds), (seeds * images) ** -2.0)
    spread = Spread(between / seeds, 0.0, floor, seeds - 1, sum(map(len, folds)) - seeds)
    return _with_interval(float(means.mean()), spread, components, (seeds, units, images), confidence)


def difference_of_metrics(a: Sequence[float], b: Sequence[float], images: int, confidence: float = 0.95) -> Difference:
    """Difference of a metric that is no mean over images, such as a calibration error: a paired t test over seeds.

    Its interval is about other seeds **on these images**; it does not cover other images.

    Args:
        a: The metric of arm A, one value for each seed.
        b: Of arm B; same seeds, in the same order.
        images: Images that the metric is computed from; at least 2.
        confidence: Two-sided level.

    Raises:
        ValueError: If the lengths differ or there are fewer than two seeds.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"expected as many values for both arms, and at least two; not {len(a)} and {len(b)}")
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    variance = float(d.var(ddof=1))
    spread = Spread(variance / d.size, 0.0, images**-2.0, d.size - 1, images - 1)
    components = Components(variance, 0.0, 0.0)
    return _with_interval(float(d.mean()), spread, components, (d.size, images, images), confidence)


def _paired_differences(a: NDArray[np.bool_], b: NDArray[np.bool_], ndim: int) -> NDArray[np.int8]:
    if a.shape != b.shape:
        raise ValueError(f"the arms differ in shape: {a.shape} and {b.shape}")
    if a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(f"expected boolean arrays, not {a.dtype} and {b.dtype}")
    if a.ndim != ndim or not a.shape[0] or a.shape[-1] < 2:
        expected = "(S, N) with S ≥ 1 and N ≥ 2" if ndim == 2 else "(N,) with N ≥ 2"
        raise ValueError(f"expected the shape {expected}, not {a.shape}")
    return a.astype(np.int8) - b.astype(np.int8)


def _one_seed(d: NDArray[np.int8] | NDArray[np.float64], images: int, confidence: float) -> Difference:
    units = len(d)
    variance = float(d.var(ddof=1, dtype=np.float64))
    spread = Spread(0.0, variance / units, images**-2.0, units - 1, units - 1)
    components = Components(0.0, 0.0, variance)
    return _with_interval(float(d.mean(dtype=np.float64)), spread, components, (1, units, images), confidence)


def _with_interval(
    estimate: float, spread: Spread, components: Components, counts: tuple[int, int, int], confidence: float
) -> Difference:
    """``counts`` are the numbers of seeds, units (groups or images) and images."""
    from scipy.special import nctdtrinc, stdtridf

    seeds, units, images = counts
    alpha = 1 - confidence
    weighted, floored = float(spread.weighted(alpha)), float(spread.floored(alpha))
    half = max(weighted, floored)
    if floored >= weighted:
        error, df = sqrt(spread.floor), spread.df_image
    elif spread.image == 0:
        error, df = sqrt(spread.seed), spread.df_seed
    else:
        error = sqrt(spread.seed + spread.image)
        df = min(max(float(stdtridf(1 - alpha / 2, weighted / error)), spread.df_seed), spread.df_image)
    parts = components.of_mean(seeds, units)
    total = parts.total or 1.0
    return Difference(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        confidence=confidence,
        p=_p_value(abs(estimate), spread),
        standard_error=error,
        df=df,
        seeds=seeds,
        images=images,
        components=components,
        shares=Components(parts.seed / total, parts.image / total, parts.residual / total),
        detectable=error * float(nctdtrinc(df, 1 - POWER, critical(df, 0.05))),
        seeds_ignored=seeds == 1,
        spread=spread,
    )


def _p_value(size: float, spread: Spread) -> float:
    """Error rate at which the half-width equals the size of the estimate, by bisection."""
    low, high = SMALLEST_P, 1.0
    for _ in range(60):  # the half-width falls as the rate grows; 60 steps on a log scale are exact to 1e-15
        middle = sqrt(low * high)
        if float(spread.half_width(middle)) > size:
            low = middle
        else:
            high = middle
    return high
