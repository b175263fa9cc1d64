"""Square crops of native pixels: which crops of an image are scored, and how they are cut out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Crops:
    """How images are cropped; plain values, which a checkpoint contains.

    Attributes:
        side: Height and width of a crop, ``data.crop``.
        count: Crops of an image that are scored, ``data.crops``.
        small: What is done with an image that is smaller than a crop, ``data.small``: raise, skip or pad.
    """

    side: int
    count: int = 4
    small: str = "raise"

    def fits(self, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether images of these heights and widths, (N, 2), can be used: bool (N,)."""
        return np.asarray((sizes >= self.side).all(axis=1) | (self.small == "pad"))

    def refusal(self, height: int, width: int) -> str:
        """The reason why an image that does not fit is refused."""
        return f"is {height}×{width} (height×width); expected {self.side} or more pixels in each direction"

    def grid(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The crops that are scored: heights and widths (N, 2) to their upper left corners, int64 (N, count, 2)."""
        return self._corners(sizes, grid(self.count)[None])

    def at(self, sizes: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """One crop of each image at a position in [0, 1), float64 (N, 2), of all where it can be: int64 (N, 1, 2)."""
        free = np.maximum(sizes - self.side, 0)
        corners: NDArray[np.int64] = np.minimum((positions * (free + 1)).astype(np.int64), free)[:, None]
        return corners

    def centre(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The crop in the middle of each image: int64 (N, 1, 2)."""
        return self._corners(sizes, grid(1)[None])

    def _corners(self, sizes: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
        free = np.maximum(sizes - self.side, 0)
        corners: NDArray[np.int64] = np.rint(shares * free[:, None]).astype(np.int64)
        return corners

    def cut(self, image: NDArray[np.uint8], corners: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Cut crops out of an image: uint8 (H, W, C), int64 (K, 2) to K views, uint8 (side, side, C).

        A smaller image is extended to the right and down, by reflection without its edge.
        """
        missing = [max(self.side - length, 0) for length in image.shape[:2]]
        if any(missing):
            image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
        return [image[y : y + self.side, x : x + self.side] for y, x in corners.tolist()]


def grid(count: int) -> NDArray[np.float64]:
    """Positions of crops as shares of the range in which a crop can be: float64 (count, 2), each in 0 to 1.

    About √count rows reach from the upper to the lower edge. The crops are shared equally among them, the first ones
    have one more if need be, and each row reaches from the left to the right edge. One row, or one crop in a row, is
    in the middle. So 1 is the centre, 4 are the corners, 5 are rows of 3 and 2, 9 are 3×3.
    """
    rows = round(count**0.5)
    lengths = [count // rows + (row < count % rows) for row in range(rows)]
    return np.array([(y, x) for y, length in zip(_spread(rows), lengths, strict=True) for x in _spread(length)])


def _spread(count: int) -> list[float]:
    return [0.5] if count == 1 else [index / (count - 1) for index in range(count)]
