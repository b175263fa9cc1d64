"""Lower bounds of distances between images, from a few coefficients of their cosine transform, in plain torch.

Natural images keep most of their energy in low frequencies, and of colours in their sum. In an orthonormal basis of
that kind, let an image x be x_low, its d first coefficients, and x_rest, all others. Then by Cauchy and Schwarz

    ‖q − r‖² ≥ ‖q‖² + ‖r‖² − 2 (q_low·r_low + ‖q_rest‖ ‖r_rest‖),

which is one product of d + 1 columns in place of one of H·W·C. The filter-and-refine scheme is that of Faloutsos,
Ranganathan and Manolopoulos (1994); that the rest's norm tightens it, of Cauchy and Schwarz.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOW = 0.4
KEPT = 16  # one coefficient for so many values of an image
PIECE = 64  # images that are transformed at once
ROUNDING = 2.0**-24  # unit roundoff of float32


def break_even(height: int, width: int, channels: int) -> float:
    """How many queries pay for the transform of the references.

    It grows with the number of rows and columns, a product with one query does not. For 100×100×3 values 100 queries
    were measured to take as long either way; twice that is asked.
    """
    return height + LOW * width * channels


class Cosines:
    """Coefficients of an orthonormal cosine transform over H, W and C: of low frequencies, those that vary most.

    They take a quarter of the memory of the uint8 images that they describe. float32 products must not be rounded to
    fewer bits (``torch.get_float32_matmul_precision``).

    Args:
        sample: int8 (n, H·W·C), by which coefficients are chosen. Any choice gives valid bounds.
        shape: (H, W, C).
    """

    def __init__(self, sample: Tensor, shape: tuple[int, int, int]) -> None:
        height, width, channels = shape
        rows = _cosines(height)[: math.ceil(LOW * height)]  # (U, H)
        columns = torch.kron(_cosines(width)[: math.ceil(LOW * width)].contiguous(), _cosines(channels))  # (V·C, W·C)
        self._shape = (height, width * channels)
        self._rows, self._columns = rows, columns
        self._kept = torch.arange(len(rows) * len(columns))
        spread = self._coefficients(sample).var(dim=0, correction=0)
        kept = spread.topk(max(1, min(len(spread), math.prod(shape) // KEPT))).indices
        # Of columns of which nothing is kept, nothing is computed either.
        used, place = torch.unique(kept % len(columns), return_inverse=True)
        self._kept = kept // len(columns) * len(used) + place
        self._columns = columns[used]
        # What float32 can lose of ‖q‖² + ‖r‖² in the worst case, to first order: a product of n terms n·u of the
        # product of norms (Higham 2002, section 3.5), with ‖|B|‖ ≤ √n for n orthonormal rows; 16 single roundings.
        worst = 2 * (height**1.5 + (width * channels) ** 1.5) + len(kept) + 16
        self.slack = worst * ROUNDING

    def _coefficients(self, images: Tensor) -> Tensor:
        parts = []
        for piece in torch.split(images, PIECE):
            x = piece.float().view(-1, *self._shape)  # (n, H, W·C)
            y = (self._rows @ x) @ self._columns.T  # (n, U, V·C)
            parts.append(y.flatten(1).index_select(1, self._kept))
        return torch.cat(parts)

    def __call__(self, images: Tensor, square_norms: Tensor) -> Tensor:
        """Vectors whose products are upper bounds of the images' products, but for ``slack``.

        Args:
            images: int8 (n, H·W·C).
            square_norms: int64 (n,), ‖image‖².

        Returns:
            float32 (n, d + 1): coefficients, and the norm of all others.
        """
        low = self._coefficients(images)
        norms = square_norms.float()
        rest = (norms - low.square().sum(dim=1)).clamp_(min=0) + self.slack * norms
        return torch.cat([low, rest.sqrt_()[:, None]], dim=1)

    def nearness(self, queries: Tensor, references: Tensor, square_norms: Tensor) -> Tensor:
        """Upper bounds of (‖q‖² − ‖q − r‖²) / 2 − slack · ‖q‖²: float32 (Q, N).

        Args:
            queries: (Q, d + 1), from ``__call__``.
            references: (N, d + 1).
            square_norms: int64 (N,), of the references.
        """
        found: Tensor = torch.addmm(square_norms.float() * -(0.5 - self.slack), queries, references.T)
        return found

    def least(self, square_norms: Tensor, distances: Tensor) -> Tensor:
        """The ``nearness`` that a reference within a distance of the query has at least: float32 (Q,).

        Args:
            square_norms: int64 (Q,), of the queries.
            distances: int64 (Q,), squared.
        """
        found: Tensor = (0.5 - self.slack) * square_norms.double() - 0.5 * distances.double()
        return found.float()


def _cosines(count: int) -> Tensor:
    """The orthonormal DCT-II: float32 (count, count), by rows."""
    place = torch.arange(count, dtype=torch.float64)
    basis = torch.cos(math.pi / count * (place[None, :] + 0.5) * place[:, None]) * math.sqrt(2 / count)
    basis[0] /= math.sqrt(2)
    return basis.float()
