import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage
from torch import Tensor

from deepfake_cls.models import bounds as bounds_module
from deepfake_cls.models import knn, products
from deepfake_cls.models.bounds import VALUES_PER_COEFFICIENT, CosineBounds, _cosines
from deepfake_cls.models.knn import nearest
from deepfake_cls.models.products import blocks, square_norms
from tests.models.test_knn import draws, naive


def photos(seed: int, count: int, height: int = 24, width: int = 20, channels: int = 3) -> NDArray[np.uint8]:
    """Images with most of their energy in low frequencies, as photographs have it."""
    noise = np.random.default_rng(seed).normal(size=(count, height, width, channels))
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    pixels: NDArray[np.uint8] = np.clip(128 + 60 * smooth / smooth.std() + 2 * noise, 0, 255).astype(np.uint8)
    return pixels


@pytest.fixture(autouse=True)
def _few_queries_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "break_even", lambda *_: 1)


def flat(images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    block = next(blocks(images, len(images), "cpu"))[1]
    return block, square_norms(block)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_the_basis_is_the_orthonormal_cosine_transform(count: int) -> None:
    expected = fft.dct(np.eye(count), axis=0, norm="ortho")
    assert np.allclose(_cosines(count).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(24, 20, 3), (24, 20, 4), (9, 31, 1), (1, 1, 3), (100, 100, 3)])
def test_no_distance_is_below_its_bound(shape: tuple[int, int, int]) -> None:
    extremes = np.stack([np.full(shape, value, np.uint8) for value in (0, 1, 127, 128, 254, 255)])
    stripes = np.zeros((2, *shape), np.uint8)
    stripes[0, ::2], stripes[1, :, ::2] = 255, 255
    photo = photos(0, 6, *shape)
    close = photo.copy()
    close[:, 0, 0, 0] ^= 1
    images = np.concatenate([extremes, stripes, photo, close, draws(0, 6, *shape)])
    block, norms = flat(images)
    bounds = CosineBounds(block, shape)
    vectors = bounds.vectors(block, norms)
    assert vectors.shape[1] - 1 <= max(1, block.shape[1] // VALUES_PER_COEFFICIENT)
    lower = bounds.lower(vectors, vectors, norms)
    wide = block.to(torch.int64)
    for image, bound in enumerate(lower):
        distances = (wide - wide[image]).square().sum(dim=1)  # to itself it is 0, which leaves nothing to spare
        assert bool((bound <= bounds.limits(norms[image].expand(len(wide)), distances)).all())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("rows", [5, 64, 10_000])
def test_neighbours_of_photos_are_those_of_the_definition(
    channels: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", rows)
    monkeypatch.setattr(knn, "QUERY_ROWS", 13)
    queries, references = photos(1, 30, channels=channels), photos(2, 300, channels=channels)
    references[[7, 150, 299]] = queries[3]  # ties, in different blocks
    references[[20, 21, 22, 200]] = references[5]
    for k in (1, 9):
        distances, indices = nearest(queries, references, k)
        assert (distances.tolist(), indices.tolist()) == naive(queries, references, k)
    assert nearest(queries[3:4], references, 3)[1].tolist() == [[7, 150, 299]]


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """How many products each call of a function takes."""
    calls: list[int] = []
    module = products if hasattr(products, name) and not hasattr(knn, name) else knn
    original = getattr(module, name)

    def call(*arguments: Tensor) -> Tensor:
        found: Tensor = original(*arguments)
        calls.append(found.numel())
        return found

    monkeypatch.setattr(module, name, call)
    return calls


def test_of_photos_few_products_are_taken_and_of_noise_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 500)
    pairs, whole = counted(monkeypatch, "pair_products"), counted(monkeypatch, "float32_product")
    nearest(photos(1, 40), photos(2, 3_000), 5)
    assert whole == []
    assert sum(pairs) < 40 * 3_000 / 20
    pairs.clear()
    nearest(draws(1, 40, 24, 20, 3), draws(2, 3_000, 24, 20, 3), 5)
    assert sum(whole) == 40 * 3_000
    assert len(pairs) == 1  # the first block's seeds


def test_for_few_queries_no_bounds_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "break_even", lambda *shape: 41 if shape == (24, 20, 3) else 0)
    pairs, whole = counted(monkeypatch, "pair_products"), counted(monkeypatch, "float32_product")
    nearest(photos(1, 40), photos(2, 300), 5)
    assert (pairs, sum(whole)) == ([], 40 * 300)


def test_coarser_products_take_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = counted(monkeypatch, "float32_product")
    torch.set_float32_matmul_precision("high")  # TF32, where the hardware has it
    try:
        nearest(photos(1, 40), photos(2, 300), 5)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert sum(whole) == 40 * 300


def test_many_neighbours_leave_bounds_their_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    # 40 of 500 are too many to try one by one, so the first block is taken whole; that is no failure of the bounds.
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 500)
    monkeypatch.setattr(knn, "PATIENCE", 1)
    queries = photos(1, 10)
    references = np.concatenate([np.repeat(queries, 50, axis=0) ^ draws(0, 500, 24, 20, 3, high=2), photos(2, 1_000)])
    whole = counted(monkeypatch, "float32_product")
    found = nearest(queries, references, 40)
    assert sum(whole) == 10 * 500
    assert [part.tolist() for part in found] == list(naive(queries, references, 40))


def test_another_default_type_changes_nothing_and_empty_images_are_alike() -> None:
    queries, references = photos(1, 10), photos(2, 100)
    expected = nearest(queries, references, 3)
    torch.set_default_dtype(torch.float64)
    try:
        found = nearest(queries, references, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    nothing = np.zeros((5, 0, 4, 3), np.uint8)
    assert nearest(nothing, nothing, 2)[1].tolist() == [[0, 1]] * 5


def test_bounds_that_thin_nothing_out_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 100)
    asked: list[int] = []
    original = knn._Nearest.candidates

    def candidates(self: knn._Nearest, *arguments: Tensor) -> tuple[Tensor, Tensor] | None:
        asked.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(knn._Nearest, "candidates", candidates)
    nearest(draws(1, 9, 24, 20, 3), draws(2, 1_000, 24, 20, 3), 5)
    assert len(asked) == knn.PATIENCE


def test_references_in_the_worst_order_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # The far ones first, so that each block comes nearer than the last and no limit holds for long.
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 32)
    queries, references = photos(1, 4), photos(2, 256)
    apart = ((references.astype(np.int64) - queries[0].astype(np.int64)) ** 2).sum(axis=(1, 2, 3))
    references = references[np.argsort(-apart)]
    assert [found.tolist() for found in nearest(queries, references, 7)] == list(naive(queries, references, 7))


def test_a_block_in_which_nothing_is_near_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 100)
    pairs = counted(monkeypatch, "pair_products")
    far = np.full((100, 24, 20, 3), 255, np.uint8)
    queries, references = photos(1, 20), np.concatenate([photos(2, 100), far, photos(3, 100)])
    assert [found.tolist() for found in nearest(queries, references, 3)] == list(naive(queries, references, 3))
    assert 0 in pairs


def test_memory_mapped_images_give_the_same(tmp_path: object) -> None:
    file = f"{tmp_path}/references.npy"
    references = photos(2, 200)
    np.save(file, references)
    mapped = np.load(file, mmap_mode="r")
    for ours, theirs in zip(nearest(photos(1, 9), mapped, 5), nearest(photos(1, 9), references, 5), strict=True):
        assert np.array_equal(ours, theirs)
