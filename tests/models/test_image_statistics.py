import colorsys
import math
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepfake_cls.models.image_statistics import GROUPS, group_slices, image_statistics

Image = NDArray[np.uint8]  # (H, W, 3)


def natural(height: int = 20, width: int = 17, channels: int = 3, count: int = 1) -> torch.Tensor:
    """Smooth images with noise and some constant areas: uint8 (B, C, H, W)."""
    rng = np.random.default_rng(height * 1000 + width)
    steps = rng.integers(-20, 21, (count, channels, height, width)).cumsum(axis=3)
    images = np.clip(128 + steps, 0, 255).astype(np.uint8)
    images[..., : height // 3, : width // 3] = 0
    images[..., -2:, -2:] = 255
    images[:, 1:, height // 2, :] = images[:, :1, height // 2, :]  # gray pixels
    return torch.from_numpy(images)


def colour_oracle(image: Image) -> list[float]:
    """The histograms by colorsys in exact fractions."""
    joint, marginals, pixels = np.zeros((6, 6, 6)), np.zeros((3, 16)), image.reshape(-1, 3)
    for pixel in pixels:
        red, green, blue = (Fraction(int(value), 255) for value in pixel)
        hsv = colorsys.rgb_to_hsv(red, green, blue)  # type: ignore[arg-type]
        joint[tuple(min(int(6 * value), 5) for value in hsv)] += 1
        for row, value in zip(marginals, hsv, strict=True):
            row[min(int(16 * value), 15)] += 1
    return [math.sqrt(count / len(pixels)) for count in (*joint.ravel(), *marginals.ravel())]


def differences(image: Image) -> list[NDArray[np.float64]]:
    """dx, dy, dxx, dyy and dxy, (H', W', 3), by slices."""
    a = image.astype(np.float64)
    dx, dy = a[:, 1:] - a[:, :-1], a[1:] - a[:-1]
    dxx, dyy = a[:, 2:] - 2 * a[:, 1:-1] + a[:, :-2], a[2:] - 2 * a[1:-1] + a[:-2]
    return [dx, dy, dxx, dyy, a[1:, 1:] - a[1:, :-1] - a[:-1, 1:] + a[:-1, :-1]]


def derivative_oracle(image: Image) -> list[float]:
    numbers = []
    for difference in differences(image):
        for magnitudes in np.abs(difference).reshape(-1, 3).T:
            quantiles = np.quantile(magnitudes, (0.25, 0.5, 0.9, 0.99))
            numbers += [math.log(number + 0.01) for number in (magnitudes.mean(), magnitudes.std(), *quantiles)]
    return numbers


def covariance_oracle(image: Image) -> list[float]:
    dx, dy, _, _, dxy = differences(image)
    gradients = [4 * np.abs(each) for each in (dx[:-1], dy[:, :-1], dxy)]
    values = np.concatenate([image[:-1, :-1], *gradients], axis=2).reshape(-1, 12)
    matrix = np.cov(values.T, bias=True)
    upper = [matrix[row, column] for row in range(12) for column in range(row, 12)]
    return [math.copysign(math.sqrt(abs(value)), value) for value in upper] + list(values.mean(axis=0))


def spectrum_oracle(image: Image) -> list[float]:
    red, green, blue = np.moveaxis(image.astype(np.float64), 2, 0)
    y, x = np.meshgrid(np.fft.fftfreq(len(red)), np.fft.fftfreq(red.shape[1]), indexing="ij")
    ring = np.floor(100 * np.hypot(y, x) + 0.5 + 1e-9)
    numbers = []
    for plane in (0.299 * red + 0.587 * green + 0.114 * blue, red - green, blue - green):
        power = np.abs(np.fft.fft2(plane - plane.mean())) ** 2 / plane.size
        rings = [power[ring == number] for number in range(51)]
        numbers += [math.log((values.mean() if len(values) else 0) + 0.01) for values in rings]
    return numbers


def cooccurrence_oracle(image: Image) -> list[float]:
    dx, dy, dxx, dyy, _ = differences(image)
    numbers: list[float] = []
    for residuals in (dx, np.floor(dxx / 2), dy, np.floor(dyy / 2)):
        clipped = np.minimum(np.maximum(residuals, -3), 3)
        for first, second in ((clipped[:, :-1], clipped[:, 1:]), (clipped[:-1], clipped[1:])):
            counts, *_ = np.histogram2d(first.ravel(), second.ravel(), bins=np.arange(-3.5, 4))
            numbers += list(np.sqrt(counts / counts.sum()).ravel())
    return numbers


ORACLES: dict[str, Callable[[Image], list[float]]] = {
    "colours": colour_oracle,
    "derivatives": derivative_oracle,
    "covariance": covariance_oracle,
    "spectrum": spectrum_oracle,
    "cooccurrences": cooccurrence_oracle,
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("size", [(20, 17), (100, 100), (16, 24), (8, 8)])
def test_each_number_agrees_with_numpy_and_colorsys(group: str, size: tuple[int, int]) -> None:
    images = natural(*size)

    values = image_statistics(images, [group])[0].double().numpy()

    expected = ORACLES[group](images[0].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_every_colour_is_in_the_bin_that_colorsys_gives() -> None:
    """Edges of bins: all pairs of two channels at the extremes of the third."""
    values = torch.arange(0, 256, 5, dtype=torch.uint8)
    first, second = torch.meshgrid(values, values, indexing="ij")
    for third in (0, 128, 255):
        planes = [first, second, torch.full_like(first, third)]
        for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            image = torch.stack([planes[channel] for channel in order])
            computed = image_statistics(image[None], ["colours"])[0].numpy()
            np.testing.assert_allclose(computed, colour_oracle(image.permute(1, 2, 0).numpy()), atol=1e-6)


def test_an_image_has_the_same_statistics_in_any_batch() -> None:
    images = natural(100, 100, count=45)
    together = image_statistics(images)
    alone = torch.cat([image_statistics(images[index : index + 1]) for index in (0, 7, 44)])

    spectrum = group_slices()["spectrum"]
    exact = [column for column in range(together.shape[1]) if not spectrum.start <= column < spectrum.stop]
    assert torch.equal(together[[0, 7, 44]][:, exact], alone[:, exact])
    torch.testing.assert_close(together[[0, 7, 44]], alone, rtol=1e-4, atol=1e-4)


def test_columns_are_in_the_order_of_the_groups() -> None:
    images = natural()
    slices = group_slices(["spectrum", "colours"])
    some, every = image_statistics(images, ["spectrum", "colours"]), image_statistics(images)

    assert slices == {"spectrum": slice(0, 153), "colours": slice(153, 417)}
    assert every.shape == (1, 989)
    for group, columns in slices.items():
        assert torch.equal(some[:, columns], every[:, group_slices()[group]])


def test_alpha_is_ignored() -> None:
    images = natural(channels=4)
    assert torch.equal(image_statistics(images), image_statistics(images[:, :3]))


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (100, 100)])
def test_constant_images_have_finite_statistics(value: int, size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_statistics(torch.full((2, 3, *size), value, dtype=torch.uint8)).isfinite().all()


@pytest.mark.parametrize(
    ("images", "groups", "message"),
    [
        (torch.zeros(1, 3, 8, 8), GROUPS, r"images are torch.float32 \(1, 3, 8, 8\): expected uint8 \(B, C, H, W\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), GROUPS, "C at least 3"),
        (torch.zeros(1, 3, 8, 3, dtype=torch.uint8), GROUPS, "H and W at least 4"),
        (natural(), ["colors"], r"groups=\['colors'\]: expected different names among colours, derivatives"),
        (natural(), ["colours", "colours"], "expected different names"),
        (natural(), [], "expected different names"),
    ],
)
def test_wrong_arguments_are_refused(images: torch.Tensor, groups: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_statistics(images, groups)
