"""What an image looks like, in a few numbers: to find near duplicates and classes that differ in colour."""

from __future__ import annotations

from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels of a thumbnail; imagehash computes its perceptual hash on this size
BINS = 4  # of each colour
COLOURS = 3 + BINS**3


@dataclass(frozen=True, eq=False)
class Appearance:
    """The appearance of N images; the rows of refused images are zero.

    Attributes:
        thumbnail: Grey values of the whole image, averaged to 32×32 pixels: uint8 (N, 32, 32).
        hash: Perceptual hash of the thumbnail (imagehash.phash): uint64 (N,).
        colour: Mean red, green and blue, 0 to 1, then the shares of 4×4×4 bins of RGB in a 32×32 version of the image:
            float32 (N, 67).
    """

    thumbnail: NDArray[np.uint8]
    hash: NDArray[np.uint64]
    colour: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.hash)


def empty(count: int) -> Appearance:
    """The appearance of so many images, all zero."""
    return Appearance(
        np.zeros((count, SIDE, SIDE), np.uint8), np.zeros(count, np.uint64), np.zeros((count, COLOURS), np.float32)
    )


def appearance_of(pixels: NDArray[np.uint8]) -> Appearance:
    """The appearance of one image, uint8 (H, W, 3 or 4), without its alpha channel."""
    small = Image.fromarray(np.ascontiguousarray(pixels[..., :3])).resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = small.convert("L")
    bits = np.packbits(imagehash.phash(grey).hash)
    return Appearance(np.asarray(grey)[None], bits.view(">u8").astype(np.uint64), colour_of(np.asarray(small))[None])


def colour_of(small: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The colour features of an image, uint8 (H, W, 3); see :class:`Appearance`."""
    levels = (small.reshape(-1, 3) // (256 // BINS)).astype(np.intp)
    shares = np.bincount(levels @ (BINS**2, BINS, 1), minlength=BINS**3) / len(levels)
    return np.concatenate([small.mean(axis=(0, 1)) / 255, shares]).astype(np.float32)
