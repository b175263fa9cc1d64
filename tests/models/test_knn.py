from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from deepfake_cls.hardware import has_int8
from deepfake_cls.models import knn, products
from deepfake_cls.models.knn import nearest, votes

EXTREMES = torch.tensor([[-128] * 32, [127] * 32], dtype=torch.int8)
# With oneDNN limited to AVX2 on a CPU with VNNI, sums of two products saturate in 16 bits; has_int8 is false there.
EXACT = torch._int_mm(EXTREMES, EXTREMES.T).tolist() == (EXTREMES.long() @ EXTREMES.T.long()).tolist()
ARITHMETIC = [False, pytest.param(True, marks=pytest.mark.skipif(not EXACT, reason="int8 products are wrong here"))]


def noise(seed: int, *shape: int, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def naive(queries: NDArray[np.uint8], references: NDArray[np.uint8], k: int) -> tuple[list[list[int]], list[list[int]]]:
    """The definition, in Python's own integers."""
    distances, indices = [], []
    for query in queries.reshape(len(queries), -1).astype(np.int64):
        differences = references.reshape(len(references), -1).astype(np.int64) - query
        ranked = sorted((int(d), i) for i, d in enumerate((differences**2).sum(axis=1)))[:k]
        distances.append([d for d, _ in ranked])
        indices.append([i for _, i in ranked])
    return distances, indices


@pytest.mark.parametrize("int8", ARITHMETIC)
@pytest.mark.parametrize("columns", [1, 7, 1_024, 1_025, 3_000])
def test_neighbours_equal_the_definition(int8: bool, columns: int) -> None:
    queries, references = noise(0, 33, columns), noise(1, 150, columns)
    distances, indices = nearest(queries, references, 9, int8=int8)
    assert (distances.tolist(), indices.tolist()) == naive(queries, references, 9)


@pytest.mark.parametrize("int8", ARITHMETIC)
def test_blocks_of_rows_do_not_change_the_result(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "QUERY_ROWS", 7)
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 4)  # fewer than k
    queries, references = noise(0, 16, 50, high=3), noise(1, 33, 50, high=3)
    distances, indices = nearest(queries, references, 9, int8=int8)
    assert (distances.tolist(), indices.tolist()) == naive(queries, references, 9)


@pytest.mark.parametrize("int8", ARITHMETIC)
@pytest.mark.parametrize("columns", [40_000, 131_071, 131_072, 200_000])
def test_extreme_and_wide_images_do_not_overflow(int8: bool, columns: int) -> None:
    # Images of 0 have the largest products, 128² in every column: they overflow int32 at 131,072 columns, and are
    # not exact in float32 at 1,025. Distances between 0 and 255 overflow int32 at 33,026 columns.
    references = np.stack([np.full(columns, value, np.uint8) for value in (0, 255, 1, 254)])
    queries = np.stack([np.full(columns, value, np.uint8) for value in (0, 255)])
    queries[0, -1] = 1
    distances, indices = nearest(queries, references, 4, int8=int8)
    assert (distances.tolist(), indices.tolist()) == naive(queries, references, 4)


def test_ties_go_to_the_smaller_index() -> None:
    references = np.repeat(noise(0, 1, 30), 40, axis=0)
    distances, indices = nearest(noise(1, 3, 30), references, 40)
    assert indices.tolist() == [list(range(40))] * 3
    assert (distances == distances[:, :1]).all()


def test_neighbours_equal_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.neighbors")
    references, queries = noise(0, 400, 12, 12, 3), noise(1, 60, 12, 12, 3)
    labels = np.random.default_rng(2).integers(0, 5, 400)
    _, indices = nearest(queries, references, 11)
    flat = references.reshape(400, -1).astype(np.float64), queries.reshape(60, -1).astype(np.float64)
    for k, counts in zip((1, 3, 5, 7, 11), votes(indices, labels, 5, [1, 3, 5, 7, 11]), strict=True):
        expected = sklearn.KNeighborsClassifier(k, algorithm="brute").fit(flat[0], labels)
        assert counts.argmax(axis=1).tolist() == expected.predict(flat[1]).tolist()
        assert np.allclose(counts / k, expected.predict_proba(flat[1]))


def test_other_integers_are_exact_or_refused() -> None:
    rng = np.random.default_rng(0)
    references, queries = rng.integers(0, 10_001, (90, 512)), rng.integers(0, 10_001, (10, 512))
    distances, indices = nearest(queries, references, 5)
    exact = ((queries[:, None] - references[None]) ** 2).sum(axis=2)
    assert np.array_equal(distances, np.sort(exact, axis=1)[:, :5])
    assert np.array_equal(indices, np.argsort(exact, axis=1, kind="stable")[:, :5])
    with pytest.raises(ValueError, match="not exact in float64"):
        nearest(np.full((1, 4), 2**26), np.full((2, 4), 2**26), 1)
    with pytest.raises(ValueError, match="expected integers"):
        nearest(np.zeros((1, 4)), np.zeros((2, 4)), 1)


def test_wrong_k_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="k=4: expected 1 to 3"):
        nearest(noise(0, 2, 5), noise(1, 3, 5), 4)
    with pytest.raises(ValueError, match="shape"):
        nearest(noise(0, 2, 5), noise(1, 3, 6), 1)


def test_vote_ties_go_to_the_smaller_label() -> None:
    counts = votes(np.array([[0, 1, 2, 3]]), np.array([2, 1, 1, 2]), 3, [1, 2, 4])
    assert counts.tolist() == [[[0, 0, 1]], [[0, 1, 1]], [[0, 2, 2]]]
    assert counts.argmax(axis=-1).ravel().tolist() == [2, 1, 1]


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts values that are read from tensors, which on a GPU makes the CPU wait."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("room", [10**6, 0])
def test_on_a_gpu_queries_are_copied_once_and_no_block_waits(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_moved: list[int] = []

    def to_device(block: Tensor, device: torch.device) -> Tensor:
        assert device == torch.device("cuda")
        bytes_moved.append(block.nbytes)
        return block

    monkeypatch.setattr(knn, "QUERY_ROWS", 8)
    monkeypatch.setattr(knn, "REFERENCE_ROWS", 10)
    monkeypatch.setattr(products, "to_device", to_device)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * room, 8 * room))
    queries, references = noise(0, 16, 50, low=120, high=136), noise(1, 100, 50, low=120, high=136)
    with Reads() as reads:  # type: ignore[no-untyped-call]
        result = nearest(queries, references, 3, device="cuda", int8=True)
    assert [part.tolist() for part in result] == [*naive(queries, references, 3)]
    assert reads.count == 2  # one for each block of queries, at the end
    times = 1 if room else 11  # queries that do not fit the GPU are copied at the start and for each block
    assert sum(bytes_moved) == 100 * 50 + times * 16 * 50


def test_distances_that_do_not_fit_63_bits_are_refused() -> None:
    far = np.array([[0], [2**26]], dtype=np.int64)
    references = np.zeros((2**12, 1), dtype=np.int64)
    with pytest.raises(ValueError, match="distances and 4096 indices do not fit 63 bits together"):
        nearest(far, references, 1)


def test_int8_products_are_exact_where_they_are_used() -> None:
    assert EXACT or not has_int8("cpu")
