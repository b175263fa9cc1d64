"""Where crops are, and how they are cut out of images of any size."""

from __future__ import annotations

import numpy as np
import pytest
from torchvision.transforms.v2.functional import five_crop, pad, to_image

from deepfake_cls.crops import Crops, grid

SIZES = np.array([[48, 48], [49, 100], [200, 61]])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [(0.5, 0.5)]),
        (2, [(0.5, 0), (0.5, 1)]),
        (3, [(0, 0), (0, 1), (1, 0.5)]),
        (4, [(0, 0), (0, 1), (1, 0), (1, 1)]),
        (5, [(0, 0), (0, 0.5), (0, 1), (1, 0), (1, 1)]),
        (9, [(y, x) for y in (0, 0.5, 1) for x in (0, 0.5, 1)]),
    ],
)
def test_the_grid_reaches_from_edge_to_edge(count: int, expected: list[tuple[float, float]]) -> None:
    assert [*map(tuple, grid(count).tolist())] == expected


def test_every_number_of_crops_has_a_grid() -> None:
    for count in range(1, 50):
        positions = grid(count)
        assert positions.shape == (count, 2)
        assert len({*map(tuple, positions.tolist())}) == count
        assert ((positions >= 0) & (positions <= 1)).all()


def test_four_crops_and_the_centre_are_those_of_torchvision() -> None:
    for height, width in SIZES.tolist():
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        expected = [crop.permute(1, 2, 0).numpy() for crop in five_crop(to_image(image), [48, 48])]
        size = np.array([[height, width]])
        corners, centre = Crops(48, 4).grid(size)[0], Crops(48, 1).centre(size)[0]
        np.testing.assert_array_equal(Crops(48).cut(image, np.concatenate([corners, centre])), expected)


def test_random_crops_are_uniform_over_all_places() -> None:
    sizes = np.tile([[50, 49]], (6_000, 1))
    corners = Crops(48).at(sizes, np.random.default_rng(0).random((len(sizes), 2)))[:, 0]
    places, counts = np.unique(corners, axis=0, return_counts=True)
    assert places.tolist() == [[y, x] for y in range(3) for x in range(2)]
    assert counts.min() > 850  # 1,000 expected
    assert Crops(48).at(np.array([[48, 48]]), np.array([[np.nextafter(1, 0)] * 2])).tolist() == [[[0, 0]]]
    assert Crops(48).at(np.array([[50, 49]]), np.array([[np.nextafter(1, 0)] * 2])).tolist() == [[[2, 1]]]


def test_small_images_are_extended_by_reflection() -> None:
    crops = Crops(48, small="pad")
    for height, width in ((40, 48), (48, 30), (30, 100)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 4), np.uint8)
        missing = [0, 0, max(48 - width, 0), max(48 - height, 0)]  # left, top, right, bottom
        expected = pad(to_image(image), missing, padding_mode="reflect").permute(1, 2, 0).numpy()
        corners = crops.grid(np.array([[height, width]]))[0]
        found = crops.cut(image, corners)
        assert len(found) == 4
        for crop, (y, x) in zip(found, corners.tolist(), strict=True):
            np.testing.assert_array_equal(crop, expected[y : y + 48, x : x + 48])
    assert crops.cut(np.zeros((1, 5, 3), np.uint8), np.zeros((1, 2), np.int64))[0].shape == (48, 48, 3)


def test_images_of_at_least_one_crop_fit() -> None:
    sizes = np.array([[48, 48], [47, 100], [100, 47], [500, 48]])
    assert Crops(48).fits(sizes).tolist() == [True, False, False, True]
    assert Crops(48, small="pad").fits(sizes).all()
