import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from deepfake_cls.models import bounds as bounds_module
from deepfake_cls.models import knn, products
from deepfake_cls.models.bounds import VALUES_PER_COEFFICIENT, CosineBounds
from deepfake_cls.models.knn import nearest
from deepfake_cls.models.products import blocks, square_norms
from tests.models.test_knn import naive, noise


def photos(seed: int, count: int, height: int = 24, width: int = 20, channels: int = 3) -> NDArray[np.uint8]:
    """Images with most of their energy in low frequencies, like photographs."""
    normal = np.random.default_rng(seed).normal(size=(count, height, width, channels))
    smooth = ndimage.gaussian_filter(normal, (0, 3, 3, 0))
    pixels: NDArray[np.uint8] = np.clip(128 + 60 * smooth / smooth.std() + 2 * normal, 0, 255).astype(np.uint8)
    return pixels


@pytest.fixture(autouse=True)
def _use_bounds_for_any_number_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "break_even", lambda *_: 1)


def flat(images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    block = next(blocks(images, len(images), "cpu"))[1]
    return block, square_norms(block)


@pytest.mark.parametrize("shape", [(24, 20, 3), (24, 20, 4), (9, 31, 1), (1, 1, 3), (100, 100, 3)])
def test_no_distance_is_below_its_bound(shape: tuple[int, int, int]) -> None:
    extremes = np.stack([np.full(shape, value, np.uint8) for value in (0, 1, 127, 128, 254, 255)])
    stripes = np.zeros((2, *shape), np.uint8)
    stripes[0, ::2], stripes[1, :, ::2] = 255, 255
    photo = photos(0, 6, *shape)
    close = photo.copy()
    close[:, 0, 0, 0] ^= 1
    images = np.concatenate([extremes, stripes, photo, close, noise(0, 6, *shape)])
    block, norms = flat(images)
    bounds = CosineBounds(block, shape)
    vectors = bounds.vectors(block, norms)
    assert vectors.shape[1] - 1 <= max(1, block.shape[1] // VALUES_PER_COEFFICIENT)
    lower = bounds.lower(vectors, vectors, norms)
    wide = block.to(torch.int64)
    for image, bound in enumerate(lower):
        distances = (wide - wide[image]).square().sum(dim=1)  # the distance to itself is 0: the bound is tight
        assert bool((bound <= bounds.limits(norms[image].expand(len(wide)), distances)).all())


@pytest.mark.parametrize(("channels", "rows"), [(1, 64), (3, 5), (3, 64), (3, 10_000), (4, 64)])
def test_neighbours_of_photos_equal_the_definition(channels: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", rows)
    monkeypatch.setattr(knn, "QUERY_ROWS", 13)
    queries, references = photos(1, 30, channels=channels), photos(2, 300, channels=channels)
    references[[7, 150, 299]] = queries[3]  # ties, in different blocks
    references[[20, 21, 22, 200]] = references[5]
    for k in (1, 9):
        distances, indices = nearest(queries, references, k)
        assert (distances.tolist(), indices.tolist()) == naive(queries, references, k)
    assert nearest(queries[3:4], references, 3)[1].tolist() == [[7, 150, 299]]


def count_products(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """A list that gets the number of products of each call of a function."""
    calls: list[int] = []
    module = products if hasattr(products, name) and not hasattr(knn, name) else knn
    original = getattr(module, name)

    def call(*arguments: Tensor) -> Tensor:
        result: Tensor = original(*arguments)
        calls.append(result.numel())
        return result

    monkeypatch.setattr(module, name, call)
    return calls


def test_photos_need_few_products_and_noise_needs_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 500)
    pairs, whole = count_products(monkeypatch, "pair_products"), count_products(monkeypatch, "float32_product")
    nearest(photos(1, 40), photos(2, 3_000), 5)
    assert whole == []
    assert sum(pairs) < 40 * 3_000 / 20
    pairs.clear()
    nearest(noise(1, 40, 24, 20, 3), noise(2, 3_000, 24, 20, 3), 5)
    assert sum(whole) == 40 * 3_000
    assert len(pairs) == 1  # for the first limits


def test_few_queries_use_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "break_even", lambda *shape: 41 if shape == (24, 20, 3) else 0)
    pairs, whole = count_products(monkeypatch, "pair_products"), count_products(monkeypatch, "float32_product")
    nearest(photos(1, 40), photos(2, 300), 5)
    assert (pairs, sum(whole)) == ([], 40 * 300)


def test_tf32_uses_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = count_products(monkeypatch, "float32_product")
    torch.set_float32_matmul_precision("high")  # TF32, where the hardware has it
    try:
        nearest(photos(1, 40), photos(2, 300), 5)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert sum(whole) == 40 * 300


def test_a_first_block_without_bounds_does_not_disable_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # 40 of 500 are too many for single pairs, so the first block uses no bounds; they still help in the next ones.
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 500)
    monkeypatch.setattr(knn, "PATIENCE", 1)
    queries = photos(1, 10)
    references = np.concatenate([np.repeat(queries, 50, axis=0) ^ noise(0, 500, 24, 20, 3, high=2), photos(2, 1_000)])
    whole = count_products(monkeypatch, "float32_product")
    result = nearest(queries, references, 40)
    assert sum(whole) == 10 * 500
    assert [part.tolist() for part in result] == list(naive(queries, references, 40))


def test_default_dtype_float64_and_empty_images() -> None:
    queries, references = photos(1, 10), photos(2, 100)
    expected = nearest(queries, references, 3)
    torch.set_default_dtype(torch.float64)
    try:
        result = nearest(queries, references, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(np.array_equal(a, b) for a, b in zip(result, expected, strict=True))
    nothing = np.zeros((5, 0, 4, 3), np.uint8)
    assert nearest(nothing, nothing, 2)[1].tolist() == [[0, 1]] * 5


def test_useless_bounds_are_no_longer_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 100)
    calls: list[int] = []
    original = knn._Nearest.candidates

    def candidates(self: knn._Nearest, *arguments: Tensor) -> tuple[Tensor, Tensor] | None:
        calls.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(knn._Nearest, "candidates", candidates)
    nearest(noise(1, 9, 24, 20, 3), noise(2, 1_000, 24, 20, 3), 5)
    assert len(calls) == knn.PATIENCE


def test_references_sorted_by_decreasing_distance_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each block is nearer than the one before it, so the limits always change.
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 32)
    queries, references = photos(1, 4), photos(2, 256)
    distances = ((references.astype(np.int64) - queries[0].astype(np.int64)) ** 2).sum(axis=(1, 2, 3))
    references = references[np.argsort(-distances)]
    assert [part.tolist() for part in nearest(queries, references, 7)] == list(naive(queries, references, 7))


def test_a_block_without_candidates_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 100)
    pairs = count_products(monkeypatch, "pair_products")
    far = np.full((100, 24, 20, 3), 255, np.uint8)
    queries, references = photos(1, 20), np.concatenate([photos(2, 100), far, photos(3, 100)])
    assert [part.tolist() for part in nearest(queries, references, 3)] == list(naive(queries, references, 3))
    assert 0 in pairs


def test_memory_mapped_images_give_the_same_result(tmp_path: object) -> None:
    file = f"{tmp_path}/references.npy"
    references = photos(2, 200)
    np.save(file, references)
    mapped = np.load(file, mmap_mode="r")
    for from_map, from_memory in zip(
        nearest(photos(1, 9), mapped, 5), nearest(photos(1, 9), references, 5), strict=True
    ):
        assert np.array_equal(from_map, from_memory)
