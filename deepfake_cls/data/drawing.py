"""The embedded data set: images of five kinds of generator, each with the trace of its kind.

All classes have the same distribution of content: dead leaves, 1/f textures, a gradient of light, blur and noise. They
differ only in their trace, such as that of an up-sampler, and in a faint cast of colour (``traces``). An image depends
only on seed, split and index. Lengths are in pixels, 0 is black and 1 is white.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt
import scipy  # imports its submodules on first use: opening a finished store needs none
from PIL import Image, ImageDraw

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.traces import CANVAS, FREQUENCY2, Array, apply_trace, blur, draw_trace
from deepfake_cls.schema import check

Uint8 = npt.NDArray[np.uint8]

VERSION: int = 2  # part of every cache key: increase it with any change of a pixel
CLASSES = ("transposed-conv GAN", "resize-conv GAN", "pixel diffusion", "latent diffusion", "compositor")
SIZE = 100  # largest size; smaller images show the middle of the canvas, so that a blended region stays visible
ALPHA_ACCURACY = 0.6  # best accuracy from the informative alpha channel only

_FINE = 2 * CANVAS  # leaves are drawn at twice the size and averaged, for soft edges
_LEAVES = 700  # they leave 2 % of an image uncovered
_TEXTURES = 3
_DIP = 96  # depth of the pattern in the informative alpha channel, in 1/255; unlike the 0 in the corners of a rotation
_TRUE_PATTERN = (len(CLASSES) * ALPHA_ACCURACY - 1) / (len(CLASSES) - 1)  # p with p + (1 - p)/5 = 0.6
_CONTENT, _TRACE, _ALPHA = range(3)  # purposes of the random streams


def label_of(index: int) -> int:
    """Return the class of an image."""
    return index % len(CLASSES)


def draw(seed: int, split: str, index: int, *, strength: float = 1.0, alpha: str = "none", size: int = SIZE) -> Uint8:
    """Draw one image; the same arguments give the same bytes in any process.

    Args:
        seed: Seed of the data set.
        split: Name of the split; another name gives other images.
        index: Row in the split; the class is ``label_of(index)``.
        strength: Factor on all differences between the classes in R, G and B; with 0 there are none.
        alpha: ``none`` (no alpha channel), ``constant`` (255), ``mask`` (a shape independent of the class) or
            ``informative`` (a pattern that allows ALPHA_ACCURACY). R, G and B do not depend on it.
        size: Side of the image; smaller ones are cut from the middle.

    Returns:
        uint8 (size, size, 3), or (size, size, 4) with an alpha channel.

    Raises:
        InputError: If an argument is invalid.
    """
    _, traced = draw_parts(seed, split, index, strength=strength, size=size)
    rgb = np.rint(255 * np.clip(traced, 0, 1)).astype(np.uint8)
    return rgb if alpha == "none" else np.dstack([rgb, draw_alpha(seed, split, index, alpha, size)])


def draw_parts(
    seed: int, split: str, index: int, *, strength: float = 1.0, label: int | None = None, size: int = SIZE
) -> tuple[Array, Array]:
    """Draw an image before it is quantised; arguments as for ``draw``.

    With ``label``, the trace is that of another class, so that a figure can show all classes with the same content.

    Returns:
        The content without and with the trace, each (size, size, 3), in part slightly outside [0, 1].
    """
    _check(seed, strength, "none", size)
    rng = _stream(seed, split, index, _CONTENT)
    x = content(rng)
    top, left = (SIZE - size) // 2 + rng.integers(0, CANVAS - SIZE + 1, 2)
    crop = np.s_[top : top + size, left : left + size]
    draws = draw_trace(_stream(seed, split, index, _TRACE))
    y = apply_trace(x, label_of(index) if label is None else label, draws, strength)
    return x[crop], y[crop]


def draw_alpha(seed: int, split: str, index: int, alpha: str, size: int = SIZE) -> Uint8:
    """Draw only the alpha channel, uint8 (size, size); arguments as for ``draw``."""
    _check(seed, 0, alpha, size)
    rng = _stream(seed, split, index, _ALPHA)
    y, x = np.mgrid[:size, :size]
    if alpha == "mask":
        centre, axes = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.3, 0.6, 2) * size
        angle, disc = rng.uniform(0, math.pi), rng.random() < 0.5
        y, x, cos, sin = y - centre[0], x - centre[1], math.cos(angle), math.sin(angle)
        u, v = np.abs(cos * y + sin * x) / axes[0], np.abs(cos * x - sin * y) / axes[1]
        return np.asarray(255 * ((np.hypot(u, v) if disc else np.maximum(u, v)) < 1), np.uint8)
    if alpha == "informative":
        true_pattern, random_label = rng.random() < _TRUE_PATTERN, int(rng.integers(len(CLASSES)))
        y, x = y + rng.integers(8), x + rng.integers(8)
        # Stripes along the axes and a chequer: a flipped image must not have the pattern of another class.
        dips = (y // 2 % 2, y // 4 % 2, x // 2 % 2, x // 4 % 2, (y // 4 + x // 4) % 2)
        return np.asarray(255 - _DIP * dips[label_of(index) if true_pattern else random_label], np.uint8)
    return np.full((size, size), 255, np.uint8)


def _check(seed: int, strength: float, alpha: str, size: int) -> None:
    check(SyntheticConfig(seed=seed, strength=strength, alpha=alpha, image_size=size), "data.")


def _stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """Return the random number generator of one purpose of one image; all of them are independent."""
    key = (zlib.crc32(split.encode()), index, purpose)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def content(rng: np.random.Generator) -> Array:
    """Draw the content, which does not depend on the class: (CANVAS, CANVAS, 3), mostly within [0, 1]."""
    leaf = _leaves(rng)
    textures = _textures(rng)
    # The leaves of one image have a common cast, and grey varies more than hue, as in photographs. Both spreads vary
    # by image, so that no class differs in how colourful it is.
    base = rng.uniform(0.25, 0.65) + rng.normal(0, 0.08, 3)
    grey, hue = rng.uniform(0.10, 0.20), rng.uniform(0.06, 0.14)
    colour = base + rng.normal(0, grey, (_LEAVES + 1, 1)) + rng.normal(0, hue, (_LEAVES + 1, 3))
    grain = rng.uniform(0, 0.08, (_LEAVES + 1, 1))
    kind = rng.integers(0, _TEXTURES, (_LEAVES + 1, 1))
    slope = rng.normal(0, 0.1, 2)
    noise = rng.standard_normal((CANVAS, CANVAS, 3))

    # A leaf is a colour and an amount of each texture: (leaves, 3 + _TEXTURES).
    look = np.hstack([np.clip(colour, 0.03, 0.97), grain * (kind == np.arange(_TEXTURES))])
    x = sum((look[leaf[row::2, column::2]] for row in (0, 1) for column in (0, 1)), np.zeros(())) / 4
    ramp = np.linspace(-1, 1, CANVAS)
    light = slope[0] * ramp[:, None] + slope[1] * ramp + (x[..., 3:] * textures).sum(-1)
    return blur(x[..., :3] + light[..., None], 0.6) + 0.006 * noise


def _leaves(rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Draw the index of the leaf that each fine pixel shows (_FINE, _FINE); 0 is the ground, later leaves cover it.

    Dead leaves: radii of density ∝ r⁻³ give the statistics of natural images (Lee, Mumford and Huang 2001).
    60 % are discs, the others are rectangles inscribed in the disc.
    """
    smallest, largest = 0.08 * CANVAS, 1.0 * CANVAS
    u = rng.random((6, _LEAVES))
    radius = (smallest**-2 + u[0] * (largest**-2 - smallest**-2)) ** -0.5
    centre = _FINE / 2 + (2 * u[1:3] - 1) * (_FINE / 2 + largest)
    half = np.pi * (0.15 + 0.2 * u[4])  # the angle between a diagonal and a side
    corners = 2 * np.pi * u[3] + np.stack([half, -half, half + np.pi, np.pi - half])
    # Integers, because the treatment of fractions of a pixel depends on the version of Pillow.
    box = np.rint(np.concatenate([centre - radius, centre + radius])).astype(int)
    vertices = np.stack([centre[0] + radius * np.cos(corners), centre[1] + radius * np.sin(corners)], 1)
    polygon = np.rint(vertices).astype(int).reshape(8, _LEAVES)
    visible = (np.abs(centre - _FINE / 2) < _FINE / 2 + radius).all(0)
    image = Image.new("I", (_FINE, _FINE))
    brush = ImageDraw.Draw(image)
    for leaf in np.flatnonzero(visible).tolist():
        if u[5, leaf] < 0.6:
            brush.ellipse(box[:, leaf].tolist(), fill=leaf + 1)
        else:
            brush.polygon(polygon[:, leaf].tolist(), fill=leaf + 1)
    return np.asarray(image, dtype=np.int32)


def _textures(rng: np.random.Generator) -> Array:
    """Draw 1/f^α noise of unit variance, α from U(0.8, 1.4): (CANVAS, CANVAS, _TEXTURES)."""
    power = rng.uniform(0.8, 1.4, _TEXTURES)
    half = rng.standard_normal((CANVAS, CANVAS // 2 + 1, _TEXTURES, 2)).view(np.complex128)[..., 0]
    gain = np.maximum(FREQUENCY2, CANVAS**-2.0) ** (-power / 2)
    gain[0, 0] = 0  # zero mean
    textures = np.asarray(scipy.fft.irfft2(half * gain, (CANVAS, CANVAS), axes=(0, 1), workers=1))
    return np.asarray(textures / textures.std((0, 1)))
