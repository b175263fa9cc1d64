"""Exact KNN, k = 5, from pixels in memory to labels: this project and the baselines.

The baselines get float32, their usual input; the conversion from uint8 is not counted.
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

from benchmarks.measure import anonymous_memory

K = 5
MODULES = {"scikit-learn": "sklearn", "FAISS": "faiss", "torch.cdist": "torch"}  # baselines, and what they import
# Labels int64 (Q,) from queries float32 (Q, D), references float32 (N, D) and their labels int64 (N,).
Classify = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], NDArray[np.int64]]


@dataclass(frozen=True)
class Pixels:
    """Raw uint8 images in files.

    Attributes:
        queries: File of the queries.
        query_count: Number of queries.
        references: File of the references.
        reference_count: Number of references.
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
        """Values per image."""
        return math.prod(self.shape)

    def open(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
        """Memory-mapped queries and references, and labels."""
        queries = np.memmap(self.queries, np.uint8, "r", shape=(self.query_count, *self.shape))
        references = np.memmap(self.references, np.uint8, "r", shape=(self.reference_count, *self.shape))
        return queries, references, np.fromfile(self.labels, np.int64, self.reference_count)


def ours(pixels: dict[str, Any], mapped: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Time this project's KNN.

    Args:
        pixels: The fields of :class:`Pixels`.
        mapped: Keep the images in their files.
        device: ``cpu`` or ``cuda``. Images start in main memory, and labels end there.

    Returns:
        ``seconds``, ``labels``, ``held`` (bytes of pixels in memory) and ``before`` (anonymous memory at the start).
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
        nearest(queries[:1], references[:K], K, device=device, int8=int8)  # the first product initialises the device
    before = anonymous_memory()
    started = time.perf_counter()
    _, indices = nearest(queries, references, K, device=device, int8=int8)
    predicted = votes(indices, labels, int(labels.max()) + 1, [K])[0].argmax(axis=1)
    seconds = time.perf_counter() - started
    held = 0 if mapped else queries.nbytes + references.nbytes
    return {"seconds": seconds, "labels": predicted.tolist(), "held": held, "before": before}


def baseline(pixels: dict[str, Any], name: str, device: str = "cpu") -> dict[str, Any]:
    """Time a baseline of :data:`MODULES`; only ``torch.cdist`` runs on a device other than ``cpu``."""
    classify = _cdist(device) if name == "torch.cdist" else {"scikit-learn": _sklearn, "FAISS": _faiss}[name]()
    queries, references, labels = Pixels(**pixels).open()
    x, q = (images.reshape(len(images), -1).astype(np.float32) for images in (references, queries))
    if device != "cpu":
        classify(q[:1], x[:K], labels[:K])
    started = time.perf_counter()
    predicted = classify(q, x, labels)
    return {"seconds": time.perf_counter() - started, "labels": predicted.tolist()}


def _sklearn() -> Classify:
    from sklearn.neighbors import KNeighborsClassifier

    return lambda q, x, labels: np.asarray(
        KNeighborsClassifier(K, algorithm="brute").fit(x, labels).predict(q), np.int64
    )


def _faiss() -> Classify:
    import faiss

    def classify(q: NDArray[np.float32], x: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x)
        return _majority(index.search(q, K)[1], labels)

    return classify


def _cdist(device: str) -> Classify:
    import torch

    def classify(q: NDArray[np.float32], x: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        distances = torch.cdist(torch.from_numpy(q).to(device), torch.from_numpy(x).to(device))
        return _majority(distances.topk(K, largest=False).indices.cpu().numpy(), labels)

    return classify


def _majority(neighbours: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    # In numpy, so that FAISS runs without torch and without this project's code.
    ballots = labels[neighbours][..., None] == np.arange(labels.max() + 1)
    predicted: NDArray[np.int64] = ballots.sum(axis=1).argmax(axis=1)
    return predicted


def random_pixels(folder: Path, queries: int, references: int, shape: tuple[int, int, int]) -> Pixels:
    """Write random pixels: all distances are similar, so no bound excludes a candidate."""
    rng, values = np.random.default_rng(0), math.prod(shape)
    for name, count in (("queries", queries), ("references", references)):
        with (folder / f"{name}.u8").open("wb") as file:
            for start in range(0, count, 1000):
                file.write(rng.bytes(min(1000, count - start) * values))
    rng.integers(0, 5, references).tofile(folder / "labels.i64")
    query_file, reference_file = str(folder / "queries.u8"), str(folder / "references.u8")
    return Pixels(query_file, queries, reference_file, references, str(folder / "labels.i64"), shape)


def repeated(pixels: Pixels, folder: Path, queries: int, references: int) -> Pixels:
    """Write a file of ``references`` images that repeats those of ``pixels``, for its first ``queries`` queries."""
    images = Path(pixels.references).read_bytes()[: pixels.reference_count * pixels.values]
    file = folder / "repeated.u8"
    remaining = references * pixels.values
    with file.open("wb") as out:
        while remaining > 0:
            remaining -= out.write(images[:remaining])
    labels = np.fromfile(pixels.labels, np.int64, pixels.reference_count)
    np.resize(labels, references).tofile(folder / "repeated.i64")
    return Pixels(pixels.queries, queries, str(file), references, str(folder / "repeated.i64"), pixels.shape)
