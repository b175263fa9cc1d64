"""``model.npz`` of a statistics run: the fitted classifier, and the weight of a fusion with a network."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepfake_cls.errors import InputError
from deepfake_cls.models.fusion import Fusion, fit_fusion
from deepfake_cls.models.image_statistics import group_slices, image_statistics
from deepfake_cls.models.statistics_classifier import Classifier
from deepfake_cls.records import Record, read_predictions, write_atomically

FILE = "model.npz"
_BATCH = 32  # images of a batch; larger ones do not fit the cache


@dataclass(frozen=True)
class StatisticsModel:
    """The content of ``model.npz``.

    Attributes:
        classifier: The fitted classifier.
        groups: The groups of image statistics, in the order of the columns.
        classes: Class names in label order.
        images: uint64, digests of the validation images of the run.
        fusion: None before it was fitted.
    """

    classifier: Classifier
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    images: NDArray[np.uint64]
    fusion: Fusion | None = None

    @property
    def is_kernel(self) -> bool:
        """Whether the classifier has a kernel; it is linear otherwise."""
        return len(self.classifier.landmarks) > 0


def write_model(folder: Path, model: StatisticsModel) -> None:
    """Write ``model.npz``: plain arrays, no pickles."""
    arrays: dict[str, Any] = {entry.name: getattr(model.classifier, entry.name) for entry in fields(Classifier)}
    arrays |= {"groups": np.array(model.groups), "classes": np.array(model.classes), "images": model.images}
    if model.fusion is not None:
        arrays |= {f"fusion_{entry.name}": getattr(model.fusion, entry.name) for entry in fields(Fusion)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(folder / FILE, buffer.getvalue())


def read_model(folder: Path) -> StatisticsModel:
    """Read ``model.npz`` without pickles.

    Raises:
        InputError: If it is missing or damaged.
    """
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: values if values.ndim else values.item() for name, values in file.items()}
        classifier = Classifier(**{entry.name: arrays[entry.name] for entry in fields(Classifier)})
        groups, classes = tuple(arrays["groups"].tolist()), tuple(arrays["classes"].tolist())
        group_slices(groups)
        fusion = None
        if "fusion_weight" in arrays:
            fusion = Fusion(**{entry.name: arrays[f"fusion_{entry.name}"] for entry in fields(Fusion)})
        return StatisticsModel(classifier, groups, classes, arrays["images"], fusion)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no model of deepfake-cls statistics ({error}); give the folder of a finished statistics run, or"
            " repeat the run with force=true."
        ) from error


def statistics_of(
    images: NDArray[np.uint8], groups: Sequence[str], threads: int, *, progress: bool, name: str = "statistics"
) -> NDArray[np.float32]:
    """Image statistics of uint8 (N, H, W, 3 or 4), which may be memory-mapped: float32 (N, D).

    Args:
        images: The images.
        groups: Groups of statistics.
        threads: Number of threads; each computes whole batches, which is faster than torch's own threads.
        progress: Show a progress bar, if standard error is a terminal.
        name: What the progress bar shows.
    """
    from rich.console import Console
    from rich.progress import Progress

    def compute(start: int) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.array(images[start : start + _BATCH]))
        values: NDArray[np.float32] = image_statistics(batch.permute(0, 3, 1, 2), groups).numpy()
        return values

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        disable = not progress or not sys.stderr.isatty()
        with (
            Progress(console=Console(stderr=True), transient=True, disable=disable) as bar,
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            starts = range(0, len(images), _BATCH)
            return np.concatenate([*bar.track(pool.map(compute, starts), total=len(starts), description=name)])
    finally:
        torch.set_num_threads(before)


def digests_of(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A digest of the pixels of each image, uint8 (N, H, W, C): uint64 (N,); alpha is left out."""
    digests = [hashlib.blake2b(image[..., :3].tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def fit_to_runs(model: StatisticsModel, network: tuple[Path, Record], statistics: tuple[Path, Record]) -> Fusion:
    """Fit the fusion of a model to a network and to another statistics run, on the fold that both held out.

    Args:
        model: The model that will be used with the fusion.
        network: Folder and record of a training.
        statistics: The same of a statistics run with the settings of ``model``.

    Raises:
        InputError: If the runs cannot be compared, or were not made with a fold of the training split.
    """
    _require_pair(model, network, statistics)
    (path, _), (other_path, _) = network, statistics
    ids, labels, probs = read_predictions(path / "predictions.npz")
    other_ids, _, logits = read_predictions(other_path / "predictions.npz", "logits")
    if not np.array_equal(ids, other_ids):
        raise InputError(f"fusion: {path} and {other_path} have scored other images; give two runs on the same fold.")
    return fit_fusion(probs, logits, labels, read_model(other_path).images)


def _require_pair(model: StatisticsModel, network: tuple[Path, Record], statistics: tuple[Path, Record]) -> None:
    for (path, record), kind, what in ((network, "cnn", "a training"), (statistics, "statistics", "a statistics run")):
        data = record.config["data"]
        if record.kind != kind:
            raise InputError(
                f"fusion: {path} is a run of kind {record.kind}; give {what} there: 'fusion=[CNN,STATISTICS]'."
            )
        if data.get("fold") is None or data.get("fold_of") != "train":
            raise InputError(
                f"fusion: {path} was not made with data.fold=NUMBER data.fold_of=train; give {what} with it."
            )
        if tuple(record.data["classes"]) != model.classes:
            raise InputError(
                f"fusion: {path} has the classes {', '.join(record.data['classes'])}; expected those of this run."
            )
    if network[1].data["fingerprint"] != statistics[1].data["fingerprint"]:
        raise InputError(
            f"fusion: {network[0]} and {statistics[0]} differ in fold or data; give two runs on the same fold."
        )
    other = read_model(statistics[0])
    if (other.groups, other.is_kernel) != (model.groups, model.is_kernel):
        raise InputError(
            f"fusion: {statistics[0]} has other features or another classifier; give a run with equal ones."
        )


def open_fusion(folder: Path, classes: Sequence[str], images: NDArray[np.uint8]) -> StatisticsModel:
    """Read the model of a statistics run whose fusion can be used on these images.

    Args:
        folder: The folder of the run.
        classes: The network's class names.
        images: The scored images, uint8 (N, H, W, 3 or 4).

    Raises:
        InputError: If the run has other classes or no fusion, or its fusion was fitted on some of the images.
    """
    model = read_model(folder)
    if model.classes != tuple(classes):
        raise InputError(
            f"fuse={folder}: has the classes {', '.join(model.classes)}; the network has {', '.join(classes)}."
        )
    if model.fusion is None:
        raise InputError(
            f"fuse={folder}: has no fusion; repeat the command of that run with 'fusion=[CNN,STATISTICS]', two runs"
            " with data.fold_of=train, which adds it."
        )
    shared = int(np.isin(digests_of(images), model.fusion.images).sum())
    if shared:
        raise InputError(
            f"fuse={folder}: its fusion was fitted on {shared:,} of the scored images; score another split."
        )
    return model
