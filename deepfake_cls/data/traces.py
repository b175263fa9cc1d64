"""What each class of the embedded data set leaves on an image: the trace of its generator, and a cast of colour.

Images are float64 (CANVAS, CANVAS, 3), 0 is black and 1 is white. Lengths are in pixels. float64 keeps the differences
between CPUs far below a rounding step of uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # imports its submodules on first use: opening a finished store needs none

Array = npt.NDArray[np.float64]

CANVAS = 108  # an image is a crop of 100×100 at a random offset, so that no lattice has a fixed phase; divisible by 4
# Squared frequency of each coefficient of a real Fourier transform, (cycles/pixel)²: (CANVAS, CANVAS/2 + 1, 1).
FREQUENCY2 = np.fft.fftfreq(CANVAS)[:, None, None] ** 2 + np.fft.rfftfreq(CANVAS)[:, None] ** 2

_RIPPLE = 0.10  # of the transposed convolution: even lines are weighted 1 + _RIPPLE, odd lines 1 - _RIPPLE
_GRAIN = 0.03  # standard deviation of the noise in the compositor's region
_DECODER = np.random.Generator(np.random.PCG64(8)).standard_normal((8, 8))
_DECODER = (_DECODER - _DECODER.mean()) / _DECODER.std()
# Added to R, G and B by each class: generators shift colours (McCloskey and Albright 2018), which KNN can measure.
_CAST: Array = 0.04 * np.array([[1, 0, -1], [-1, 0, 1], [0, 0, 0], [-0.5, 0.5, -0.5], [0.5, -0.5, 0.5]])


class TraceDraws(NamedTuple):
    """The random numbers of a trace, drawn in the same way for every class.

    Attributes:
        amount: Share of the trace in the image.
        noise: Standard normal noise, (CANVAS, CANVAS, 3).
        ellipse: Region of the compositor: centre y and x and half-axes, in units of CANVAS, and angle in radians.
        scale: Resampling factor of the compositor.
        shift: Colour shift of the compositor, (3,).
    """

    amount: float
    noise: Array
    ellipse: Array
    scale: float
    shift: Array


def draw_trace(rng: np.random.Generator) -> TraceDraws:
    """Draw the random numbers of a trace."""
    return TraceDraws(
        amount=rng.uniform(0.3, 1.0),
        noise=rng.standard_normal((CANVAS, CANVAS, 3)),
        ellipse=rng.uniform([0.3, 0.3, 0.2, 0.2, 0.0], [0.7, 0.7, 0.4, 0.4, math.pi]),
        scale=rng.uniform(0.3, 0.45),
        shift=rng.normal(0, 0.06, 3),
    )


def blur(x: Array, sigma: float) -> Array:
    """Blur (H, W, C) along height and width by a Gaussian."""
    return np.asarray(scipy.ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="mirror", truncate=3.0))


def smooth(x: Array, kernel: list[float]) -> Array:
    """Convolve (H, W, C) with a symmetric kernel along height and along width."""
    vertical = scipy.ndimage.correlate1d(x, kernel, 0, mode="mirror")
    return np.asarray(scipy.ndimage.correlate1d(vertical, kernel, 1, mode="mirror"))


def luma(x: Array) -> Array:
    """Return the BT.601 luma (H, W, 1) of (H, W, 3); not by a matrix product, which BLAS would run on all threads."""
    return (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])[..., None]


def _shrink(x: Array, factor: int) -> Array:
    """Average (H, W, C) over blocks of factor × factor pixels."""
    corners = (x[row::factor, column::factor] for row in range(factor) for column in range(factor))
    return sum(corners, np.zeros(())) / factor**2


def _resize(x: Array, size: int) -> Array:
    """Resample (N, N, C) to (size, size, C): bilinear, aligned pixel centres, clamped at the edges."""
    position = np.clip((np.arange(size) + 0.5) * len(x) / size - 0.5, 0, len(x) - 1)
    low = np.minimum(position.astype(np.intp), len(x) - 2)
    weight = (position - low)[:, None]
    x = x[low] * (1 - weight[..., None]) + x[low + 1] * weight[..., None]
    return x[:, low] * (1 - weight) + x[:, low + 1] * weight


def transposed_conv(x: Array, draws: TraceDraws) -> Array:  # noqa: ARG001
    """Up-sample by a strided transposed convolution, which weights even and odd lines differently.

    Zeros are inserted between the samples, then a kernel is applied. The ripple is a peak at the Nyquist frequency
    (Durall et al. 2020; Frank et al. 2020). Most of the detail that is finer than the coarse grid is added again.
    """
    upsampled = np.zeros_like(x)
    upsampled[::2, ::2] = _shrink(x, 2)
    odd = (1 - _RIPPLE) / 2
    return smooth(upsampled, [odd, 1 + _RIPPLE, odd]) + 0.8 * (x - blur(x, 0.8))


def resize_conv(x: Array, draws: TraceDraws) -> Array:
    """Up-sample by repetition, then convolve: the pixels of a 2×2 block are correlated (Tan et al. 2023).

    The kernel is [1 2 1; 2 12 2; 1 2 1]/24. R, G and B have the same noise.
    """
    upsampled = _shrink(x, 2).repeat(2, 0).repeat(2, 1)
    return (2 * smooth(upsampled, [0.25, 0.5, 0.25]) + upsampled) / 3 + 0.03 * draws.noise[..., :1]


def pixel_diffusion(x: Array, draws: TraceDraws) -> Array:
    """Attenuate the high frequencies, to which the denoising objective gives too little weight (Ricker et al. 2022)."""
    gain = 1 / (1 + (FREQUENCY2 / 0.16**2) ** 3)
    spectrum = scipy.fft.rfft2(x, axes=(0, 1), workers=1) * gain
    return np.asarray(scipy.fft.irfft2(spectrum, (CANVAS, CANVAS), axes=(0, 1), workers=1)) + 0.004 * draws.noise


def latent_diffusion(x: Array, draws: TraceDraws) -> Array:  # noqa: ARG001
    """Decode a coarse latent: chroma of 4×4 blocks, and a decoder pattern of period 8 (Corvi et al. 2023).

    The amplitude of the pattern increases with the local detail.
    """
    y = luma(x)
    detail = y - blur(y, 1.0)
    deviation = np.sqrt(blur(detail * detail, 2.0))
    pattern: Array = np.tile(_DECODER, (CANVAS // 8 + 1,) * 2)[:CANVAS, :CANVAS, None]
    return y + _resize(_shrink(x - y, 4), CANVAS) + pattern * (0.03 + 0.3 * deviation)


def compositor(x: Array, draws: TraceDraws) -> Array:
    """Blend in a resampled, recoloured and grainy region, with a soft ellipse as its mask (Li et al. 2020)."""
    top, left, height, width, angle = draws.ellipse.tolist()
    grid = (np.arange(CANVAS) + 0.5) / CANVAS
    down, along, cos, sin = (grid - top)[:, None], grid - left, math.cos(angle), math.sin(angle)
    radius = np.hypot((cos * down + sin * along) / height, (cos * along - sin * down) / width)
    region = _resize(_resize(x, round(draws.scale * CANVAS)), CANVAS) + draws.shift + _GRAIN * draws.noise
    return np.asarray(x + np.clip((1.15 - radius) / 0.3, 0, 1)[..., None] * (region - x))


TRACES: tuple[Callable[[Array, TraceDraws], Array], ...] = (
    transposed_conv,
    resize_conv,
    pixel_diffusion,
    latent_diffusion,
    compositor,
)


def apply_trace(x: Array, label: int, draws: TraceDraws, strength: float) -> Array:
    """Add the trace and the cast of a class to (CANVAS, CANVAS, 3); with strength 0, return x unchanged."""
    cast: Array = _CAST[label]
    return x + strength * (draws.amount * (TRACES[label](x, draws) - x) + cast)
