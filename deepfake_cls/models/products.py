"""Exact products of integer vectors, as rows of two matrices, in plain torch.

==================  ======================================================  =============================
integers            arithmetic                                              exact because
==================  ======================================================  =============================
uint8 minus 128     int8 products summed in int32, at most 131,071 columns  131,071 · 2¹⁴ < 2³¹
                    at a time (VNNI, AMX, CUDA)
uint8 minus 128     float32, at most 1,024 columns at a time (other CPUs)   1,024 · 2¹⁴ = 2²⁴
other integers      float64, if columns · max² < 2⁵³                        integers are exact up to 2⁵³
==================  ======================================================  =============================

Sums of column blocks are added in 64 bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepfake_cls.randomness import to_device

INT8_COLUMNS = 131_071
FLOAT32_COLUMNS = 1_024


def blocks(rows: NDArray[Any], size: int, device: str) -> Iterator[tuple[int, Tensor]]:
    """Blocks of rows with the index of their first row: flattened, and uint8 minus 128 as int8.

    A constant that is subtracted from all values changes no distance.
    """
    for start in range(0, len(rows), size):
        block = np.ascontiguousarray(rows[start : start + size])
        block = block.reshape(len(block), -1)
        if block.dtype == np.uint8:
            block = (block ^ np.uint8(128)).view(np.int8)  # x − 128 in two's complement
        yield start, to_device(torch.from_numpy(block), torch.device(device))


def square_norms(block: Tensor) -> Tensor:
    """‖row‖²: int64 (B,)."""
    if block.dtype != torch.int8:
        return block.double().square().sum(dim=1).to(torch.int64)
    parts = [part.float().square().sum(dim=1).double() for part in torch.split(block, FLOAT32_COLUMNS, dim=1)]
    return torch.stack(parts).sum(dim=0).to(torch.int64)


def product_for(queries: NDArray[Any], references: NDArray[Any], int8: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact product for these integers: a function of (Q, D) and (B, D) that returns int64 (Q, B).

    Raises:
        ValueError: If the integers are too large.
    """
    if queries.dtype == np.uint8:
        return int8_product if int8 else float32_product
    columns = int(np.prod(queries.shape[1:]))
    largest = max(int(np.abs(queries).max(initial=0)), int(np.abs(references).max(initial=0)))
    if columns * largest**2 >= 1 << 53:
        raise ValueError(f"{columns} columns of numbers up to {largest} are not exact in float64.")
    return float64_product


def int8_product(queries: Tensor, block: Tensor) -> Tensor:
    """Products of int8, summed in int32."""
    total = torch.zeros((len(queries), len(block)), dtype=torch.int64, device=queries.device)
    for start in range(0, queries.shape[1], INT8_COLUMNS):
        left, right = queries[:, start : start + INT8_COLUMNS], block[:, start : start + INT8_COLUMNS]
        if queries.is_cuda:
            # cuBLAS needs more than 16 rows and multiples of 8; zeros do not change the sums.
            left = torch.nn.functional.pad(left, (0, -left.shape[1] % 8, 0, max(0, 17 - len(left))))
            right = torch.nn.functional.pad(right, (0, -right.shape[1] % 8, 0, -len(right) % 8))
        total += torch._int_mm(left.contiguous(), right.contiguous().T)[: len(queries), : len(block)]
    return total


def float32_product(queries: Tensor, block: Tensor) -> Tensor:
    """Products of int8, summed in float32 and then in float64, which is faster than int64."""
    total = torch.zeros((len(queries), len(block)), dtype=torch.float64, device=queries.device)
    for start in range(0, queries.shape[1], FLOAT32_COLUMNS):
        left = queries[:, start : start + FLOAT32_COLUMNS].float()
        right = block[:, start : start + FLOAT32_COLUMNS].float()
        total += left @ right.T
    return total.to(torch.int64)


def float64_product(queries: Tensor, block: Tensor) -> Tensor:
    """Products of integers in float64."""
    return (queries.double() @ block.double().T).to(torch.int64)


def pair_products(queries: Tensor, block: Tensor, query: Tensor, reference: Tensor) -> Tensor:
    """Products of some pairs of rows, summed as in :func:`float32_product`.

    Args:
        queries: int8 (Q, D).
        block: int8 (B, D).
        query: int64 (P,), rows of ``queries``, ascending.
        reference: int64 (P,), rows of ``block``, ascending for each query.

    Returns:
        int64 (P,).
    """
    zeros = torch.zeros(len(query), dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pairs = torch.sparse_coo_tensor(
            torch.stack([query, reference]),
            zeros,
            (len(queries), len(block)),
            is_coalesced=True,
            check_invariants=False,
        ).to_sparse_csr()
    total = torch.zeros(len(query), dtype=torch.float64)
    for start in range(0, queries.shape[1], FLOAT32_COLUMNS):
        left = queries[:, start : start + FLOAT32_COLUMNS].float()
        right = block[:, start : start + FLOAT32_COLUMNS].float()
        total += torch.sparse.sampled_addmm(pairs, left, right.T, beta=0.0).values()
    return total.to(torch.int64)
