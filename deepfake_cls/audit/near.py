"""Find images that look the same: candidates by perceptual hash, then a comparison of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DISTANCE = 10  # bits of 64 in which the hashes of a pair may differ
NEIGHBOURS = 16  # compared in each sorted order
STEP = 4  # bits between two sorted orders
CORRELATION = 0.95  # of the thumbnails; unlike images of natural scenes reach 0.8, re-encoded or rescaled ones 0.96
CONTRAST = 4.0  # standard deviation in grey levels; a thumbnail with less is flat and matches nothing
_CHUNK = 4096  # pairs
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


def near_pairs(hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pairs of images that look the same, each once: int64 (P, 2).

    A comparison of all pairs would take quadratic time. So the hashes are sorted in 16 orders, in each from another bit
    on, and only neighbours are compared. A pair is found if it has equal bits at the start of one of these orders.

    Args:
        hashes: Perceptual hashes, uint64 (N,).
        thumbnails: Grey values, uint8 (N, H, W).
    """
    pairs = {*np.concatenate([*_candidates(hashes), np.zeros(0, np.int64)]).tolist()}
    first, second = np.divmod(np.array(sorted(pairs), np.int64), max(len(hashes), 1))
    same = [
        _look_the_same(thumbnails[first[start : start + _CHUNK]], thumbnails[second[start : start + _CHUNK]])
        for start in range(0, len(first), _CHUNK)
    ]
    return np.asarray(np.stack([first, second], axis=1)[np.concatenate([*same, np.zeros(0, bool)])])


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Pairs i < j whose hashes differ in few bits, as i · N + j."""
    count = len(hashes)
    for shift in range(0, 64, STEP):
        turned = (hashes << np.uint64(shift)) | (hashes >> np.uint64((64 - shift) % 64))
        order = np.argsort(turned, kind="stable")
        for offset in range(1, min(NEIGHBOURS, count - 1) + 1):
            one, other = order[:-offset], order[offset:]
            close = differing_bits(hashes[one], hashes[other]) <= DISTANCE
            one, other = one[close], other[close]
            yield np.minimum(one, other) * count + np.maximum(one, other)


def differing_bits(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of bits in which hashes differ: int64 (N,)."""
    return np.asarray(_ONES[(one ^ other).view(np.uint16).reshape(-1, 4)].sum(axis=1, dtype=np.int64))


def _look_the_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the thumbnails of pairs, uint8 (P, H, W), are correlated enough; brightness and contrast may differ."""
    a, b = (each.reshape(len(each), -1).astype(np.float32) for each in (one, other))
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    deviations = a.std(axis=1), b.std(axis=1)
    flat = np.minimum(*deviations) < CONTRAST
    return np.asarray(~flat & ((a * b).mean(axis=1) >= CORRELATION * deviations[0] * deviations[1]))


def components(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """A number for each row that is equal for connected rows, −1 for those in no pair: int64 (count,).

    Args:
        pairs: int64 (P, 2), rows below ``count``.
        count: Number of rows.
    """
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found = np.full(count, -1, np.int64)
    found[pairs] = connected_components(graph, directed=False)[1][pairs]
    return found


def equal_values(values: NDArray[Any], rows: NDArray[np.int64]) -> list[list[int]]:
    """The given rows with equal values: lists of two or more, each ascending, in the order of their first row."""
    _, inverse = np.unique(values[rows], return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(rows[order], np.flatnonzero(np.diff(inverse[order])) + 1)
    return sorted(part.tolist() for part in parts if len(part) > 1)
