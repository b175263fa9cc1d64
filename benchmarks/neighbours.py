"""Exact KNN, k = 5, from pixels in memory to labels: this project and the baselines.

The baselines get float32, their usual input; the conversion from uint8 is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import anonymous_memory

K = 5
MODULES = {"scikit-learn": "sklearn", "FAISS": "faiss", "torch.cdist": "torch"}  # baselines, and what they import
# Labels int64 (Q,) from queries float32 (Q, D), references float32 (N, D) and their labels int64 (N,).
Classify = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], NDArray[np.int64]]


def ours(folder: str, mapped: bool = False, device: str = "cpu") -> dict[str, Any]:
    """Time this project's KNN.

    Args:
        folder: Output of :func:`save`.
        mapped: Keep the images in their files.
        device: ``cpu`` or ``cuda``. Images start in main memory, and labels end there.

    Returns:
        ``seconds``, ``labels``, ``held`` (bytes of pixels in memory) and ``before`` (anonymous memory at the start).
    """
    from deepfake_cls.config import TrainerConfig
    from deepfake_cls.hardware import choose, has_int8
    from deepfake_cls.models.knn import nearest, votes

    choose(TrainerConfig(device=device))
    queries, references, labels = load(folder)
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


def baseline(folder: str, name: str, device: str = "cpu") -> dict[str, Any]:
    """Time a baseline of :data:`MODULES`; only ``torch.cdist`` runs on a device other than ``cpu``."""
    classify = _cdist(device) if name == "torch.cdist" else {"scikit-learn": _sklearn, "FAISS": _faiss}[name]()
    queries, references, labels = load(folder)
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


def save(folder: Path, queries: NDArray[np.uint8], references: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write queries (Q, H, W, C), references (N, H, W, C) and the references' labels (N,) for the jobs."""
    folder.mkdir()
    for name, array in (("queries", queries), ("references", references), ("labels", labels)):
        np.save(folder / f"{name}.npy", array)


def load(folder: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Queries and references, memory-mapped, and labels."""
    queries, references = (np.load(Path(folder) / f"{name}.npy", "r") for name in ("queries", "references"))
    return queries, references, np.load(Path(folder) / "labels.npy")


def save_random(folder: Path, queries: int, references: int, shape: tuple[int, int, int]) -> None:
    """Save random pixels: all distances are similar, so no bound excludes a candidate."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (queries + references, *shape), np.uint8)
    save(folder, pixels[:queries], pixels[queries:], rng.integers(0, 5, references))


def save_repeated(source: Path, folder: Path, queries: int, references: int) -> None:
    """Save the first queries of ``source``, and its references repeated up to a count that may exceed memory."""
    all_queries, images, labels = load(str(source))
    folder.mkdir()
    np.save(folder / "queries.npy", all_queries[:queries])
    np.save(folder / "labels.npy", np.resize(labels, references))
    shape = (references, *images.shape[1:])
    repeated = np.lib.format.open_memmap(folder / "references.npy", "w+", np.uint8, shape)
    for start in range(0, references, len(images)):
        repeated[start : start + len(images)] = images[: references - start]
