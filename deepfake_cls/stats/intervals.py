"""Intervals of a proportion and of a mean over seeds; ``compare`` compares two arms.

Distributions come from ``scipy.special``, imported inside functions: ``scipy.stats`` would add 3 s to every command.
The tests compare the results with ``scipy.stats``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def wilson(correct: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927).

    Args:
        correct: Successes; a mean over seeds need not be whole.
        count: Trials, 1 or more; an effective number need not be whole.
        confidence: Two-sided level.

    Returns:
        Low and high, fractions.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / count
    centre = share + z**2 / (2 * count)
    half = z * sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def critical(df: float, alpha: float) -> float:
    """Two-sided critical value of Student's t.

    Args:
        df: Degrees of freedom; infinite for the normal distribution.
        alpha: Probability of both tails together.
    """
    if df == inf:
        return -NormalDist().inv_cdf(alpha / 2)
    from scipy.special import stdtrit

    return float(-stdtrit(df, alpha / 2))


@dataclass(frozen=True)
class Summary:
    """A metric of an arm over its seeds, in the metric's unit.

    Attributes:
        seeds: Number of seeds, 1 or more.
        mean: Mean over seeds.
        sd: Standard deviation between seeds (divisor n − 1); None for one seed.
        low: Lower end of the t interval of the mean; None for one seed.
        high: Upper end.
    """

    seeds: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float] | NDArray[np.float64], confidence: float = 0.95) -> Summary:
    """Mean, standard deviation and t interval over seeds.

    The interval is about other seeds **on these images**; it does not cover other images.

    Args:
        values: One per seed.
        confidence: Two-sided level.

    Raises:
        ValueError: If there is no value, or one is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"expected one value per seed, and at least one; the shape is {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"every value must be finite: {x.tolist()}")
    mean = float(x.mean())
    if x.size == 1:
        return Summary(1, mean, None, None, None)
    sd = float(x.std(ddof=1))
    half = critical(x.size - 1, 1 - confidence) * sd / sqrt(x.size)
    return Summary(x.size, mean, sd, mean - half, mean + half)
