"""The embedded data set: five kinds of generator, each known by the trace it leaves.

Every class draws its content from one distribution (dead leaves, 1/f textures, a gradient of light, blur, noise);
the classes differ only in what an up-sampler, a sampler or a blend would have done to it, and in a faint cast of
colour. Seed, split and index alone determine an image. Lengths are in pixels, 0 is black and 1 white.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported where they are first used: reading a finished store needs none
from PIL import Image, ImageDraw

from deepfake_cls import schema
from deepfake_cls.config import SyntheticConfig

# float64 throughout: what another CPU's instructions change is then far below a rounding step of uint8.
Array = npt.NDArray[np.float64]
Plane = npt.NDArray[np.uint8]

VERSION: int = 2  # part of every cache key: raise it with any change to a pixel
CLASSES = ("transposed-conv GAN", "resize-conv GAN", "pixel diffusion", "latent diffusion", "compositor")
ALPHAS = ("none", "constant", "mask", "informative")
SIZE = 100  # at most; smaller images show the middle of the canvas, so that a blended region stays in sight
CANVAS = 108  # a crop with a random offset is kept, so that no lattice has a fixed phase; divisible by 2 and 4
ALPHA_ACCURACY = 0.6  # the best that the informative alpha plane alone allows

_FINE = 2 * CANVAS  # leaves are drawn at twice the size and averaged down, for soft edges
_LEAVES = 700  # leave 2 % of an image to the ground
_TEXTURES = 3
_RIPPLE = 0.10
_DECODER = np.random.Generator(np.random.PCG64(8)).standard_normal((8, 8))
_DECODER = (_DECODER - _DECODER.mean()) / _DECODER.std()
# What each class adds to R, G and B: a habit of generators (McCloskey and Albright 2018) that neighbours can see.
_CAST: Array = 0.04 * np.array([[1, 0, -1], [-1, 0, 1], [0, 0, 0], [-0.5, 0.5, -0.5], [0.5, -0.5, 0.5]])
_GRAIN = 0.03  # the noise that an inserted region brings along from another picture
_DIP = 96  # of the informative alpha plane, in 1/255: clear beside the corners that a rotation empties
_TOLD = (len(CLASSES) * ALPHA_ACCURACY - 1) / (len(CLASSES) - 1)  # p where p + (1 - p)/5 = 0.6
# Squared frequency of each coefficient of a real transform, (cycles/pixel)²: (CANVAS, CANVAS/2 + 1, 1).
_FREQUENCY2 = np.fft.fftfreq(CANVAS)[:, None, None] ** 2 + np.fft.rfftfreq(CANVAS)[:, None] ** 2
_CONTENT, _TRACE, _ALPHA = range(3)  # purposes of the random streams


class TraceDraws(NamedTuple):
    """All that is random about a trace, drawn alike for every class.

    How much of it is mixed in; standard normal noise (CANVAS, CANVAS, 3); and for the compositor: its ellipse
    (centre y and x, half-axes, all in canvases, and angle in radians), resampling factor, colour shift (3,).
    """

    amount: float
    noise: Array
    ellipse: Array
    scale: float
    shift: Array


def _stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one purpose of one image; no two share a draw."""
    key = (zlib.crc32(split.encode()), index, purpose)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _luma(x: Array) -> Array:
    """Return the BT.601 luma (H, W, 1) of (H, W, 3); no matrix product, which BLAS would spread over threads."""
    return (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])[..., None]


def _blur(x: Array, sigma: float) -> Array:
    """Blur (H, W, C) along height and width by a Gaussian."""
    return np.asarray(scipy.ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="mirror", truncate=3.0))


def _smooth(x: Array, kernel: list[float]) -> Array:
    """Convolve (H, W, C) with a symmetric kernel along height and along width."""
    once = scipy.ndimage.correlate1d(x, kernel, 0, mode="mirror")
    return np.asarray(scipy.ndimage.correlate1d(once, kernel, 1, mode="mirror"))


def _shrink(x: Array, factor: int) -> Array:
    """Average (H, W, C) over blocks of factor × factor pixels."""
    corners = (x[row::factor, column::factor] for row in range(factor) for column in range(factor))
    return sum(corners, np.zeros(())) / factor**2


def _resize(x: Array, size: int) -> Array:
    """Resample (N, N, C) to (size, size, C): bilinear, pixel centres aligned, edges held."""
    at = np.clip((np.arange(size) + 0.5) * len(x) / size - 0.5, 0, len(x) - 1)
    low = np.minimum(at.astype(np.intp), len(x) - 2)
    weight = (at - low)[:, None]
    x = x[low] * (1 - weight[..., None]) + x[low + 1] * weight[..., None]
    return x[:, low] * (1 - weight) + x[:, low + 1] * weight


def _leaves(rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Draw which leaf each fine pixel shows (_FINE, _FINE); 0 is the ground, later leaves lie on top.

    Dead leaves: radii of density ∝ r⁻³ give the statistics of natural images (Lee, Mumford and Huang 2001).
    60 % are discs, the rest rectangles inscribed in the disc.
    """
    smallest, largest = 0.08 * CANVAS, 1.0 * CANVAS
    u = rng.random((6, _LEAVES))
    radius = (smallest**-2 + u[0] * (largest**-2 - smallest**-2)) ** -0.5
    centre = _FINE / 2 + (2 * u[1:3] - 1) * (_FINE / 2 + largest)
    half = np.pi * (0.15 + 0.2 * u[4])  # the angle between a diagonal and a side
    corners = 2 * np.pi * u[3] + np.stack([half, -half, half + np.pi, np.pi - half])
    # Integers, because what becomes of a fraction of a pixel is the drawing library's own affair.
    box = np.rint(np.concatenate([centre - radius, centre + radius])).astype(int)
    vertices = np.stack([centre[0] + radius * np.cos(corners), centre[1] + radius * np.sin(corners)], 1)
    polygon = np.rint(vertices).astype(int).reshape(8, _LEAVES)
    seen = (np.abs(centre - _FINE / 2) < _FINE / 2 + radius).all(0)
    image = Image.new("I", (_FINE, _FINE))
    brush = ImageDraw.Draw(image)
    for leaf in np.flatnonzero(seen).tolist():
        if u[5, leaf] < 0.6:
            brush.ellipse(box[:, leaf].tolist(), fill=leaf + 1)
        else:
            brush.polygon(polygon[:, leaf].tolist(), fill=leaf + 1)
    return np.asarray(image, dtype=np.int32)


def _textures(rng: np.random.Generator) -> Array:
    """Draw 1/f^α noise of unit variance, α from U(0.8, 1.4): (CANVAS, CANVAS, _TEXTURES)."""
    power = rng.uniform(0.8, 1.4, _TEXTURES)
    half = rng.standard_normal((CANVAS, CANVAS // 2 + 1, _TEXTURES, 2)).view(np.complex128)[..., 0]
    gain = np.maximum(_FREQUENCY2, CANVAS**-2.0) ** (-power / 2)
    gain[0, 0] = 0  # no mean
    out = np.asarray(scipy.fft.irfft2(half * gain, (CANVAS, CANVAS), axes=(0, 1), workers=1))
    return np.asarray(out / out.std((0, 1)))


def content(rng: np.random.Generator) -> Array:
    """Draw what all classes share: (CANVAS, CANVAS, 3), mostly within [0, 1]."""
    leaf = _leaves(rng)
    textures = _textures(rng)
    # Leaves of one image share a cast, and grey varies more than hue, as in photographs. Both spreads vary by
    # image, so that no class can be told by how colourful it is.
    base = rng.uniform(0.25, 0.65) + rng.normal(0, 0.08, 3)
    grey, hue = rng.uniform(0.10, 0.20), rng.uniform(0.06, 0.14)
    colour = base + rng.normal(0, grey, (_LEAVES + 1, 1)) + rng.normal(0, hue, (_LEAVES + 1, 3))
    grain = rng.uniform(0, 0.08, (_LEAVES + 1, 1))
    kind = rng.integers(0, _TEXTURES, (_LEAVES + 1, 1))
    slope = rng.normal(0, 0.1, 2)
    noise = rng.standard_normal((CANVAS, CANVAS, 3))

    # A leaf is a colour and how much of each texture it shows: (leaves, 3 + _TEXTURES).
    look = np.hstack([np.clip(colour, 0.03, 0.97), grain * (kind == np.arange(_TEXTURES))])
    x = sum((look[leaf[row::2, column::2]] for row in (0, 1) for column in (0, 1)), np.zeros(())) / 4
    ramp = np.linspace(-1, 1, CANVAS)
    light = slope[0] * ramp[:, None] + slope[1] * ramp + (x[..., 3:] * textures).sum(-1)
    return _blur(x[..., :3] + light[..., None], 0.6) + 0.006 * noise


def draw_trace(rng: np.random.Generator) -> TraceDraws:
    """Draw everything that is random about a trace."""
    return TraceDraws(
        amount=rng.uniform(0.3, 1.0),
        noise=rng.standard_normal((CANVAS, CANVAS, 3)),
        ellipse=rng.uniform([0.3, 0.3, 0.2, 0.2, 0.0], [0.7, 0.7, 0.4, 0.4, math.pi]),
        scale=rng.uniform(0.3, 0.45),
        shift=rng.normal(0, 0.06, 3),
    )


def transposed_conv(x: Array, draws: TraceDraws) -> Array:  # noqa: ARG001
    """Up-sample by a strided transposed convolution, which does not weigh even and odd pixels alike.

    Zeros between the samples, then a kernel: even lines get 1 + _RIPPLE and odd ones 1 - _RIPPLE, a peak at the
    Nyquist frequency (Durall et al. 2020; Frank et al. 2020). Detail finer than the coarse grid comes back, mostly.
    """
    wide = np.zeros_like(x)
    wide[::2, ::2] = _shrink(x, 2)
    odd = (1 - _RIPPLE) / 2
    return _smooth(wide, [odd, 1 + _RIPPLE, odd]) + 0.8 * (x - _blur(x, 0.8))


def resize_conv(x: Array, draws: TraceDraws) -> Array:
    """Up-sample by repetition, then convolve: pixels of a 2×2 block depend on each other (Tan et al. 2023).

    The kernel is [1 2 1; 2 12 2; 1 2 1]/24; R, G and B share the noise.
    """
    wide = _shrink(x, 2).repeat(2, 0).repeat(2, 1)
    return (2 * _smooth(wide, [0.25, 0.5, 0.25]) + wide) / 3 + 0.03 * draws.noise[..., :1]


def pixel_diffusion(x: Array, draws: TraceDraws) -> Array:
    """Lose the high frequencies, which the objective of denoising weighs too little (Ricker et al. 2022)."""
    gain = 1 / (1 + (_FREQUENCY2 / 0.16**2) ** 3)
    spectrum = scipy.fft.rfft2(x, axes=(0, 1), workers=1) * gain
    return np.asarray(scipy.fft.irfft2(spectrum, (CANVAS, CANVAS), axes=(0, 1), workers=1)) + 0.004 * draws.noise


def latent_diffusion(x: Array, draws: TraceDraws) -> Array:  # noqa: ARG001
    """Decode a coarse latent: chroma of 4×4 blocks, and the decoder's own pattern of period 8 (Corvi et al. 2023).

    The pattern rises with the detail that the decoder has to invent.
    """
    luma = _luma(x)
    detail = luma - _blur(luma, 1.0)
    deviation = np.sqrt(_blur(detail * detail, 2.0))
    pattern: Array = np.tile(_DECODER, (CANVAS // 8 + 1,) * 2)[:CANVAS, :CANVAS, None]
    return luma + _resize(_shrink(x - luma, 4), CANVAS) + pattern * (0.03 + 0.3 * deviation)


def compositor(x: Array, draws: TraceDraws) -> Array:
    """Blend a resampled, recoloured and grainy region in, by a soft ellipse (Li et al. 2020)."""
    top, left, height, width, angle = draws.ellipse.tolist()
    grid = (np.arange(CANVAS) + 0.5) / CANVAS
    down, along, cos, sin = (grid - top)[:, None], grid - left, math.cos(angle), math.sin(angle)
    reach = np.hypot((cos * down + sin * along) / height, (cos * along - sin * down) / width)
    region = _resize(_resize(x, round(draws.scale * CANVAS)), CANVAS) + draws.shift + _GRAIN * draws.noise
    return np.asarray(x + np.clip((1.15 - reach) / 0.3, 0, 1)[..., None] * (region - x))


Trace = Callable[[Array, TraceDraws], Array]  # (CANVAS, CANVAS, 3) to the same
TRACES: tuple[Trace, ...] = (transposed_conv, resize_conv, pixel_diffusion, latent_diffusion, compositor)


def apply_trace(x: Array, label: int, draws: TraceDraws, strength: float) -> Array:
    """Leave the trace and the cast of a class on (CANVAS, CANVAS, 3); strength 0 returns x as it is."""
    cast: Array = _CAST[label]
    return x + strength * (draws.amount * (TRACES[label](x, draws) - x) + cast)


def label_of(index: int) -> int:
    """Return the class of an image."""
    return index % len(CLASSES)


def check(seed: int, strength: float, alpha: str, size: int = SIZE) -> None:
    """Raise InputError, naming the key, where a setting of the data set means nothing."""
    schema.check(SyntheticConfig(seed=seed, strength=strength, alpha=alpha, image_size=size), "data.")


def draw_parts(
    seed: int, split: str, index: int, *, strength: float = 1.0, label: int | None = None, size: int = SIZE
) -> tuple[Array, Array]:
    """Draw an image before it is quantised; arguments as for ``draw``.

    Returns the content untouched and with the trace, (size, size, 3), at times a little beyond [0, 1].
    ``label`` leaves another class's trace on the same content, so that a figure can show all five.
    """
    check(seed, strength, "none")
    rng = _stream(seed, split, index, _CONTENT)
    x = content(rng)
    top, left = (SIZE - size) // 2 + rng.integers(0, CANVAS - SIZE + 1, 2)
    crop = np.s_[top : top + size, left : left + size]
    draws = draw_trace(_stream(seed, split, index, _TRACE))
    y = apply_trace(x, label_of(index) if label is None else label, draws, strength)
    return x[crop], y[crop]


def draw_alpha(seed: int, split: str, index: int, alpha: str, size: int = SIZE) -> Plane:
    """Draw an alpha plane alone, uint8 (size, size); arguments as for ``draw``."""
    check(seed, 0, alpha, size)
    rng = _stream(seed, split, index, _ALPHA)
    y, x = np.mgrid[:size, :size]
    if alpha == "mask":
        centre, axes = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.3, 0.6, 2) * size
        angle, disc = rng.uniform(0, math.pi), rng.random() < 0.5
        y, x, cos, sin = y - centre[0], x - centre[1], math.cos(angle), math.sin(angle)
        u, v = np.abs(cos * y + sin * x) / axes[0], np.abs(cos * x - sin * y) / axes[1]
        return np.asarray(255 * ((np.hypot(u, v) if disc else np.maximum(u, v)) < 1), np.uint8)
    if alpha == "informative":
        told, other = rng.random() < _TOLD, int(rng.integers(len(CLASSES)))
        y, x = y + rng.integers(8), x + rng.integers(8)
        # Stripes along the axes and a chequer: a mirrored image must not carry another class's pattern.
        dips = (y // 2 % 2, y // 4 % 2, x // 2 % 2, x // 4 % 2, (y // 4 + x // 4) % 2)
        return np.asarray(255 - _DIP * dips[label_of(index) if told else other], np.uint8)
    return np.full((size, size), 255, np.uint8)


def draw(seed: int, split: str, index: int, *, strength: float = 1.0, alpha: str = "none", size: int = SIZE) -> Plane:
    """Draw one image; the same arguments give the same bytes in any process.

    Args:
        seed: Seed of the data set.
        split: Name of the split; another name gives other images.
        index: Place in the split; the class is ``label_of(index)``.
        strength: Factor on all that tells the classes apart in R, G and B; 0 leaves nothing.
        alpha: ``none`` (no plane), ``constant`` (255), ``mask`` (a cut-out that knows no class) or
            ``informative`` (a pattern worth ALPHA_ACCURACY); R, G and B stay the same.
        size: Side of the image; smaller ones are cut from the middle.

    Returns:
        uint8 (size, size, 3), or (size, size, 4) with an alpha plane.
    """
    check(seed, strength, alpha, size)
    _, traced = draw_parts(seed, split, index, strength=strength, size=size)
    rgb = np.rint(255 * np.clip(traced, 0, 1)).astype(np.uint8)
    return rgb if alpha == "none" else np.dstack([rgb, draw_alpha(seed, split, index, alpha, size)])
