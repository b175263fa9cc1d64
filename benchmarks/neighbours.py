"""Exact nearest neighbours, k = 5, ours and others', each from pixels in memory to labels.

Others are given float32, as people give it to them, and its conversion from pixels is not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import anonymous

K = 5


@dataclass(frozen=True)
class Pixels:
    """Raw uint8 images in files.

    Attributes:
        queries: File of the queries.
        query_count: How many.
        references: File of the references.
        reference_count: How many.
        labels: File of the references' labels, int64.
        shape: (H, W, C) of an image.
    """

    queries: str
    query_count: int
    references: str
    reference_count: int
    labels: str
    shape: tuple[int, int, int]

    @property
    def values(self) -> int:
        """Numbers in an image."""
        return math.prod(self.shape)

    def open(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Queries and references, memory-mapped, and labels."""
        queries = np.memmap(self.queries, np.uint8, "r", shape=(self.query_count, *self.shape))
        references = np.memmap(self.references, np.uint8, "r", shape=(self.reference_count, *self.shape))
        return queries, references, np.fromfile(self.labels, np.int64, self.reference_count)


def _majority(neighbours: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The peers' vote: without this project, and without torch where the peer needs none."""
    ballot = labels[neighbours][..., None] == np.arange(labels.max() + 1)
    chosen: NDArray[np.int64] = ballot.sum(axis=1).argmax(axis=1)
    return chosen


def ours(pixels: dict[str, Any], mapped: bool = False, device: str = "cpu") -> dict[str, Any]:
    """This project's neighbours.

    Args:
        pixels: The fields of :class:`Pixels`.
        mapped: Leave the images in their files.
        device: ``cpu`` or ``cuda``; images lie in main memory at the start, and labels at the end.

    Returns:
        ``seconds``, ``labels``, bytes ``held`` by pixels in memory, and anonymous memory ``before`` the start.
    """
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose, has_int8
    from deepfake_cls.models.knn import nearest, votes

    choose(TrainerConfig(device=device))
    queries, references, labels = Pixels(**pixels).open()
    if not mapped:
        queries, references = np.array(queries), np.array(references)
    int8 = has_int8(device)
    if device != "cpu":
        nearest(queries[:1], references[:K], K, device=device, int8=int8)  # the device starts with its first product
    before = anonymous()
    started = time.perf_counter()
    _, indices = nearest(queries, references, K, device=device, int8=int8)
    found = votes(indices, labels, int(labels.max()) + 1, [K])[0].argmax(axis=1)
    seconds = time.perf_counter() - started
    held = 0 if mapped else queries.nbytes + references.nbytes
    return {"seconds": seconds, "labels": found.tolist(), "held": held, "before": before}


Classify = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], NDArray[np.int64]]


def peer(pixels: dict[str, Any], name: str, device: str = "cpu") -> dict[str, Any]:
    """``scikit-learn``, ``FAISS`` or ``torch.cdist``, which alone knows another device than ``cpu``."""
    classify = _cdist(device) if name == "torch.cdist" else {"scikit-learn": _sklearn, "FAISS": _faiss}[name]()
    queries, references, labels = Pixels(**pixels).open()
    x, q = (images.reshape(len(images), -1).astype(np.float32) for images in (references, queries))
    if device != "cpu":
        classify(q[:1], x[:K], labels[:K])
    started = time.perf_counter()
    found = classify(q, x, labels)
    return {"seconds": time.perf_counter() - started, "labels": found.tolist()}


def _sklearn() -> Classify:
    from sklearn.neighbors import KNeighborsClassifier

    def classify(
        queries: NDArray[np.float32], references: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        model = KNeighborsClassifier(K, algorithm="brute").fit(references, labels)
        return np.asarray(model.predict(queries), np.int64)

    return classify


def _faiss() -> Classify:
    import faiss

    def classify(
        queries: NDArray[np.float32], references: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        index = faiss.IndexFlatL2(references.shape[1])
        index.add(references)
        return _majority(index.search(queries, K)[1], labels)

    return classify


def _cdist(device: str) -> Classify:
    import torch

    def classify(
        queries: NDArray[np.float32], references: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        distances = torch.cdist(torch.from_numpy(queries).to(device), torch.from_numpy(references).to(device))
        return _majority(distances.topk(K, largest=False).indices.cpu().numpy(), labels)

    return classify


def oracle(pixels: dict[str, Any], most: int) -> dict[str, Any]:
    """Labels of the first ``most`` queries by differences in int64, without any product of matrices."""
    queries, references, labels = Pixels(**pixels).open()
    chosen = []
    references = references.reshape(len(references), -1)
    for query in queries[:most].reshape(-1, references.shape[1]).astype(np.int64):
        found = []
        for start in range(0, len(references), 8):  # few at a time, so that differences stay in the cache
            apart = references[start : start + 8] - query
            found.append(np.einsum("ij,ij->i", apart, apart))
        distances = np.concatenate(found)
        ballot = labels[np.argsort(distances, kind="stable")[:K]]
        chosen.append(int(np.bincount(ballot).argmax()))
    return {"labels": chosen}


def random_pixels(folder: Path, queries: int, references: int, shape: tuple[int, int, int]) -> Pixels:
    """Pixels that have nothing to them: all distances are alike, and no bound leaves any out."""
    draws, values = np.random.default_rng(0), math.prod(shape)
    for name, count in (("queries", queries), ("references", references)):
        with (folder / f"{name}.u8").open("wb") as file:
            for start in range(0, count, 1000):
                file.write(draws.bytes(min(1000, count - start) * values))
    labels = draws.integers(0, 5, references)
    labels.tofile(folder / "labels.i64")
    names = (str(folder / f"{name}") for name in ("queries.u8", "references.u8", "labels.i64"))
    query_file, reference_file, label_file = names
    return Pixels(query_file, queries, reference_file, references, label_file, shape)


def repeated(pixels: Pixels, folder: Path, queries: int, references: int) -> Pixels:
    """A file of so many references, the same ones again and again, for few queries."""
    rows = Path(pixels.references).read_bytes()[: pixels.reference_count * pixels.values]
    file = folder / "repeated.u8"
    left = references * pixels.values
    with file.open("wb") as out:
        while left > 0:
            left -= out.write(rows[:left])
    labels = np.fromfile(pixels.labels, np.int64, pixels.reference_count)
    np.resize(labels, references).tofile(folder / "repeated.i64")
    return Pixels(pixels.queries, queries, str(file), references, str(folder / "repeated.i64"), pixels.shape)
