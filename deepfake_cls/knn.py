"""Score exact nearest neighbours: ``python -m deepfake_cls.knn 'k=[3,5,7,9,11]'``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from deepfake_cls.cli import main
from deepfake_cls.config import KnnConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepfake_cls.data.images import SplitImages
    from deepfake_cls.data.manifest import Manifest
    from deepfake_cls.hardware import Hardware
    from deepfake_cls.records import Record
    from deepfake_cls.runs import Run


def run(config: KnnConfig, sweep: bool) -> None:
    """Classify the validation images by their nearest training images.

    Raises:
        InputError: If the configuration or the data is wrong.
    """
    started = time.perf_counter()
    from deepfake_cls.data import read_manifest
    from deepfake_cls.data.images import fingerprint, open_images
    from deepfake_cls.hardware import choose
    from deepfake_cls.runs import claim, key_here
    from deepfake_cls.summary import plugin_arguments, print_run

    hardware = choose(config.trainer)
    manifest = read_manifest(config.data)
    manifest.require_classes()
    progress = config.trainer.progress
    train = open_images(manifest, "train", config.data, progress)
    splits = {
        "train": train,
        "validation": open_images(manifest, "validation", config.data, progress, train.store.size),
    }
    if max(config.k) > len(splits["train"]):
        raise InputError(f"k={config.k}: the training split has only {len(splits['train'])} images.")
    identity = key_here("knn", config, fingerprint(manifest, splits), hardware)
    with claim("knn", identity, config, sweep=sweep) as claimed:
        record = claimed.done
        if record is not None:
            print(f"{claimed.path}: already done; force=true repeats it.")
        else:
            print(f"{claimed.path}: {hardware.describe()}", flush=True)
            record = classify(config, manifest, splits, hardware, claimed, started)
        words = plugin_arguments(config.plugins)
        print_run(record, claimed.path, " ".join(["python -m deepfake_cls.report", *words]))


def classify(
    config: KnnConfig,
    manifest: Manifest,
    splits: dict[str, SplitImages],
    hardware: Hardware,
    claimed: Run,
    started: float,
) -> Record:
    """Find neighbours, count votes, write the record.

    Args:
        config: The configuration.
        manifest: The data set.
        splits: ``train`` and ``validation``.
        hardware: What to run on.
        claimed: The run's folder.
        started: When the work on this run began, by ``time.perf_counter``.
    """
    from rich.progress import Progress

    from deepfake_cls.data.features import features
    from deepfake_cls.data.images import describe, skipped
    from deepfake_cls.hardware import has_int8
    from deepfake_cls.models.knn import nearest, votes
    from deepfake_cls.records import Record, write_predictions, write_record
    from deepfake_cls.runs import plain
    from deepfake_cls.stats.metrics import score

    train, validation = splits["train"], splits["validation"]
    references = features(train.store.images, config.features, config.channels)
    queries = features(shifted(validation.store.images, config.shift), config.features, config.channels)
    if references.shape[1:] != queries.shape[1:]:
        raise InputError(
            f"channels={config.channels}: training images have {references.shape[-1]} channels, validation images"
            f" {queries.shape[-1]}; use channels=RGB."
        )
    read(references)
    read(queries)
    setup = time.perf_counter() - started

    before = time.perf_counter()
    int8 = has_int8(hardware.device)
    with Progress(transient=True, disable=not config.trainer.progress) as bar:
        task = bar.add_task("distances", total=len(references))
        distances, indices = nearest(
            queries,
            references,
            max(config.k),
            device=hardware.device,
            int8=int8,
            progress=lambda done: bar.update(task, completed=done),
        )
    counts = votes(indices, train.labels, len(manifest.classes), config.k)
    fit = time.perf_counter() - before

    probs = {k: (count / k).astype("float32") for k, count in zip(config.k, counts, strict=True)}
    scores = {k: score(validation.labels, p) for k, p in probs.items()}
    chosen = 5 if 5 in config.k else config.k[0]
    contrast = relative_contrast(queries, references, distances[:, 0])
    record = Record(
        kind="knn",
        status="ok",
        identity=claimed.identity,
        config=plain(config),
        seed=config.seed,
        data=describe(manifest, splits),
        metrics=scores[chosen].prefixed("validation") | ({} if contrast is None else {"contrast": contrast}),
        recall=scores[chosen].recall,
        confusion=scores[chosen].confusion,
        seconds={
            "total": time.perf_counter() - started,
            "setup": setup,
            "fit": fit,
            "evaluate": time.perf_counter() - before - fit,
        },
        device=hardware.name,
        precision=("int8" if int8 else "float32 in exact blocks") if config.features == "raw" else "float64",
        threads=hardware.threads,
        by_k={str(k): result.prefixed("validation") for k, result in scores.items()},
        skipped=skipped(splits),
    )
    write_predictions(claimed.path / "predictions.npz", validation.ids, validation.labels, probs[chosen])
    write_record(claimed.path, record)
    return record


def shifted(images: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Move images to the right and down; what moves in repeats the edge.

    Args:
        images: uint8 (N, H, W, C).
        pixels: How far.
    """
    if pixels == 0:
        return images
    import numpy as np

    height, width = images.shape[1:3]
    rows, columns = (np.maximum(np.arange(side) - pixels, 0) for side in (height, width))
    return np.ascontiguousarray(images[:, rows][:, :, columns])


def relative_contrast(queries: NDArray[Any], references: NDArray[Any], nearest: NDArray[np.int64]) -> float | None:
    """How much farther the references are than the nearest one: the median over queries of D_mean / D_min.

    Near 1, the nearest neighbour is hardly nearer than any image (He, Kumar and Chang 2012, equation 1, with the root
    of the mean squared distance for D_mean, which has a closed form).

    Args:
        queries: Integers (Q, ...).
        references: Integers (N, ...).
        nearest: Squared distance to the nearest reference (Q,).

    Returns:
        The contrast, 1 or more; None where half of the queries or more have a twin at distance 0.
    """
    import numpy as np

    total, squares = np.zeros(references[0].size), 0.0
    for start in range(0, len(references), 256):  # in blocks: float64 takes eight times the memory of uint8
        block = references[start : start + 256].reshape(-1, total.size).astype(np.float64)
        total += block.sum(axis=0)
        squares += float(np.einsum("ij,ij->", block, block))
    mean, squares = total / len(references), squares / len(references)
    found = []
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256].reshape(-1, total.size).astype(np.float64)
        found.append(np.einsum("ij,ij->i", block, block) + squares - 2 * block @ mean)
    apart = np.concatenate(found)
    if np.median(nearest) == 0:
        return None
    return float(np.median(np.sqrt(apart[nearest > 0] / nearest[nearest > 0])))


def read(images: object) -> None:
    """Bring memory-mapped pixels into the page cache, so that disk time is setup and not ``seconds.fit``."""
    import numpy as np

    if isinstance(images, np.memmap):
        for start in range(0, len(images), 1024):
            images[start : start + 1024].max()


if __name__ == "__main__":
    main("knn", KnnConfig, run)
