"""Two arms of an experiment, seed by seed and image by image: how much they differ, and what may be said of it.

Both arms are trained with the same S seeds and scored on the same N images. A claim about the recipes is a claim about
seeds that were not run and images that were not seen, so one interval accounts for both (``difference``), and one set
of rules turns it into words (``verdict.judge``). How often the interval is right: ``experiments/results/coverage.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.stats.intervals import critical

POWER = 0.8
SMALLEST_P = 1e-15  # quantiles of t are not reliable further out


@dataclass(frozen=True)
class Components:
    """What comes from seeds, from images and from neither: variances of one cell, or shares that sum to 1.

    Attributes:
        seed: Between seeds: how much the difference of the arms changes from one training to the next.
        image: Between images: image-by-arm interaction, the same for every seed.
        residual: Of one seed on one image, apart from both.
    """

    seed: float
    image: float
    residual: float

    def of_mean(self, seeds: float, images: float) -> Components:
        """Variances of the mean over so many seeds and images; either may be infinite."""
        return Components(self.seed / seeds, self.image / images, self.residual / (seeds * images))

    @property
    def total(self) -> float:
        """Sum of the three."""
        return self.seed + self.image + self.residual


@dataclass(frozen=True)
class Difference:
    """Accuracy of arm A less that of arm B; fractions, not points.

    Attributes:
        estimate: Mean over seeds and images.
        low: Lower end of the interval.
        high: Upper end.
        confidence: Of the interval, two-sided.
        p: Two-sided, of no difference; below 1 − ``confidence`` exactly where the interval excludes 0. Never below
            1e-15.
        standard_error: Half the interval's width is this times the critical value of t at ``df``.
        df: Degrees of freedom of the t whose critical value was used, S − 1 (seeds are everything) to N − 1 (images).
        seeds: S.
        images: N, per seed; with folds of unequal size their mean, rounded.
        components: Variances of a cell, in squared fractions, floored at 0.
        shares: Their shares in the variance of the estimate; they sum to 1 (or are all 0).
        detectable: Smallest true difference that is found with 80 % power at this standard error (alpha 0.05).
        seeds_ignored: The interval is over images only, as there is only one seed.
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

    @property
    def alpha(self) -> float:
        """Error rate of the interval: 0.05 at 95 %, and not 0.05000000000000004."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True)
class Spread:
    """Estimated variances of a mean difference, and how well each is known; numbers or stacks of them.

    Attributes:
        seed: From the spread between seeds.
        image: From the spread between images, beyond that.
        floor: Less than any true variance of the mean.
        df_seed: Degrees of freedom of ``seed``.
        df_image: Degrees of freedom of ``image`` and ``floor``.
    """

    seed: NDArray[np.float64] | float
    image: NDArray[np.float64] | float
    floor: NDArray[np.float64] | float
    df_seed: float
    df_image: float

    def weighted(self, alpha: float) -> NDArray[np.float64]:
        """Half-width at a two-sided error rate, by the weighted critical value of Cochran (1964)."""
        t_seed, t_image = critical(self.df_seed, alpha), critical(self.df_image, alpha)
        total = np.maximum(self.seed + self.image, np.finfo(np.float64).tiny)
        return np.asarray((t_seed * self.seed + t_image * self.image) / np.sqrt(total))

    def floored(self, alpha: float) -> NDArray[np.float64]:
        """Half-width below which none is believed."""
        return np.asarray(critical(self.df_image, alpha) * np.sqrt(self.floor))

    def half_width(self, alpha: float) -> NDArray[np.float64]:
        """The wider of the two."""
        return np.asarray(np.maximum(self.weighted(alpha), self.floored(alpha)))


def mean_squares(d: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean squares of the two-way layout with one observation per cell (Scheffé 1959, chapter 7).

    Args:
        d: (..., S, N), S and N at least 2.

    Returns:
        Of seeds (S − 1 degrees of freedom), of images (N − 1) and of the residual, each (...).
    """
    seeds, images = d.shape[-2:]
    rows, columns = d.mean(axis=-1, dtype=np.float64), d.mean(axis=-2, dtype=np.float64)
    grand = rows.mean(axis=-1)
    of_seeds = images * rows.var(axis=-1, ddof=1)
    of_images = seeds * columns.var(axis=-1, ddof=1)
    squares = np.square(d, dtype=np.int64).sum(axis=(-2, -1)) - seeds * images * grand**2
    rest = squares - (seeds - 1) * of_seeds - (images - 1) * of_images
    return of_seeds, of_images, np.maximum(rest, 0) / ((seeds - 1) * (images - 1))


def crossed(d: NDArray[np.int8], confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean difference and half-width of its interval over seeds and images, for a stack of experiments at once.

    Args:
        d: (..., S, N), S and N at least 2.
        confidence: Two-sided.

    Returns:
        Estimate and half-width, each (...); fractions.
    """
    estimate = np.asarray(d.mean(axis=(-2, -1), dtype=np.float64))
    return estimate, _crossed_spread(mean_squares(d), *d.shape[-2:]).half_width(1 - confidence)


def _crossed_spread(
    squares: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], seeds: int, images: int
) -> Spread:
    of_seeds, of_images, rest = (square / (seeds * images) for square in squares)
    # With few seeds their mean square is small now and then by luck. The mean square of images is the variance of the
    # estimate if seeds changed nothing, and well known: half of it is less than any true value.
    floor = np.maximum(of_images / 2, images**-2.0)
    return Spread(of_seeds, np.maximum(of_images - rest, 0), floor, seeds - 1, images - 1)


def difference(a: NDArray[np.bool_], b: NDArray[np.bool_], confidence: float = 0.95) -> Difference:
    """Difference in accuracy of two arms, with an interval over seeds and images.

    D[s, i] = A[s, i] − B[s, i] is a two-way layout of random effects, seeds crossed with images, one observation per
    cell. The variance of its mean is σ²_seed / S + σ²_image / N + σ²_residual / (S N), estimated without bias by
    V_1 + V_2 with V_1 = MS_seed / (S N) and V_2 = (MS_image − MS_residual) / (S N), floored at 0. V_1 is known as
    badly as S − 1 degrees of freedom say and V_2 nearly exactly, so the critical value is the mean of those of
    t(S − 1) and t(N − 1), weighted by V_1 and V_2 (Cochran 1964, for the problem of Behrens and Fisher).

    The usual choice, one t with the degrees of freedom of Satterthwaite (1946), takes an MS_seed that is small by luck
    for a small variance and for many degrees of freedom: in simulation it covers 92 to 99 % at 3 seeds where this
    covers 95 to 97 % (``benchmarks/coverage.py``). The half-width is kept above that of a variance of half what images
    alone give, and of 1 / N² (one image).

    At one seed the interval is over images only and ``seeds_ignored`` is set: it shows what is known at least not to be
    known, and ``verdict.judge`` decides nothing by it, since the change from seed to seed cannot be seen from one.

    Args:
        a: bool (S, N), whether arm A is right: seeds by images, 2 images or more.
        b: bool (S, N), of arm B; same seeds and same images, in the same order.
        confidence: Two-sided.

    Raises:
        ValueError: The shapes differ, are not (S, N), have no seeds or fewer than 2 images, or hold no booleans.
    """
    d = _gaps(a, b, 2)
    seeds, images = d.shape
    if seeds == 1:
        return _one_seed(d[0], confidence)
    squares = mean_squares(d)
    of_seeds, of_images, rest = (float(square) for square in squares)
    components = Components(max(of_seeds - rest, 0) / images, max(of_images - rest, 0) / seeds, rest)
    spread = _crossed_spread(squares, seeds, images)
    return _finish(float(d.mean(dtype=np.float64)), spread, components, seeds, images, confidence)


def difference_folds(
    pairs: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]], confidence: float = 0.95
) -> Difference:
    """Difference in accuracy where every seed has held-out images of its own: a paired t over the folds, equal weights.

    A fold's difference holds its seed's noise and its images' noise, and no image is seen twice, so the spread between
    folds accounts for both. The training sets of the folds overlap, which the interval does not know: it is too narrow
    where the training images chosen, and not the seed, make the difference (Nadeau & Bengio 2003; Bouthillier et al.
    2021). Images count as residual variance here, so ``components.image`` is 0. The half-width is kept above that of a
    variance of half what images alone give.

    Args:
        pairs: Per seed, two bool (N_s,) of the same images: whether arm A is right, whether arm B is.
        confidence: Two-sided.

    Raises:
        ValueError: No pairs, or a pair whose shapes differ, are not (N_s,), have fewer than 2 images or no booleans.
    """
    if not pairs:
        raise ValueError("at least one fold is needed")
    gaps = [_gaps(a, b, 1) for a, b in pairs]
    if len(gaps) == 1:
        return _one_seed(gaps[0], confidence)
    seeds, images = len(gaps), round(sum(map(len, gaps)) / len(gaps))
    means = np.array([gap.mean(dtype=np.float64) for gap in gaps])
    between = float(means.var(ddof=1))
    within = float(np.mean([gap.var(ddof=1, dtype=np.float64) / len(gap) for gap in gaps]))
    components = Components(max(between - within, 0), 0.0, within * images)
    floor = max(within / (2 * seeds), (seeds * images) ** -2.0)
    spread = Spread(between / seeds, 0.0, floor, seeds - 1, sum(map(len, gaps)) - seeds)
    return _finish(float(means.mean()), spread, components, seeds, images, confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the number of comparisons (Holm 1979): those below 0.05 keep the family's error at 5 %.

    Args:
        p_values: Of one family of comparisons, in any order.

    Returns:
        Adjusted, in the same order.

    Raises:
        ValueError: A value outside [0, 1], or not a number.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values lie between 0 and 1: {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test of two sets of predictions.

    Attributes:
        only_a: Images that only the first gets right.
        only_b: Images that only the second gets right.
        p: Two-sided.
    """

    only_a: int
    only_b: int
    p: float


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """Diagnostic: do **these two trained models** differ on images of this kind (exact McNemar test)?

    It fits where one model is compared with one other and neither will be trained again (Dietterich 1998, section 3.1):
    it knows nothing of what another seed would give, so it does not say which recipe is better.

    Args:
        a: bool (N,), which predictions are right.
        b: bool (N,), of the other model, same images.

    Raises:
        ValueError: The shapes differ, or are not (N,).
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two arrays of one shape (N,) are needed, not {a.shape} and {b.shape}")
    from scipy.special import bdtr

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


def probability_better(a: Sequence[float], b: Sequence[float]) -> float:
    """Diagnostic: share of seed pairs in which the first is better, ties counting half (Bouthillier et al. 2021).

    They call 0.75 and above a difference that matters to someone who will train once. At few seeds it is coarse: three
    allow only steps of a sixth.

    Args:
        a: One figure per seed, higher is better.
        b: Of the other arm, same seeds in the same order.

    Returns:
        P(A > B), a fraction.

    Raises:
        ValueError: The lengths differ, or there are no seeds.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"as many figures for one arm as for the other are needed, not {len(a)} and {len(b)}")
    gaps = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


def _gaps(a: NDArray[np.bool_], b: NDArray[np.bool_], axes: int) -> NDArray[np.int8]:
    if a.shape != b.shape:
        raise ValueError(f"the arms differ in shape: {a.shape} and {b.shape}")
    if a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(f"correctness is boolean, not {a.dtype} and {b.dtype}")
    if a.ndim != axes or not a.shape[0] or a.shape[-1] < 2:
        wanted = "(S, N), one seed or more by" if axes == 2 else "(N,),"
        raise ValueError(f"the shape is {wanted} two images or more, not {a.shape}")
    return a.astype(np.int8) - b.astype(np.int8)


def _one_seed(gaps: NDArray[np.int8], confidence: float) -> Difference:
    images = len(gaps)
    variance = float(gaps.var(ddof=1, dtype=np.float64))
    spread = Spread(0.0, variance / images, images**-2.0, images - 1, images - 1)
    components = Components(0.0, 0.0, variance)
    return _finish(float(gaps.mean(dtype=np.float64)), spread, components, 1, images, confidence)


def _finish(
    estimate: float, spread: Spread, components: Components, seeds: int, images: int, confidence: float
) -> Difference:
    from scipy.special import nctdtrinc, stdtridf

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
    parts = components.of_mean(seeds, images)
    scale = parts.total or 1.0
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
        shares=Components(parts.seed / scale, parts.image / scale, parts.residual / scale),
        detectable=error * float(nctdtrinc(df, 1 - POWER, critical(df, 0.05))),
        seeds_ignored=seeds == 1,
    )


def _p_value(size: float, spread: Spread) -> float:
    """The error rate at which the interval's half-width is the size of the estimate."""
    low, high = SMALLEST_P, 1.0
    for _ in range(60):  # half-widths fall as the rate grows; 60 steps on a log scale are exact to 1e-15
        middle = sqrt(low * high)
        if float(spread.half_width(middle)) > size:
            low = middle
        else:
            high = middle
    return high
