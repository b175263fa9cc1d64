"""Exact nearest neighbours in whole numbers, in plain torch.

Pixels are integers, so squared Euclidean distances are too, and nothing has to be rounded:
‖q − r‖² = ‖q‖² + ‖r‖² − 2 q·r, where only the product costs. It is taken in blocks, in an arithmetic that is exact
by construction, and summed in 64 bits. For many images on a CPU without int8 products, a lower bound of each distance
is taken first, and the product only where the bound leaves a chance (``bounds.py``); where it leaves too many, as in
noise, of all.

==================  =====================================================  =============================
numbers             arithmetic                                             exact because
==================  =====================================================  =============================
uint8, less 128     int8 products summed in int32, at most 131,071         131,071 · 2¹⁴ < 2³¹
                    columns at a time (VNNI, AMX, CUDA)
uint8, less 128     float32, at most 1,024 columns at a time (other CPUs)  1,024 · 2¹⁴ = 2²⁴
other integers      float64, if columns · max² < 2⁵³                       whole numbers up to 2⁵³
==================  =====================================================  =============================
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepfake_cls.models import bounds as lower
from deepfake_cls.models.bounds import PIECE, Cosines
from deepfake_cls.randomness import to_device

INT8_COLUMNS = 131_071  # the most products of −128·−128 that an int32 holds
FLOAT32_COLUMNS = 1_024  # the most that a float32 counts one by one
QUERY_ROWS = 2_048
REFERENCE_ROWS = 1_024
PAIR_COST = 14  # the product of one chosen pair takes as long as this many of a full product
PATIENCE = 2  # blocks in a row that bounds were asked for and thinned none out, until they are given up

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
    """The k nearest references of each query, in order of distance, then of index.

    Memory beyond the inputs does not grow with the number of references; memory-mapped inputs are read in blocks. The
    result never depends on the bounds, the time does.

    Args:
        queries: Integers (Q, ...), flattened to (Q, D).
        references: Integers (N, ...) of the same shape otherwise.
        k: 1 to N.
        device: Where products are taken.
        int8: Use int8 products for uint8 input; exact only where :func:`deepfake_cls.hardware.has_int8` says so.
        progress: Called with the number of references done after each block.

    Returns:
        Squared Euclidean distances int64 (Q, k), and indices int64 (Q, k).

    Raises:
        ValueError: If shapes do not fit, k is out of range, numbers are no integers, or too large to be exact.
    """
    count = len(references)
    if not 1 <= k <= count:
        raise ValueError(f"k={k}: expected 1 to {count}, the number of reference images.")
    if queries.shape[1:] != references.shape[1:]:
        raise ValueError(f"queries have shape {queries.shape[1:]}, references {references.shape[1:]}.")
    if queries.dtype != references.dtype or not np.issubdtype(queries.dtype, np.integer):
        raise ValueError(f"expected integers of one type, got {queries.dtype} and {references.dtype}.")
    dot = _product(queries, references, int8)
    bits = max(1, (count - 1).bit_length())
    bounds = None if device != "cpu" or int8 else _bounds(queries, references)
    # On a GPU the queries stay there, so that they cross the bus once and not again for each block of references.
    held = None
    if device != "cpu" and queries.nbytes <= torch.cuda.mem_get_info(device)[0] // 4:
        held = list(_blocks(queries, QUERY_ROWS, device))
    found = [_Nearest(rows, k, bits, bounds) for _, rows in held or _blocks(queries, QUERY_ROWS, device)]
    futile = 0
    for start, block in _blocks(references, REFERENCE_ROWS, device):
        norms = _square_norms(block)
        asked = futile < PATIENCE and any(best.may_ask(len(block)) for best in found)
        vectors = bounds(block, norms) if bounds and asked else None
        thinned = False
        for best, (_, rows) in zip(found, held or _blocks(queries, QUERY_ROWS, device), strict=True):
            pairs = None
            if vectors is not None and best.may_ask(len(block)):
                pairs = best.promising(rows, block, norms, vectors)
            if pairs is None:
                best.add(dot(rows, block), norms, start)
            else:
                best.add_pairs(_pair_product(rows, block, *pairs), *pairs, norms, start)
                thinned = True
        futile = 0 if thinned else futile + asked
        if progress is not None:
            progress(start + len(block))
    if any(int(best.farthest) >= 1 << (63 - bits) for best in found):
        raise ValueError(f"distances and {2**bits} indices do not fit 63 bits together.")
    keys = torch.cat([best.keys for best in found]).cpu()
    return (keys >> bits).numpy(), (keys & ((1 << bits) - 1)).numpy()


class _Nearest:
    """The nearest references so far, of one block of queries.

    Distance and index lie in one int64, the key: sorting by it sorts by distance, then by index, with no ties left.

    Args:
        rows: (Q, D), the queries.
        k: How many are wanted.
        bits: Of a key that hold the index.
        bounds: Where they are taken of these queries.
    """

    def __init__(self, rows: Tensor, k: int, bits: int, bounds: Cosines | None) -> None:
        self.k, self.bits, self.bounds = k, bits, bounds
        self.norms = _square_norms(rows)
        self.vectors = bounds(rows, self.norms) if bounds else None
        self.keys = torch.empty((len(rows), 0), dtype=torch.int64, device=rows.device)
        self.farthest = torch.zeros((), dtype=torch.int64, device=rows.device)  # read at the end: to read is to wait

    def may_ask(self, count: int) -> bool:
        """Whether bounds may help among so many references: k are known, or k of these can be tried at little cost."""
        return self.keys.shape[1] == self.k or self.k * PAIR_COST < count

    def promising(self, rows: Tensor, block: Tensor, norms: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor] | None:
        """Pairs of a query and a reference that may be near enough.

        Args:
            rows: int8 (Q, D).
            block: int8 (B, D), references.
            norms: int64 (B,), theirs.
            vectors: Their vectors for the bounds.

        Returns:
            Queries and references int64 (P,), in order; None where a product of all is faster than of so many.
        """
        assert self.bounds is not None
        assert self.vectors is not None
        nearness = self.bounds.nearness(self.vectors, vectors, norms)
        if self.keys.shape[1] == self.k:
            reach = self.keys[:, -1] >> self.bits
        else:
            # None is known yet: of any k references the farthest is at least as far as the k-th nearest.
            reference = nearness.topk(self.k, dim=1).indices.flatten()
            query = torch.arange(len(rows)).repeat_interleave(self.k)
            products = _pair_product(rows, block, query, reference)
            reach = self._distances(products, self.norms[query], norms[reference]).view(-1, self.k).amax(dim=1)
        near = nearness >= self.bounds.least(self.norms, reach)[:, None]
        query, reference = near.nonzero(as_tuple=True)
        return (query, reference) if len(query) * PAIR_COST < near.numel() else None

    def add(self, products: Tensor, norms: Tensor, start: int) -> None:
        """Take up a block of references: products int64 (Q, B), norms int64 (B,), and the index of the first."""
        index = torch.arange(start, start + len(norms), device=norms.device)
        self._add(self._keys(self._distances(products, self.norms[:, None], norms), index))

    def add_pairs(self, products: Tensor, query: Tensor, reference: Tensor, norms: Tensor, start: int) -> None:
        """Take up some of a block's references: products int64 (P,), and see :meth:`promising`."""
        keys = self._keys(self._distances(products, self.norms[query], norms[reference]), reference + start)
        counts = torch.bincount(query, minlength=len(self.norms))
        place = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]  # among those of its query
        table = torch.full((len(counts), int(counts.max())), torch.iinfo(torch.int64).max)
        table[query, place] = keys
        self._add(table)

    def _distances(self, products: Tensor, norms: Tensor, others: Tensor) -> Tensor:
        return products.mul_(-2).add_(norms).add_(others)

    def _keys(self, distances: Tensor, index: Tensor) -> Tensor:
        if distances.numel():
            self.farthest = torch.maximum(self.farthest, distances.max())
        return distances.mul_(1 << self.bits).add_(index)

    def _add(self, keys: Tensor) -> None:
        if self.keys.shape[1]:
            keys = torch.cat([self.keys, keys], dim=1)
        self.keys = keys.topk(min(self.k, keys.shape[1]), dim=1, largest=False, sorted=True).values


def votes(neighbours: NDArray[np.int64], labels: NDArray[np.int64], classes: int, ks: list[int]) -> NDArray[np.int64]:
    """Votes for each class among the first k neighbours, for all k at once.

    Args:
        neighbours: int64 (Q, K), nearest first.
        labels: int64 (N,), of the references.
        classes: Number of classes C.
        ks: Each at most K.

    Returns:
        int64 (len(ks), Q, C). The largest vote wins, the smaller label where votes are equal: ``argmax`` over the
        last axis, as in scikit-learn.
    """
    one_hot = labels[neighbours][..., None] == np.arange(classes)  # (Q, K, C)
    counts = one_hot.cumsum(axis=1, dtype=np.int64)
    return np.stack([counts[:, k - 1] for k in ks])


def _bounds(queries: NDArray[Any], references: NDArray[Any]) -> Cosines | None:
    """Bounds of distances between images, where they may save time; None where not."""
    if queries.dtype != np.uint8 or queries.ndim != 4 or 0 in queries.shape:
        return None
    height, width, channels = queries.shape[1:]
    # Bounds count on float32 being float32; of a product of whole numbers TF32 and bf16 leave enough.
    if len(queries) < lower.break_even(height, width, channels) or torch.get_float32_matmul_precision() != "highest":
        return None
    sample = references[np.linspace(0, len(references) - 1, min(len(references), PIECE)).astype(np.int64)]
    return Cosines(next(_blocks(sample, PIECE, "cpu"))[1], (height, width, channels))


def _blocks(rows: NDArray[Any], size: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows, flattened; uint8 is shifted to int8, which changes no distance."""
    for start in range(0, len(rows), size):
        block = np.ascontiguousarray(rows[start : start + size]).reshape(len(rows[start : start + size]), -1)
        if block.dtype == np.uint8:
            block = (block ^ np.uint8(128)).view(np.int8)  # x − 128 in two's complement
        yield start, to_device(torch.from_numpy(block), torch.device(device))


def _square_norms(block: Tensor) -> Tensor:
    """‖row‖² as int64 (B,)."""
    if block.dtype != torch.int8:
        return block.double().square().sum(dim=1).to(torch.int64)
    # Squares are at most 2¹⁴, so 1,024 of them are exact in float32.
    parts = [part.float().square().sum(dim=1).double() for part in torch.split(block, FLOAT32_COLUMNS, dim=1)]
    return torch.stack(parts).sum(dim=0).to(torch.int64)


def _product(queries: NDArray[Any], references: NDArray[Any], int8: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact product for these numbers: (Q, D) and (B, D) to int64 (Q, B)."""
    if queries.dtype == np.uint8:
        return _int8_product if int8 else _float32_product
    columns = int(np.prod(queries.shape[1:]))
    reach = max(int(np.abs(queries).max(initial=0)), int(np.abs(references).max(initial=0)))
    if columns * reach**2 >= 1 << 53:
        raise ValueError(f"{columns} columns of numbers up to {reach} are not exact in float64.")
    return _float64_product


def _int8_product(queries: Tensor, block: Tensor) -> Tensor:
    """Sum int8 products in int32, and blocks of columns in int64."""
    total = torch.zeros((len(queries), len(block)), dtype=torch.int64, device=queries.device)
    for start in range(0, queries.shape[1], INT8_COLUMNS):
        left, right = queries[:, start : start + INT8_COLUMNS], block[:, start : start + INT8_COLUMNS]
        if queries.is_cuda:
            # cuBLAS wants more than 16 rows and multiples of 8; zeros add nothing.
            left = torch.nn.functional.pad(left, (0, -left.shape[1] % 8, 0, max(0, 17 - len(left))))
            right = torch.nn.functional.pad(right, (0, -right.shape[1] % 8, 0, -len(right) % 8))
        total += torch._int_mm(left.contiguous(), right.contiguous().T)[: len(queries), : len(block)]
    return total


def _float32_product(queries: Tensor, block: Tensor) -> Tensor:
    """Sum products of at most 1,024 columns in float32, and those sums in float64, which is faster than int64."""
    total = torch.zeros((len(queries), len(block)), dtype=torch.float64, device=queries.device)
    for start in range(0, queries.shape[1], FLOAT32_COLUMNS):
        left = queries[:, start : start + FLOAT32_COLUMNS].float()
        right = block[:, start : start + FLOAT32_COLUMNS].float()
        total += left @ right.T
    return total.to(torch.int64)


def _float64_product(queries: Tensor, block: Tensor) -> Tensor:
    """Whole numbers below 2⁵³ are exact in float64."""
    return (queries.double() @ block.double().T).to(torch.int64)


def _pair_product(queries: Tensor, block: Tensor, query: Tensor, reference: Tensor) -> Tensor:
    """The exact products of chosen pairs, in the arithmetic of ``_float32_product``.

    Args:
        queries: int8 (Q, D).
        block: int8 (B, D).
        query: int64 (P,), ascending.
        reference: int64 (P,).

    Returns:
        int64 (P,).
    """
    used, column = torch.unique(reference, return_inverse=True)
    block = block.index_select(0, used) if len(used) < len(block) else block
    first = torch.zeros(len(queries) + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(query, minlength=len(queries)), dim=0, out=first[1:])
    total = torch.zeros(len(query), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        size = (len(queries), len(block))
        chosen = torch.sparse_csr_tensor(
            first, column, torch.zeros(len(column), dtype=torch.float32), size, check_invariants=False
        )
    for start in range(0, queries.shape[1], FLOAT32_COLUMNS):
        left = queries[:, start : start + FLOAT32_COLUMNS].float()
        right = block[:, start : start + FLOAT32_COLUMNS].float()
        total += torch.sparse.sampled_addmm(chosen, left, right.T, beta=0.0).values()
    return total.to(torch.int64)
