"""Score exact k-nearest neighbours (KNN): ``python -m deepfake_cls.knn 'k=[3,5,7,9,11]'``."""

from __future__ import annotations

import time
from dataclasses import asdict
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
    from deepfake_cls.run_folders import Run

    Splits = dict[str, SplitImages]


def run(config: KnnConfig, sweep: bool) -> None:
    """Classify the validation images by their nearest training images."""
    started = time.perf_counter()
    from deepfake_cls.commands import command, shared_overrides
    from deepfake_cls.data import read_manifest
    from deepfake_cls.data.cautions import warn
    from deepfake_cls.data.images import fingerprint, open_images
    from deepfake_cls.hardware import choose
    from deepfake_cls.run_folders import claim
    from deepfake_cls.run_key import run_key
    from deepfake_cls.summary import print_run

    hardware = choose(config.trainer)
    manifest = read_manifest(config.data, config.trainer.progress)
    manifest.require_classes()
    progress = config.trainer.progress
    train = open_images(manifest, "train", config.data, progress)
    validation = open_images(manifest, "validation", config.data, progress, train.store.size)
    splits = {"train": train, "validation": validation}
    if max(config.k) > len(train):
        raise InputError(f"k={config.k}: the training split has only {len(train)} images.")
    key = run_key("knn", config, fingerprint(manifest, splits), hardware)
    with claim("knn", key, config, sweep=sweep) as run:
        record = run.done
        if record is not None:
            print(f"{run.path}: already done; force=true repeats it.")
        else:
            print(f"{run.path}: {hardware.describe()}", flush=True)
            warn(manifest, config.data, progress)
            if config.channels == "RGBA" and not train.store.has_alpha:
                print("The images have no alpha channel: channels=RGBA is the same as channels=RGB here.", flush=True)
            record = classify(config, manifest, splits, hardware, run, started)
        report = command("report", shared_overrides("report", asdict(config)))
        print_run(record, run.path, {} if sweep else {"next": report})


def classify(
    config: KnnConfig, manifest: Manifest, splits: Splits, hardware: Hardware, run: Run, started: float
) -> Record:
    """Find the neighbours, count their votes, and write the record; ``started`` is a ``time.perf_counter``."""
    from deepfake_cls.hardware import has_int8
    from deepfake_cls.models.knn import votes
    from deepfake_cls.records import write_predictions, write_record
    from deepfake_cls.stats.contrast import relative_contrast
    from deepfake_cls.stats.metrics import score

    int8, validation = has_int8(hardware.device), splits["validation"]
    references, queries = read_features(config, splits)
    opened = time.perf_counter()
    distances, indices = search(config, queries, references, hardware.device, int8)
    counts = votes(indices, splits["train"].labels, len(manifest.classes), config.k)
    fitted = time.perf_counter()

    probs = {k: (count / k).astype("float32") for k, count in zip(config.k, counts, strict=True)}
    scores = {k: score(validation.labels, p, validation.groups, manifest.real_label) for k, p in probs.items()}
    k = 5 if 5 in config.k else config.k[0]
    contrast = relative_contrast(queries, references, distances[:, 0])
    record = run.result(
        config,
        manifest,
        splits,
        hardware,
        scores[k],
        metrics=scores[k].prefixed("validation") | ({} if contrast is None else {"contrast": contrast}),
        by_k={str(each): result.prefixed("validation") for each, result in scores.items()},
        precision=("int8" if int8 else "float32 in exact blocks") if config.features == "raw" else "float64",
    )
    ended = time.perf_counter()
    record.seconds = {"total": ended - started, "setup": opened - started}
    record.seconds |= {"fit": fitted - opened, "evaluate": ended - fitted}
    write_predictions(run.path / "predictions.npz", validation.ids, validation.labels, probs[k], validation.groups)
    write_record(run.path, record)
    return record


def read_features(config: KnnConfig, splits: Splits) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features of the training and of the validation images, in memory.

    Raises:
        InputError: If the two splits differ in channels.
    """
    from deepfake_cls.data.features import features

    train, validation = (splits[name].store.images for name in ("train", "validation"))
    references = features(train, config.features, config.channels)
    queries = features(shift(validation, config.shift), config.features, config.channels)
    if references.shape[1:] != queries.shape[1:]:
        raise InputError(
            f"channels={config.channels}: training images have {references.shape[-1]} channels, validation images"
            f" {queries.shape[-1]}; use channels=RGB."
        )
    load_pages(references)
    load_pages(queries)
    return references, queries


def search(
    config: KnnConfig, queries: NDArray[Any], references: NDArray[Any], device: str, int8: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find squared distances and indices of the nearest references, int64 (Q, max k), with a progress bar."""
    from rich.progress import Progress

    from deepfake_cls.models.knn import nearest

    with Progress(transient=True, disable=not config.trainer.progress) as bar:
        task = bar.add_task("distances", total=len(references))
        return nearest(
            queries,
            references,
            max(config.k),
            device=device,
            int8=int8,
            progress=lambda done: bar.update(task, completed=done),
        )


def shift(images: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """Shift images, uint8 (N, H, W, C), to the right and down; the edge is repeated."""
    if pixels == 0:
        return images
    import numpy as np

    height, width = images.shape[1:3]
    padding = ((0, 0), (pixels, 0), (pixels, 0), (0, 0))
    return np.ascontiguousarray(np.pad(images, padding, mode="edge")[:, :height, :width])


def load_pages(images: object) -> None:
    """Read memory-mapped images once, so that reading from disk counts as setup and not as ``seconds.fit``."""
    import numpy as np

    if isinstance(images, np.memmap):
        for start in range(0, len(images), 1024):
            images[start : start + 1024].max()


if __name__ == "__main__":
    main("knn", KnnConfig, run)
