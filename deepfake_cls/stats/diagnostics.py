"""Diagnostics of a comparison of two arms. They are reported next to the interval; no verdict uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 100  # resamples at a time: 4 MB of indices at 5,000 images


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test of two sets of predictions.

    Attributes:
        only_a: Images that only the first model classifies correctly.
        only_b: Images that only the second model classifies correctly.
        p: Two-sided p value.
    """

    only_a: int
    only_b: int
    p: float


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """Exact McNemar test of two **trained models** on images of this kind (Dietterich 1998, section 3.1).

    It ignores the variation between seeds, so it does not say which configuration is better.

    Args:
        a: bool (N,), correct predictions.
        b: bool (N,), of the other model, same images.

    Raises:
        ValueError: If the shapes differ, or are not (N,).
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two arrays of one shape (N,), not {a.shape} and {b.shape}")
    from scipy.special import bdtr

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


def probability_better(a: Sequence[float], b: Sequence[float]) -> float:
    """Share of seeds in which the first arm is better; ties count half (Bouthillier et al. 2021).

    The authors call 0.75 and above a meaningful difference for someone who trains once.

    Args:
        a: One value per seed, higher is better.
        b: Of the other arm, same seeds in the same order.

    Raises:
        ValueError: If the lengths differ, or there are no seeds.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"expected as many values for both arms, and at least one; not {len(a)} and {len(b)}")
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return float(((d > 0) + 0.5 * (d == 0)).mean())


def bootstrap(
    d: NDArray[np.int8] | NDArray[np.float64], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean difference: seeds and images are both resampled with replacement.

    At 3 seeds it covers 86 to 93 % where its level is 95 % (``experiments/results/coverage.csv``).

    Args:
        d: (S, N), differences of correctness in {-1, 0, 1}, seeds by images; or those of ``groups.by_group``.
        confidence: Two-sided level.
        resamples: Number of resamples.
        seed: Of the random generator.

    Returns:
        Low and high, fractions.

    Raises:
        ValueError: If there are no seeds or no images.
    """
    if d.ndim != 2 or not d.size:
        raise ValueError(f"expected differences of shape (S, N), seeds by images, not {d.shape}")
    seeds, images = d.shape
    rng = np.random.default_rng(seed)
    cells = d.astype(np.float32)
    means = np.empty(resamples)
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count).astype(np.float32) / seeds
        drawn = rng.integers(images, size=(count, images), dtype=np.int32)
        means[start : start + count] = np.take_along_axis(weights @ cells, drawn, axis=1).mean(axis=1, dtype=np.float64)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
