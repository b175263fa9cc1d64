"""Exact nearest neighbours in whole numbers, in plain torch.

Pixels are integers, so squared Euclidean distances are too, and nothing has to be rounded:
‖q − r‖² = ‖q‖² + ‖r‖² − 2 q·r, where only the product costs. It is taken in blocks, in an arithmetic that is exact
by construction, and summed in 64 bits:

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

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

INT8_COLUMNS = 131_071  # the most products of −128·−128 that an int32 holds
FLOAT32_COLUMNS = 1_024  # the most that a float32 counts one by one
QUERY_ROWS = 2_048
REFERENCE_ROWS = 1_024

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

    Memory beyond the inputs does not grow with the number of references; memory-mapped inputs are read in blocks.

    Args:
        queries: Integers (Q, ...), flattened to (Q, D).
        references: Integers (N, ...) of the same shape otherwise.
        k: 1 to N.
        device: Where products are taken.
        int8: Use int8 products for uint8 input; only worth it where the hardware has them.
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
    # Distance and index in one int64: sorting by it sorts by distance, then by index, with no ties left.
    shift = max(1, (count - 1).bit_length())
    best = [torch.empty((0,))] * -(-len(queries) // QUERY_ROWS)
    query_norms = [_square_norms(rows) for _, rows in _blocks(queries, QUERY_ROWS, device)]
    for start, block in _blocks(references, REFERENCE_ROWS, device):
        block_norm = _square_norms(block)
        index = torch.arange(start, start + len(block), device=device)
        for number, (_, rows) in enumerate(_blocks(queries, QUERY_ROWS, device)):
            distance = dot(rows, block).mul_(-2).add_(query_norms[number][:, None]).add_(block_norm)
            if int(distance.max()) >= 1 << (63 - shift):
                raise ValueError(f"distances and {count} indices do not fit 63 bits together.")
            keys = distance.mul_(1 << shift).add_(index)
            if start > 0:
                keys = torch.cat([best[number], keys], dim=1)
            best[number] = keys.topk(min(k, keys.shape[1]), dim=1, largest=False, sorted=True).values
        if progress is not None:
            progress(start + len(block))
    keys = torch.cat(best).cpu()
    return (keys >> shift).numpy(), (keys & ((1 << shift) - 1)).numpy()


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


def _blocks(rows: NDArray[Any], size: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows, flattened; uint8 is shifted to int8, which changes no distance."""
    for start in range(0, len(rows), size):
        block = np.ascontiguousarray(rows[start : start + size]).reshape(len(rows[start : start + size]), -1)
        if block.dtype == np.uint8:
            block = (block ^ np.uint8(128)).view(np.int8)  # x − 128 in two's complement
        yield start, torch.from_numpy(block).to(device)


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
