"""Statistics of the pixels of an image: colours, differences of neighbours, covariance, spectrum, co-occurrences.

Plain torch, nothing is learned here. ``deepfake-cls statistics`` and the network ``texturenet`` use them as features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

HSV_BINS = 6  # of each of hue, saturation and value in the joint histogram
MARGINAL_BINS = 16  # of each of the three marginal histograms
QUANTILES = (0.25, 0.5, 0.9, 0.99)
RINGS = 51  # of the power spectrum: 0, 0.01, ..., 0.5 cycles per pixel, for images of any size
RESIDUALS = 7  # of co-occurrences: -3 to 3
GRADIENT_FACTOR = 4  # gradients are smaller than colours
_SIZES = {
    "colours": HSV_BINS**3 + 3 * MARGINAL_BINS,
    "derivatives": 5 * 3 * (2 + len(QUANTILES)),
    "covariance": 12 * 13 // 2 + 12,
    "spectrum": 3 * RINGS,
    "cooccurrences": 8 * RESIDUALS**2,
}
GROUPS = tuple(_SIZES)
_CHUNK_PIXELS = 200_000  # images are processed in chunks of so many pixels, which fit the cache
_VALUES = 511  # magnitudes of second differences of uint8: 0 to 510


def group_slices(groups: Sequence[str] = GROUPS) -> dict[str, slice]:
    """Where each group is in the columns of :func:`image_statistics`, in the order of ``groups``.

    Raises:
        ValueError: If a group is unknown or listed twice, or there is none.
    """
    if not groups or len(set(groups)) != len(groups) or not set(groups) <= set(GROUPS):
        raise ValueError(f"groups={list(groups)}: expected different names among {', '.join(GROUPS)}.")
    slices, start = {}, 0
    for group in groups:
        slices[group] = slice(start, start + _SIZES[group])
        start += _SIZES[group]
    return slices


def image_statistics(images: Tensor, groups: Sequence[str] = GROUPS) -> Tensor:
    """Compute statistics of each image.

    The counts and sums are exact integers, so the statistics of an image do not depend on the other images of the
    batch. The spectrum is an exception, up to the rounding of float32.

    - ``colours`` (264): see :func:`colours`.
    - ``derivatives`` (90): see :func:`derivatives`.
    - ``covariance`` (90): see :func:`covariance`.
    - ``spectrum`` (153): see :func:`spectrum`.
    - ``cooccurrences`` (392): see :func:`cooccurrences`.

    Args:
        images: uint8 (B, C, H, W) on any device, C at least 3, H and W at least 4; the first three channels are R, G
            and B, the others are ignored.
        groups: Groups in the order of the columns; :func:`group_slices` says which columns each has.

    Returns:
        float32 (B, D), finite for all images.

    Raises:
        ValueError: If the images have another type or shape, or a group is unknown.
    """
    group_slices(groups)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] < 3 or min(images.shape[2:]) < 4:
        shape = tuple(images.shape)
        raise ValueError(
            f"images are {images.dtype} {shape}: expected uint8 (B, C, H, W), C at least 3, H and W at least 4."
        )
    count = max(1, _CHUNK_PIXELS // (images.shape[2] * images.shape[3]))
    chunks = [chunk[:, :3].contiguous() for chunk in torch.split(images, count)]
    return torch.cat([torch.cat([_COMPUTE[group](rgb) for group in groups], dim=1) for rgb in chunks])


def colours(rgb: Tensor) -> Tensor:
    """HSV histograms of uint8 (B, 3, H, W): square roots of the shares of pixels, float32 (B, 264).

    Hue, saturation and value are those of ``colorsys``, 0 to 1, where grey has hue 0. A bin has its lower edge and not
    its upper one, and 1 is in the last bin.

    - 216 joint shares of 6 × 6 × 6 bins: hue changes slowest, value fastest.
    - 3 × 16 marginal shares: hue, saturation, value.
    """
    pixels = rgb.flatten(2).to(torch.int32)  # (B, 3, H·W)
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(dim=1)
    delta = value - pixels.amin(dim=1)
    # The hue in sixths of the circle is hue / delta.
    hue = torch.where(value == blue, red - green + 4 * delta, 0)
    hue = torch.where(value == green, blue - red + 2 * delta, hue)
    hue = torch.where(value == red, green - blue, hue)
    hue = torch.where(hue < 0, hue + 6 * delta, hue)
    joint, marginals = torch.zeros_like(hue), []
    for part, whole in ((hue, 6 * delta), (delta, value), (value, torch.full_like(value, 255))):
        joint = joint * HSV_BINS + _bins(part, whole, HSV_BINS)
        marginals.append(_bins(part, whole, MARGINAL_BINS))
    counts = [_counts(joint, HSV_BINS**3), *(_counts(bins, MARGINAL_BINS) for bins in marginals)]
    return (torch.cat(counts, dim=1) / joint.shape[1]).sqrt()


def derivatives(rgb: Tensor) -> Tensor:
    """Magnitudes of differences of uint8 (B, 3, H, W): logarithms of their mean, sd and quantiles, float32 (B, 90).

    For each of 5 differences of neighbouring pixels (dx, dy, dxx, dyy, dxy; dxx is a[x+2] − 2 a[x+1] + a[x], dxy is the
    difference in y of dx) and each of R, G and B: 6 numbers of the magnitudes |d|, with e = 0.01 gray levels:
    log(mean + e), log(sd + e) with the population's sd, and log(q + e) of the quantiles 0.25, 0.5, 0.9 and 0.99, which
    are linearly interpolated as numpy does.
    """
    pixels = rgb.to(torch.int16)
    dx, dy = pixels.diff(dim=3), pixels.diff(dim=2)
    parts = [_summary(part.abs()) for part in (dx, dy, dx.diff(dim=3), dy.diff(dim=2), dx.diff(dim=2))]
    return torch.cat(parts, dim=1)


def covariance(rgb: Tensor) -> Tensor:
    """Covariance of colours and gradients of uint8 (B, 3, H, W): float32 (B, 90).

    12 values of each pixel but the last row and column: R, G, B; 4 |dx|, 4 |dy| and 4 |dxy| of R, G and B. Of these the
    upper triangle of the population's 12 × 12 covariance, row by row, as signed square roots (78), and the means (12).
    """
    pixels = rgb.to(torch.int16)
    dx, dy = pixels.diff(dim=3), pixels.diff(dim=2)
    gradients = [dx[:, :, :-1], dy[..., :-1], dx.diff(dim=2)]
    values = torch.cat([pixels[:, :, :-1, :-1], *(gradient.abs() * GRADIENT_FACTOR for gradient in gradients)], dim=1)
    values = values.flatten(2).double()  # (B, 12, P); sums of integers below 2^53 are exact
    count = values.shape[2]
    means = values.sum(dim=2) / count
    matrix = values @ values.transpose(1, 2) / count - means[:, :, None] * means[:, None, :]
    row, column = torch.triu_indices(12, 12, device=rgb.device)
    upper = matrix[:, row, column]
    return torch.cat([upper.sign() * upper.abs().sqrt(), means], dim=1).float()


def spectrum(rgb: Tensor) -> Tensor:
    """Radial power spectrum of uint8 (B, 3, H, W): log(mean power + 0.01), float32 (B, 153).

    Of luma (0.299 R + 0.587 G + 0.114 B), R − G and B − G, each without its mean: |FFT|² / (H·W) as a mean over 51
    rings. Ring r has the frequencies whose modulus in cycles per pixel, times 100, rounds to r (halves up); higher ones
    are omitted. A ring without a frequency, as in small images, has power 0.
    """
    red, green, blue = rgb.float().unbind(1)
    planes = torch.stack([0.299 * red + 0.587 * green + 0.114 * blue, red - green, blue - green], dim=1)
    height, width = planes.shape[2:]
    power = torch.fft.rfft2(planes - planes.mean(dim=(2, 3), keepdim=True)).abs().square() / (height * width)
    weights = _ring_weights(height, width).to(rgb.device)
    means: Tensor = power.flatten(2) @ weights
    return (means + 0.01).log().flatten(1)


def cooccurrences(rgb: Tensor) -> Tensor:
    """Joint histograms of adjacent residuals of uint8 (B, 3, H, W): square roots of shares, float32 (B, 392).

    A small form of the features of Fridrich and Kodovsky (2012), "Rich models for steganalysis of digital images". The
    4 residuals dx, floor(dxx / 2), dy, floor(dyy / 2), each clipped to -3 ... 3, have two histograms of 7 × 7 bins:
    of the pairs of a residual and its right neighbour, and of the pairs of a residual and its lower neighbour. Pairs of
    R, G and B are counted together. The first residual of a pair changes slowest.
    """
    pixels, histograms = rgb.to(torch.int16), []
    for direction in (3, 2):
        first = pixels.diff(dim=direction)
        for residuals in (first, first.diff(dim=direction) >> 1):
            values = residuals.clamp(-(RESIDUALS // 2), RESIDUALS // 2) + RESIDUALS // 2
            for right, down in ((1, 0), (0, 1)):
                height, width = values.shape[2] - down, values.shape[3] - right
                pairs = values[..., :height, :width] * RESIDUALS + values[..., down:, right:]
                counts = _counts(pairs.flatten(1), RESIDUALS**2)
                histograms.append((counts / (3 * height * width)).sqrt())
    return torch.cat(histograms, dim=1)


def _ring_weights(height: int, width: int) -> Tensor:
    """Weight of each frequency of ``rfft2`` in each ring's mean: float32 (H·(W // 2 + 1), 51)."""
    y, x = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)
    # 1e-9 is for halves such as 12.5, which hypot may give as 12.499999.
    ring = (torch.hypot(y[:, None], x[None, :]) * 100 + 0.5 + 1e-9).floor().long().flatten()
    # rfft2 has one of each two conjugate columns, but for the first and, if the width is even, the last.
    multiplicity = torch.full((len(x),), 2.0, dtype=torch.float64)
    multiplicity[0] = 1
    if width % 2 == 0:
        multiplicity[-1] = 1
    weights = torch.eq(ring[:, None], torch.arange(RINGS)) * multiplicity.repeat(height)[:, None]
    shares: Tensor = weights / weights.sum(dim=0).clamp(min=1)
    return shares.float()


def _bins(part: Tensor, whole: Tensor, bins: int) -> Tensor:
    """floor(bins · part / whole), at most ``bins`` − 1, of integers of up to 2^15; 0 where ``whole`` is 0."""
    quotient = part * bins / whole.clamp(min=1)  # float32, whose rounding does not reach the next integer
    return quotient.to(torch.int32).clamp(max=bins - 1)


def _counts(values: Tensor, bins: int) -> Tensor:
    """Count the values 0 to ``bins`` − 1 in each row: integers (R, P) to int64 (R, ``bins``)."""
    rows = len(values)
    offsets = torch.arange(0, rows * bins, bins, dtype=torch.int32, device=values.device)[:, None]
    return torch.bincount((values + offsets).flatten(), minlength=rows * bins).view(rows, bins)


def _summary(magnitudes: Tensor) -> Tensor:
    """Log mean, sd and quantiles by channel: int16 (B, 3, H, W), 0 to 510, to float32 (B, 18); all from counts."""
    batch = len(magnitudes)
    counts = _counts(magnitudes.view(batch * 3, -1), _VALUES)
    values = torch.arange(_VALUES, device=counts.device)
    total = magnitudes.shape[2] * magnitudes.shape[3]
    mean = (counts * values).sum(dim=1).double() / total
    variance = (counts * values**2).sum(dim=1).double() / total - mean**2
    # Ranks, from 0, of the two values between which a quantile lies.
    ranks = torch.tensor(QUANTILES, dtype=torch.float64, device=counts.device) * (total - 1)
    lower = ranks.floor().long()
    both = torch.stack([lower, (lower + 1).clamp(max=total - 1)]).flatten().expand(len(counts), -1).contiguous()
    below, above = torch.searchsorted(counts.cumsum(dim=1), both, right=True).double().chunk(2, dim=1)
    quantiles = below + (above - below) * (ranks - lower)
    numbers = torch.cat([mean[:, None], variance.sqrt()[:, None], quantiles], dim=1)
    return (numbers + 0.01).log().float().view(batch, -1)


_COMPUTE: dict[str, Callable[[Tensor], Tensor]] = {
    "colours": colours,
    "derivatives": derivatives,
    "covariance": covariance,
    "spectrum": spectrum,
    "cooccurrences": cooccurrences,
}
