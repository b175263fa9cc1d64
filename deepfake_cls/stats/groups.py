"""Images in groups, such as those of one prompt: they are not independent, so the group is the unit of an interval."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.stats.intervals import critical


def effective_count(correct: NDArray[np.bool_], groups: NDArray[np.int64], confidence: float = 0.95) -> float:
    """Number of independent images whose accuracy would be as certain as that of N images in G groups, 1 to N.

    It is N divided by the design effect (Kish 1965), times (z / t)² for the G − 1 degrees of freedom (Korn & Graubard
    1998). The design effect is the variance of an accuracy whose sampling units are groups, over that of independent
    images; at least 1. Where all predictions are correct, or all wrong, it is that of groups of equal images.
    ``wilson(accuracy * n, n)`` is then an interval over groups; ``tests/stats/test_groups.py`` simulates its coverage.

    Args:
        correct: (N,).
        groups: (N,), the group of each image, any integers.
        confidence: Two-sided level of the interval.
    """
    index, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    images, count, share = len(correct), len(sizes), float(correct.mean())
    if count == images:
        return float(images)
    if count == 1:
        return 1.0
    effect = float((sizes**2).sum()) / images
    if 0 < share < 1:
        residuals = np.bincount(index, correct) - share * sizes
        variance = count / (count - 1) * float((residuals**2).sum()) / images**2
        effect = max(1.0, variance * images / (share * (1 - share)))
    few = critical(inf, 1 - confidence) / critical(count - 1, 1 - confidence)
    return max(1.0, images / effect * few**2)


def by_group(d: NDArray[np.int8], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Differences of groups, as if each were one image: float64 (..., G); their mean is that over images.

    An accuracy of groups of unequal size is a ratio. So each value is the estimate plus the sum of the group's
    residuals, times G / N (linearisation; Cochran 1977, chapter 6).

    Args:
        d: int8 (..., N).
        groups: int64 (N,), the group of each image.

    Raises:
        ValueError: If all images are of one group.
    """
    index, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    if len(sizes) < 2:
        raise ValueError("expected images of 2 or more groups, not of one")
    rows = d.reshape(-1, d.shape[-1])
    sums = np.stack([np.bincount(index, row) for row in rows]).reshape(*d.shape[:-1], len(sizes))
    estimate = d.mean(dtype=np.float64)
    return np.asarray(estimate + (sums - estimate * sizes) * (len(sizes) / d.shape[-1]))
