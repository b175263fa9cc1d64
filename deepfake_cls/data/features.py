"""What nearest neighbours compare: raw pixels, colour histograms, spectra. Whole numbers, so distances are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

BINS = 8  # for each of R, G and B: 512 joint bins
SPECTRUM_STEPS = 64.0  # steps of the spectrum's logarithm (base 2); finer changes no neighbour on the embedded data
_CHUNK = 256


def features(images: NDArray[np.uint8], kind: str, channels: str) -> NDArray[Any]:
    """Features of each image.

    Args:
        images: uint8 (N, H, W, C), may be memory-mapped; raw features are a view of it.
        kind: ``raw``, ``histogram`` (joint RGB histogram of 8×8×8 bins, counts) or ``spectrum`` (azimuthal mean of
            the log power spectrum of the grey image: Durall et al. 2020).
        channels: ``RGB`` leaves an alpha plane out; ``RGBA`` keeps it for raw features where there is one (a
            constant plane would add nothing to a distance).

    Returns:
        uint8 (N, H, W, C'), or int64 (N, D).
    """
    if kind == "raw":
        return images[..., :3] if channels == "RGB" else images
    compute = {"histogram": histogram, "spectrum": spectrum}[kind]
    chunks = [compute(images[start : start + _CHUNK, ..., :3]) for start in range(0, len(images), _CHUNK)]
    return np.concatenate(chunks)


def histogram(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Joint colour histogram: uint8 (N, H, W, 3) to counts int64 (N, 512)."""
    red, green, blue = np.moveaxis(images.reshape(len(images), -1, 3).astype(np.int64) * BINS // 256, 2, 0)
    cells = BINS**3
    joint = (red * BINS + green) * BINS + blue + cells * np.arange(len(images))[:, None]
    return np.bincount(joint.ravel(), minlength=cells * len(images)).reshape(len(images), cells).astype(np.int64)


def spectrum(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Azimuthal mean of the log2 power spectrum: uint8 (N, H, W, 3) to int64 (N, min(H, W) // 2)."""
    grey = images.astype(np.float64).mean(axis=-1)
    _, height, width = grey.shape
    power = np.abs(scipy.fft.fft2(grey)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    count = min(height, width) // 2
    ring = np.minimum((frequency * 2 * count).astype(np.int64), count)  # corners beyond Nyquist form no ring
    weight = (ring.ravel()[:, None] == np.arange(count)).astype(np.float64)
    mean = np.log2(power + 1.0).reshape(len(grey), -1) @ weight / weight.sum(axis=0)
    return np.asarray(np.rint(SPECTRUM_STEPS * mean), dtype=np.int64)
