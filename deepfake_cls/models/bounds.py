"""Lower bounds of distances between images, from a few coefficients of their cosine transform.

Most of the energy of natural images lies in low frequencies, and of their colours in the sum of the channels. In an
orthonormal basis, let x_low be the first d coefficients of an image x, and x_rest the others. By Cauchy and Schwarz

    ‖q − r‖² ≥ ‖q‖² + ‖r‖² − 2 (q_low·r_low + ‖q_rest‖ ‖r_rest‖),

a product of d + 1 columns instead of H·W·C. So the exact distance is needed only where the bound is small: filter and
refine (Faloutsos, Ranganathan and Manolopoulos 1994).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

from deepfake_cls.models.products import blocks

LOW = 0.4  # share of the rows' and of the columns' frequencies that are computed
VALUES_PER_COEFFICIENT = 16
PIECE = 64  # images that are transformed at once
ROUNDING = 2.0**-24  # unit roundoff of float32


def bounds_for(queries: NDArray[Any], references: NDArray[Any]) -> CosineBounds | None:
    """Bounds for uint8 images (N, H, W, C) on a CPU; None where they cannot save time."""
    if queries.dtype != np.uint8 or queries.ndim != 4 or 0 in queries.shape:
        return None
    # TF32 and bf16 products round more than ``slack`` allows for.
    if len(queries) < break_even(*queries.shape[1:]) or torch.get_float32_matmul_precision() != "highest":
        return None
    rows = np.linspace(0, len(references) - 1, min(len(references), PIECE)).astype(np.int64)
    height, width, channels = queries.shape[1:]
    return CosineBounds(next(blocks(references[rows], PIECE, "cpu"))[1], (height, width, channels))


def break_even(height: int, width: int, channels: int) -> float:
    """The number of queries from which on bounds save time.

    The transform of a reference costs about as much as products with this many queries. For 100×100×3 values this is
    twice the measured break-even.
    """
    return height + LOW * width * channels


class CosineBounds:
    """An orthonormal cosine transform over H, W and C, restricted to the coefficients that vary most.

    Args:
        sample: int8 (n, H·W·C), images that choose the coefficients. Bounds are valid for any choice.
        shape: (H, W, C).
    """

    def __init__(self, sample: Tensor, shape: tuple[int, int, int]) -> None:
        height, width, channels = shape
        self._shape = (height, width * channels)
        self._rows = _cosines(height)[: math.ceil(LOW * height)]  # (U, H)
        columns = torch.kron(_cosines(width)[: math.ceil(LOW * width)].contiguous(), _cosines(channels))
        self._columns = columns  # (V·C, W·C)
        self._selected = torch.arange(len(self._rows) * len(columns))
        variance = self._coefficients(sample).var(dim=0, correction=0)
        count = max(1, min(len(variance), math.prod(shape) // VALUES_PER_COEFFICIENT))
        selected = variance.topk(count).indices
        used, column = torch.unique(selected % len(columns), return_inverse=True)  # others need not be computed
        self._columns = columns[used]
        self._selected = selected // len(columns) * len(used) + column
        # Largest float32 error of a bound, relative to ‖q‖² + ‖r‖², to first order: a product of n terms has n
        # roundings, relative to the product of the norms (Higham 2002, section 3.5), where ‖|B|‖ ≤ √n for n
        # orthonormal rows; and 16 single roundings.
        roundings = 2 * (height**1.5 + (width * channels) ** 1.5) + count + 16
        self.slack = roundings * ROUNDING

    def _coefficients(self, images: Tensor) -> Tensor:
        parts = []
        for piece in torch.split(images, PIECE):
            x = piece.float().view(-1, *self._shape)  # (n, H, W·C)
            y = (self._rows @ x) @ self._columns.T  # (n, U, V·C)
            parts.append(y.flatten(1).index_select(1, self._selected))
        return torch.cat(parts)

    def vectors(self, images: Tensor, square_norms: Tensor) -> Tensor:
        """Coefficients and the norm of all others: float32 (n, d + 1).

        Args:
            images: int8 (n, H·W·C).
            square_norms: int64 (n,), ‖image‖².
        """
        low = self._coefficients(images)
        norms = square_norms.float()
        other = (norms - low.square().sum(dim=1)).clamp_(min=0) + self.slack * norms
        return torch.cat([low, other.sqrt_()[:, None]], dim=1)

    def lower(self, queries: Tensor, references: Tensor, square_norms: Tensor) -> Tensor:
        """Lower bounds, to be compared with :meth:`limits`: float32 (Q, N).

        They omit the terms of the distance that depend only on the query.

        Args:
            queries: (Q, d + 1), from :meth:`vectors`.
            references: (N, d + 1), from :meth:`vectors`.
            square_norms: int64 (N,), of the references.
        """
        bounds: Tensor = torch.addmm(square_norms.float() * (1 - 2 * self.slack), queries, references.T, alpha=-2)
        return bounds

    def limits(self, square_norms: Tensor, distances: Tensor) -> Tensor:
        """The largest value of :meth:`lower` that a reference within a distance can have: float32 (Q,).

        Args:
            square_norms: int64 (Q,), of the queries.
            distances: int64 (Q,), squared.
        """
        limits: Tensor = distances.double() - (1 - 2 * self.slack) * square_norms.double()
        return limits.float()


def _cosines(count: int) -> Tensor:
    """The orthonormal DCT-II, one basis vector a row: float32 (count, count)."""
    return torch.from_numpy(fft.dct(np.eye(count), axis=0, norm="ortho")).float()
