"""Relative contrast: how well distances separate near from far images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def relative_contrast(queries: NDArray[Any], references: NDArray[Any], nearest: NDArray[np.int64]) -> float | None:
    """The median over queries of D_mean / D_min, the mean and the smallest distance to a reference.

    Near 1, the nearest neighbour is hardly nearer than any other image (He, Kumar and Chang 2012, equation 1). Here
    D_mean is the root of the mean squared distance, which has a closed form.

    Args:
        queries: Integers (Q, ...).
        references: Integers (N, ...).
        nearest: Squared distance to the nearest reference (Q,).

    Returns:
        The contrast, 1 or more; None if half of the queries or more have a reference at distance 0.
    """
    if np.median(nearest) == 0:
        return None
    total, squares = np.zeros(references[0].size), 0.0
    for rows in _blocks(references):
        total += rows.sum(axis=0)
        squares += float(np.einsum("ij,ij->", rows, rows))
    mean, mean_square = total / len(references), squares / len(references)
    distances = [np.einsum("ij,ij->i", rows, rows) + mean_square - 2 * rows @ mean for rows in _blocks(queries)]
    ratios = np.concatenate(distances)[nearest > 0] / nearest[nearest > 0]
    return float(np.median(np.sqrt(ratios)))


def _blocks(images: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """256 images at a time as float64 (B, D), which takes eight times the memory of uint8."""
    for start in range(0, len(images), 256):
        yield images[start : start + 256].reshape(-1, images[0].size).astype(np.float64)
