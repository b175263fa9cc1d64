"""Image features for KNN: raw pixels, colour histograms, spectra; integers, so that distances are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # imports its submodules on first use
from numpy.typing import NDArray

BINS = 8  # for each of R, G and B, which gives 512 joint bins
SPECTRUM_STEPS = 64.0  # quantisation of log2(power); finer steps change no neighbour on the embedded data
_CHUNK = 256


def features(images: NDArray[np.uint8], kind: str, channels: str) -> NDArray[Any]:
    """Compute the features of each image.

    Args:
        images: uint8 (N, H, W, C), may be memory-mapped; raw features are a view of them.
        kind: ``raw``, ``histogram`` (joint RGB histogram of 8×8×8 bins, counts) or ``spectrum`` (azimuthal mean of
            the log power spectrum of the grey image: Durall et al. 2020).
        channels: ``RGBA`` includes the alpha channel in raw features, if the images have one; ``RGB`` omits it.

    Returns:
        uint8 (N, H, W, C'), or int64 (N, D).
    """
    if kind == "raw":
        return images[..., :3] if channels == "RGB" else images
    compute = {"histogram": histogram, "spectrum": spectrum}[kind]
    chunks = [compute(images[start : start + _CHUNK, ..., :3]) for start in range(0, len(images), _CHUNK)]
    return np.concatenate(chunks)


def histogram(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the colours of each image: uint8 (N, H, W, 3) to a joint histogram, int64 (N, 512)."""
    red, green, blue = np.moveaxis(images.reshape(len(images), -1, 3).astype(np.int64) * BINS // 256, 2, 0)
    cells = BINS**3
    joint = (red * BINS + green) * BINS + blue + cells * np.arange(len(images))[:, None]
    return np.bincount(joint.ravel(), minlength=cells * len(images)).reshape(len(images), cells).astype(np.int64)


def spectrum(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Average the log2 power spectrum over rings: uint8 (N, H, W, 3) to int64 (N, min(H, W) // 2)."""
    grey = images.astype(np.float64).mean(axis=-1)
    _, height, width = grey.shape
    power = np.abs(scipy.fft.fft2(grey)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    count = min(height, width) // 2
    # Frequencies beyond the Nyquist frequency, in the corners, are in ring ``count``, which is omitted.
    ring = np.minimum((frequency * 2 * count).astype(np.int64), count)
    weight = (ring.ravel()[:, None] == np.arange(count)).astype(np.float64)
    mean = np.log2(power + 1.0).reshape(len(grey), -1) @ weight / weight.sum(axis=0)
    return np.asarray(np.rint(SPECTRUM_STEPS * mean), dtype=np.int64)
