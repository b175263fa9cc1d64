"""Exact k nearest neighbours of integer vectors, such as pixels, in plain torch.

Squared Euclidean distances of integers are integers: ‖q − r‖² = ‖q‖² + ‖r‖² − 2 q·r, with an exact product (see
``products.py``). For many images on a CPU without int8 products, lower bounds of the distances are computed first (see
``bounds.py``). Then only pairs with a small bound need the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepfake_cls.models.bounds import CosineBounds, bounds_for
from deepfake_cls.models.products import blocks, pair_products, product_for, square_norms

QUERY_ROWS = 2_048
REFERENCE_ROWS = 1_024
PAIR_COST = 14  # time of the product of a single pair, relative to that of a pair in a complete block
PATIENCE = 2  # after this many blocks in a row without a gain, bounds are no longer computed

Progress = Callable[[int], None]


def nearest(
    queries: NDArray[Any],
    references: NDArray[Any],
    k: int,
    *,
    device: str = "cpu",
    int8: bool = False,
    progress: Progress | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The k nearest references of each query, sorted by distance, then by index.

    Memory beyond the inputs does not grow with the number of references; memory-mapped inputs are read in blocks.

    Args:
        queries: Integers (Q, ...), flattened to (Q, D).
        references: Integers (N, ...), flattened to (N, D).
        k: 1 to N.
        device: Device of the products.
        int8: Use int8 products for uint8 input; exact only where :func:`deepfake_cls.hardware.has_int8` is true.
        progress: Called after each block with the number of references done.

    Returns:
        Squared distances int64 (Q, k), and indices int64 (Q, k).

    Raises:
        ValueError: If shapes or types do not match, k is out of range, or the integers are too large.
    """
    _check(queries, references, k)
    product = product_for(queries, references, int8)
    index_bits = max(1, (len(references) - 1).bit_length())
    bounds = None if device != "cpu" or int8 else bounds_for(queries, references)
    query_blocks = _query_blocks(queries, device)
    best = [_Nearest(rows, k, index_bits, bounds) for rows in query_blocks()]
    useless = 0
    for start, block in blocks(references, REFERENCE_ROWS, device):
        norms = square_norms(block)
        vectors = None
        if bounds is not None and useless < PATIENCE and (start >= k or k * PAIR_COST < len(block)):
            vectors = bounds.vectors(block, norms)
            useless += 1
        for part, rows in zip(best, query_blocks(), strict=True):
            pairs = None if vectors is None else part.candidates(rows, block, norms, vectors)
            if pairs is None:
                part.add(product(rows, block), norms, start)
            else:
                part.add_pairs(pair_products(rows, block, *pairs), *pairs, norms, start)
                useless = 0
        if progress is not None:
            progress(start + len(block))
    return _distances_and_indices(best, index_bits)


def _check(queries: NDArray[Any], references: NDArray[Any], k: int) -> None:
    if not 1 <= k <= len(references):
        raise ValueError(f"k={k}: expected 1 to {len(references)}, the number of reference images.")
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"queries have shape {queries.shape[1:]}, references {references.shape[1:]}.")
    if queries.dtype != references.dtype or not np.issubdtype(queries.dtype, np.integer):
        raise ValueError(f"expected integers of one type, got {queries.dtype} and {references.dtype}.")


def _query_blocks(queries: NDArray[Any], device: str) -> Callable[[], Iterable[Tensor]]:
    """A function that returns the blocks of queries; they stay on a GPU if they fit a quarter of its memory."""
    if device != "cpu" and queries.nbytes <= torch.cuda.mem_get_info(device)[0] // 4:
        resident = [rows for _, rows in blocks(queries, QUERY_ROWS, device)]
        return lambda: resident
    return lambda: (rows for _, rows in blocks(queries, QUERY_ROWS, device))


def _distances_and_indices(best: list[_Nearest], index_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if any(int(part.farthest) >= 1 << (63 - index_bits) for part in best):
        raise ValueError(f"distances and {2**index_bits} indices do not fit 63 bits together.")
    keys = torch.cat([part.keys for part in best]).cpu()
    return (keys >> index_bits).numpy(), (keys & ((1 << index_bits) - 1)).numpy()


class _Nearest:
    """The nearest references so far of one block of queries, (Q, D).

    A key is one int64 with the distance in the upper and the index in the lower bits, so that sorting by keys sorts by
    distance, then by index.
    """

    def __init__(self, rows: Tensor, k: int, index_bits: int, bounds: CosineBounds | None) -> None:
        self.k, self.index_bits, self.bounds = k, index_bits, bounds
        self.norms = square_norms(rows)
        self.vectors = None if bounds is None else bounds.vectors(rows, self.norms)
        self.keys = torch.empty((len(rows), 0), dtype=torch.int64, device=rows.device)
        # The largest distance, to detect overflow; read once, at the end, because reading waits for the GPU.
        self.farthest = torch.zeros((), dtype=torch.int64, device=rows.device)

    def add(self, products: Tensor, norms: Tensor, start: int) -> None:
        """Add the references from index ``start`` on, by products (Q, B) and square norms (B,)."""
        index = torch.arange(start, start + len(norms), device=norms.device)
        self._merge(self._keys(_distances(products, self.norms[:, None], norms), index))

    def add_pairs(self, products: Tensor, query: Tensor, reference: Tensor, norms: Tensor, start: int) -> None:
        """Add only some pairs of a query and a reference, by products (P,) and rows (P,), (P,)."""
        keys = self._keys(_distances(products, self.norms[query], norms[reference]), reference + start)
        # One row for each query, filled up with keys that are larger than all others.
        counts = torch.bincount(query, minlength=len(self.norms))
        column = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        table = torch.full((len(counts), int(counts.max())), torch.iinfo(torch.int64).max)
        table[query, column] = keys
        self._merge(table)

    def candidates(self, rows: Tensor, block: Tensor, norms: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor] | None:
        """Pairs of a query and a reference whose lower bound allows that the reference is among the k nearest.

        Args:
            rows: int8 (Q, D), the queries.
            block: int8 (B, D), the references.
            norms: int64 (B,), square norms of the references.
            vectors: float32 (B, d + 1), vectors of the references for the bounds.

        Returns:
            Rows of the queries and of the references, int64 (P,), sorted; None if products of all pairs are faster.
        """
        assert self.bounds is not None
        assert self.vectors is not None
        lower = self.bounds.lower(self.vectors, vectors, norms)
        if self.keys.shape[1] == self.k:
            distances = self.keys[:, -1] >> self.index_bits
        else:
            # In the first block, the k-th nearest is at most as far as the farthest of any k references.
            reference = lower.topk(self.k, dim=1, largest=False).indices.sort(dim=1).values.flatten()
            query = torch.arange(len(rows)).repeat_interleave(self.k)
            products = pair_products(rows, block, query, reference)
            distances = _distances(products, self.norms[query], norms[reference]).view(-1, self.k).amax(dim=1)
        near = lower <= self.bounds.limits(self.norms, distances)[:, None]
        query, reference = near.nonzero(as_tuple=True)
        return (query, reference) if len(query) * PAIR_COST < near.numel() else None

    def _keys(self, distances: Tensor, index: Tensor) -> Tensor:
        if distances.numel():
            self.farthest = torch.maximum(self.farthest, distances.max())
        return distances.mul_(1 << self.index_bits).add_(index)

    def _merge(self, keys: Tensor) -> None:
        if self.keys.shape[1]:
            keys = torch.cat([self.keys, keys], dim=1)
        self.keys = keys.topk(min(self.k, keys.shape[1]), dim=1, largest=False, sorted=True).values


def _distances(products: Tensor, query_norms: Tensor, reference_norms: Tensor) -> Tensor:
    """‖q‖² + ‖r‖² − 2 q·r, in the memory of the products."""
    return products.mul_(-2).add_(query_norms).add_(reference_norms)


def votes(neighbours: NDArray[np.int64], labels: NDArray[np.int64], classes: int, ks: list[int]) -> NDArray[np.int64]:
    """Votes for each class among the first k neighbours, for each of several k.

    Args:
        neighbours: int64 (Q, K), indices of references, nearest first.
        labels: int64 (N,), of the references.
        classes: Number of classes C.
        ks: Each at most K.

    Returns:
        int64 (len(ks), Q, C). ``argmax`` over the last axis is the prediction: the class with the most votes, and of
        classes with equal votes the first one, as in scikit-learn.
    """
    one_hot = labels[neighbours][..., None] == np.arange(classes)  # (Q, K, C)
    counts = one_hot.cumsum(axis=1, dtype=np.int64)
    return np.stack([counts[:, k - 1] for k in ks])
