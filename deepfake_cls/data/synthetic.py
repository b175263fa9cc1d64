"""The embedded data set: five kinds of generator, each known only by the trace it leaves.

Every class draws its content from one distribution (dead leaves, 1/f textures, a light gradient, blur, noise);
the classes differ in how an up-sampler, a sampler or a blend would have changed that content, and in a faint
habit of colour. Seed, split and index alone determine an image: no file, no download, no global state.

Lengths are in pixels and values in fractions of full scale (0 black, 1 white), unless something else is said.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import fft, ndimage

from deepfake_cls.errors import InputError

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

VERSION: int = 1  # part of every cache key: raise it with any change to a pixel
CLASSES: tuple[str, ...] = (
    "transposed-conv GAN",
    "resize-conv GAN",
    "pixel diffusion",
    "latent diffusion",
    "compositor",
)
ALPHAS: tuple[str, ...] = ("none", "constant", "mask", "informative")
SIZE = 100
CANVAS = 108  # a random crop of it is kept, so that no lattice has a fixed phase; divides by 2 and by 4
ALPHA_ACCURACY = 0.6  # the best that informative alpha alone allows

_FINE = 2 * CANVAS  # content is rasterised at twice the size and averaged down: soft edges, no jaggies
_LEAVES = 700
_RADIUS = (0.08 * CANVAS, 1.0 * CANVAS)  # of a leaf, on the fine grid
_TEXTURES = 3
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# Colour habit of each class: what it adds to R, G and B. Known from GANs (McCloskey and Albright 2018).
_CAST = 0.04 * np.array([[1, 0, -1], [-1, 0, 1], [0, 0, 0], [-0.5, 0.5, -0.5], [0.5, -0.5, 0.5]])
_RIPPLE = 0.08
_DIP = 12  # of the informative alpha plane, in 1/255
_TOLD = (len(CLASSES) * ALPHA_ACCURACY - 1) / (len(CLASSES) - 1)  # p + (1 - p)/5 = 0.6
_DECODER = np.random.Generator(np.random.PCG64(8)).standard_normal((8, 8))
_DECODER = (_DECODER - _DECODER.mean()) / _DECODER.std()
# Squared frequency of each coefficient of a real transform, cycles² per pixel²: (CANVAS, CANVAS/2 + 1, 1).
_FREQUENCY2 = (np.fft.fftfreq(CANVAS)[:, None, None] ** 2) + np.fft.rfftfreq(CANVAS)[:, None] ** 2
_CONTENT, _TRACE, _ALPHA = range(3)  # purposes of the random streams


class TraceDraws(NamedTuple):
    """All that is random about a trace; drawn alike for every class, whatever the class makes of it.

    Attributes:
        amount: Mixing amount a in [0.3, 1], before ``strength``.
        noise: Standard normal, (CANVAS, CANVAS, 3).
        centre: Of the compositor's ellipse, y and x.
        axes: Its half-axes.
        angle: Its rotation, radians.
        scale: Its resampling factor.
        shift: Its colour shift, (3,).
    """

    amount: float
    noise: Array
    centre: Array
    axes: Array
    angle: float
    scale: float
    shift: Array


class Parts(NamedTuple):
    """An image before it is quantised, with what it was made from; ``traced - content`` is the trace.

    Attributes:
        content: Untouched content, (SIZE, SIZE, 3).
        traced: The same crop with the trace of its class, (SIZE, SIZE, 3); may exceed [0, 1] a little.
        label: Class of the trace.
    """

    content: Array
    traced: Array
    label: int


def _stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """Return the random stream that belongs to one purpose of one image, and to nothing else."""
    key = (zlib.crc32(split.encode()), index, purpose)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _luma(x: Array) -> Array:
    """Return the luma (H, W, 1) of an image (H, W, 3); no matrix product, whose threads would be BLAS's."""
    return (x[..., 0] * _LUMA[0] + x[..., 1] * _LUMA[1] + x[..., 2] * _LUMA[2])[..., None]


def _blur(x: Array, sigma: float) -> Array:
    """Gaussian blur of (H, W, C) along height and width."""
    return np.asarray(ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="mirror", truncate=3.0))


def _smooth(x: Array, kernel: list[float]) -> Array:
    """Convolve (H, W, C) with a symmetric kernel along height and width."""
    for axis in (0, 1):
        x = ndimage.correlate1d(x, kernel, axis, mode="mirror")
    return x


def _shrink(x: Array, factor: int) -> Array:
    """Average (H, W, C) over blocks of factor × factor pixels."""
    total = np.zeros((x.shape[0] // factor, x.shape[1] // factor, x.shape[2]))
    for row in range(factor):
        for column in range(factor):
            total += x[row::factor, column::factor]
    return total / factor**2


def _resize(x: Array, size: int) -> Array:
    """Resample (N, N, C) to (size, size, C): bilinear, pixel centres aligned, edges held, no prefilter."""
    n = len(x)
    at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    low = np.minimum(at.astype(np.intp), n - 2)
    w = (at - low)[:, None, None]
    x = x[low] * (1 - w) + x[low + 1] * w
    w = w[:, 0]
    return x[:, low] * (1 - w) + x[:, low + 1] * w


def _leaves(rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Draw which leaf each fine pixel shows (_FINE, _FINE); 0 is the ground, later leaves lie on top.

    Dead leaves (Lee, Mumford and Huang 2001): radii of density ∝ r⁻³ make the picture's statistics those of
    natural images at every scale. 60 % are discs, the rest rectangles inscribed in the disc.
    """
    u = rng.random((6, _LEAVES))
    inner, outer = _RADIUS[0] ** -2, _RADIUS[1] ** -2
    radius = (inner + u[0] * (outer - inner)) ** -0.5
    centre = _FINE / 2 + (2 * u[1:3] - 1) * (_FINE / 2 + outer**-0.5)
    corners = 2 * np.pi * u[3] + np.pi * np.multiply.outer([0, 1, 1, 2], np.ones(_LEAVES))
    corners += (0.15 + 0.2 * u[4]) * np.pi * np.array([[1], [-1], [1], [-1]])
    # Integers: Pillow would cut fractions off, and what it does with them is its own affair.
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
    alpha = rng.uniform(0.8, 1.4, _TEXTURES)
    half = rng.standard_normal((CANVAS, CANVAS // 2 + 1, _TEXTURES, 2)).view(np.complex128)[..., 0]
    gain = np.exp(-alpha / 2 * np.log(_FREQUENCY2 + 1e-300))
    gain[0, 0] = 0  # no mean
    out = fft.irfft2(half * gain, (CANVAS, CANVAS), axes=(0, 1), workers=1)
    return np.asarray(out / out.std((0, 1)), dtype=np.float64)


def content(rng: np.random.Generator) -> Array:
    """Draw the content all classes share: (CANVAS, CANVAS, 3), mostly within [0, 1]."""
    leaf = _leaves(rng)
    textures = _textures(rng)
    # Grey varies more than hue, as in photographs; leaves of one image share a cast.
    base = rng.uniform(0.25, 0.65) + rng.normal(0, 0.08, 3)
    grey, hue = rng.uniform(0.10, 0.20), rng.uniform(0.06, 0.14)
    colour = base + rng.normal(0, grey, (_LEAVES + 1, 1)) + rng.normal(0, hue, (_LEAVES + 1, 3))
    amplitude = rng.uniform(0, 0.08, (_LEAVES + 1, 1))
    kind = rng.integers(0, _TEXTURES, (_LEAVES + 1, 1))
    slope = rng.normal(0, 0.1, 2)
    noise = rng.standard_normal((CANVAS, CANVAS, 3))

    # A leaf is three colours and how much it shows of each texture: (leaves, 3 + _TEXTURES).
    look = np.hstack([np.clip(colour, 0.03, 0.97), amplitude * (kind == np.arange(_TEXTURES))])
    x = sum(look[leaf[row::2, column::2]] for row in (0, 1) for column in (0, 1)) / 4
    ramp = np.linspace(-1, 1, CANVAS)[:, None]
    shade = slope[0] * ramp + slope[1] * ramp[:, 0] + (x[..., 3:] * textures).sum(-1)
    return _blur(x[..., :3] + shade[..., None], 0.6) + 0.006 * noise


def draw_trace(rng: np.random.Generator) -> TraceDraws:
    """Draw everything that is random about a trace."""
    return TraceDraws(
        amount=rng.uniform(0.1, 1.0),
        noise=rng.standard_normal((CANVAS, CANVAS, 3)),
        centre=rng.uniform(0.3, 0.7, 2) * CANVAS,
        axes=rng.uniform(0.2, 0.4, 2) * CANVAS,
        angle=rng.uniform(0, math.pi),
        scale=rng.uniform(0.35, 0.5),
        shift=rng.normal(0, 0.05, 3),
    )


def transposed_conv(x: Array, draws: TraceDraws) -> Array:  # noqa: ARG001
    """Up-sample as a strided transposed convolution does; it cannot weigh even and odd pixels alike.

    Zeros between the samples, then a kernel: the parities get (1 ± _RIPPLE), a ripple at the Nyquist frequency
    (Durall, Keuper and Keuper 2020; Frank et al. 2020). Detail beyond the coarse grid comes back, mostly.
    """
    wide = np.zeros_like(x)
    wide[::2, ::2] = _shrink(x, 2)
    odd = (1 - _RIPPLE) / 2
    return _smooth(wide, [odd, 1 + _RIPPLE, odd]) + 0.8 * (x - _blur(x, 0.8))


def resize_conv(x: Array, draws: TraceDraws) -> Array:
    """Up-sample by repetition and convolve: neighbours of one 2×2 block depend on each other (Tan et al. 2023).

    The kernel is [1 2 1; 2 12 2; 1 2 1]/24. The noise is one for R, G and B.
    """
    wide = _shrink(x, 2).repeat(2, 0).repeat(2, 1)
    return (2 * _smooth(wide, [0.25, 0.5, 0.25]) + wide) / 3 + 0.025 * draws.noise[..., :1]


def pixel_diffusion(x: Array, draws: TraceDraws) -> Array:
    """Lose the high frequencies, which denoising under-weights (Ricker et al. 2022), under a little noise."""
    gain = 1 / (1 + (_FREQUENCY2 / 0.18**2) ** 3)
    spectrum = fft.rfft2(x, axes=(0, 1), workers=1) * gain
    return np.asarray(fft.irfft2(spectrum, (CANVAS, CANVAS), axes=(0, 1), workers=1)) + 0.004 * draws.noise


def latent_diffusion(x: Array, draws: TraceDraws) -> Array:  # noqa: ARG001
    """Decode from a coarse latent: chroma of 4×4 blocks, and a faint pattern of period 8 (Corvi et al. 2023).

    The pattern is the decoder's own, always the same, and rises with the detail it has to invent.
    """
    luma = _luma(x)
    detail = luma - _blur(luma, 1.0)
    deviation = np.sqrt(_blur(detail * detail, 2.0))
    pattern = np.tile(_DECODER, (CANVAS // 8 + 1,) * 2)[:CANVAS, :CANVAS, None]
    return luma + _resize(_shrink(x - luma, 4), CANVAS) + pattern * (0.02 + 0.25 * deviation)


def compositor(x: Array, draws: TraceDraws) -> Array:
    """Blend a resampled, recoloured region in by a soft ellipse (Li et al. 2020, face X-ray)."""
    grid = np.arange(CANVAS) + 0.5
    y, z = (grid - draws.centre[0])[:, None], grid - draws.centre[1]
    cos, sin = math.cos(draws.angle), math.sin(draws.angle)
    reach = np.hypot((cos * y + sin * z) / draws.axes[0], (cos * z - sin * y) / draws.axes[1])
    mask = np.clip((1.15 - reach) / 0.3, 0, 1)[..., None]
    region = _resize(_resize(x, round(draws.scale * CANVAS)), CANVAS) + draws.shift
    return x + mask * (region - x)


TRACES: tuple[Callable[[Array, TraceDraws], Array], ...] = (
    transposed_conv,
    resize_conv,
    pixel_diffusion,
    latent_diffusion,
    compositor,
)


def apply_trace(x: Array, label: int, draws: TraceDraws, strength: float) -> Array:
    """Leave a class's trace and colour habit on (CANVAS, CANVAS, 3); strength 0 returns x as it is."""
    return x + strength * (draws.amount * (TRACES[label](x, draws) - x) + _CAST[label])


def label_of(index: int) -> int:
    """Return the class of an image."""
    return index % len(CLASSES)


def check(seed: int, strength: float, alpha: str) -> None:
    """Raise InputError, naming the key, where a setting of the data set means nothing."""
    if seed < 0:
        raise InputError(f"data.seed={seed}: expected 0 or more; pick another seed.")
    if not (math.isfinite(strength) and strength >= 0):
        expected = "expected 0 (classes alike) or more, 1 being the default"
        raise InputError(f"data.strength={strength}: {expected}; set for example data.strength=1.")
    if alpha not in ALPHAS:
        raise InputError(f"data.alpha={alpha}: expected one of {', '.join(ALPHAS)}; set data.alpha=none.")


def draw_parts(
    seed: int, split: str, index: int, *, strength: float = 1.0, label: int | None = None
) -> Parts:
    """Draw an image before quantisation, with its untouched content.

    Args:
        seed: Seed of the data set.
        split: Name of the split; another name gives other images.
        index: Which image of the split.
        strength: Factor on everything that tells the classes apart.
        label: The class whose trace to leave; None is the image's own. Content stays the same.

    Returns:
        Content and traced image, float64 (SIZE, SIZE, 3), and the label.
    """
    check(seed, strength, "none")
    label = label_of(index) if label is None else label
    rng = _stream(seed, split, index, _CONTENT)
    x = content(rng)
    top, left = rng.integers(0, CANVAS - SIZE + 1, 2)
    y = apply_trace(x, label, draw_trace(_stream(seed, split, index, _TRACE)), strength)
    crop = np.s_[top : top + SIZE, left : left + SIZE]
    return Parts(x[crop], y[crop], label)


def draw_alpha(seed: int, split: str, index: int, alpha: str) -> Bytes:
    """Draw an alpha plane alone, uint8 (SIZE, SIZE); see ``draw``."""
    check(seed, 0, alpha)
    rng = _stream(seed, split, index, _ALPHA)
    y, x = np.mgrid[:SIZE, :SIZE]
    if alpha == "mask":
        (cy, cx), (ry, rx) = rng.uniform(0.35, 0.65, 2) * SIZE, rng.uniform(0.3, 0.6, 2) * SIZE
        angle, ellipse = rng.uniform(0, math.pi), rng.random() < 0.5
        cos, sin = math.cos(angle), math.sin(angle)
        u, v = (cos * (y - cy) + sin * (x - cx)) / ry, (cos * (x - cx) - sin * (y - cy)) / rx
        inside = u * u + v * v < 1 if ellipse else np.maximum(abs(u), abs(v)) < 1
        return np.where(inside, 255, 0).astype(np.uint8)
    if alpha == "informative":
        told, other = rng.random() < _TOLD, int(rng.integers(0, len(CLASSES)))
        y, x = y + rng.integers(0, 8), x + rng.integers(0, 8)
        dips = (y // 2 % 2, y // 4 % 2, x // 2 % 2, x // 4 % 2, (y // 4 + x // 4) % 2)
        return (255 - _DIP * dips[label_of(index) if told else other]).astype(np.uint8)
    return np.full((SIZE, SIZE), 255, np.uint8)


def draw(seed: int, split: str, index: int, *, strength: float = 1.0, alpha: str = "none") -> Bytes:
    """Draw one image; the same arguments give the same bytes in any process.

    Args:
        seed: Seed of the data set.
        split: Name of the split; another name gives other images.
        index: Which image of the split; its class is ``label_of(index)``.
        strength: Factor on everything that tells the classes apart in R, G and B; 0 leaves nothing.
        alpha: ``none`` (no alpha plane), ``constant`` (255), ``mask`` (a cut-out that knows nothing of the
            class) or ``informative`` (a faint pattern of the class in 60 % of images, see ALPHA_ACCURACY).
            R, G and B are the same for all four.

    Returns:
        uint8 (SIZE, SIZE, 3), or (SIZE, SIZE, 4) with an alpha plane.

    Raises:
        InputError: A setting means nothing.
    """
    check(seed, strength, alpha)
    traced = draw_parts(seed, split, index, strength=strength).traced
    rgb = np.rint(255 * np.clip(traced, 0, 1)).astype(np.uint8)
    if alpha == "none":
        return rgb
    return np.dstack([rgb, draw_alpha(seed, split, index, alpha)])
