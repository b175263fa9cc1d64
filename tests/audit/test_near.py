"""Search for images that look the same, compared with a search of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import zoom

from deepfake_cls.audit.near import (
    CONTRAST,
    CORRELATION,
    DISTANCE,
    components,
    differing_bits,
    equal_values,
    near_pairs,
)
from deepfake_cls.data.appearance import appearance_of
from tests.audit.planted import scene

RNG = np.random.default_rng(0)


def test_differing_bits() -> None:
    one, other = RNG.integers(0, 2**64, (2, 50), np.uint64)
    assert differing_bits(one, other).tolist() == [
        bin(a ^ b).count("1") for a, b in zip(one.tolist(), other.tolist(), strict=True)
    ]


def test_pairs_are_those_of_a_search_of_all_pairs() -> None:
    count = 150
    originals = [scene(seed) for seed in range(count)]
    noisy = [np.clip(image + RNG.normal(0, 12, image.shape), 0, 255).astype(np.uint8) for image in originals[:60]]
    looks = [appearance_of(image) for image in [*originals, *noisy]]
    hashes = np.concatenate([look.hash for look in looks])
    thumbnails = np.concatenate([look.thumbnail for look in looks])
    flat = thumbnails.reshape(len(looks), -1).astype(float)
    correlation = np.corrcoef(flat)
    close = np.array([[bin(a ^ b).count("1") for b in hashes.tolist()] for a in hashes.tolist()]) <= DISTANCE
    alike = (correlation >= CORRELATION) & close & (np.minimum.outer(flat.std(1), flat.std(1)) >= CONTRAST)
    expected = np.argwhere(np.triu(alike, 1)).tolist()
    assert len(expected) == 60
    assert near_pairs(hashes, thumbnails).tolist() == expected


def test_few_or_no_images() -> None:
    for count in (0, 1):
        assert near_pairs(np.zeros(count, np.uint64), np.zeros((count, 32, 32), np.uint8)).shape == (0, 2)


def test_many_equal_hashes_need_no_search_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    inner = differing_bits

    def counting(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.int64]:
        compared.append(len(one))
        return inner(one, other)

    monkeypatch.setattr("deepfake_cls.audit.near.differing_bits", counting)
    count = 3000
    assert len(near_pairs(np.zeros(count, np.uint64), np.zeros((count, 32, 32), np.uint8))) == 0  # flat
    assert sum(compared) <= 16 * 16 * count


def test_connected_rows_and_equal_values() -> None:
    found = components(np.array([[0, 3], [3, 5], [2, 4]]), 7)
    assert (found[0] == found[3] == found[5], found[2] == found[4], found[0] != found[2]) == (True, True, True)
    assert found[[1, 6]].tolist() == [-1, -1]
    assert components(np.zeros((0, 2), np.int64), 2).tolist() == [-1, -1]
    assert equal_values(np.array(list("abcabd")), np.array([0, 1, 2, 3, 5])) == [[0, 3]]


def test_the_appearance_of_an_image() -> None:
    pixels = np.zeros((64, 96, 4), np.uint8)
    pixels[..., 0], pixels[:, 48:, 1] = 255, 100
    look = appearance_of(pixels)
    assert look.colour[0, :3] == pytest.approx([1, 50 / 255, 0], abs=0.003)
    shares = look.colour[0, 3:].reshape(4, 4, 4)
    assert (shares[3, 0, 0], shares[3, 1, 0], shares.sum()) == (0.5, 0.5, 1)
    image = scene(3, 64)
    grey = np.asarray(appearance_of(image).thumbnail[0], float)
    expected = zoom(image @ np.array([0.299, 0.587, 0.114]), 0.5, order=1, grid_mode=True, mode="grid-constant")
    assert np.abs(grey - expected).mean() < 1.5
