"""Intervals: numpy and scipy only."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927).

    Args:
        correct: Successes.
        count: Trials, 1 or more.
        confidence: Two-sided.

    Returns:
        Low and high, fractions.
    """
    interval = binomtest(correct, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
