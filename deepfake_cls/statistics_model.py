"""``model.npz`` of a statistics run: the fitted classifier, and the weight of a fusion with a network."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepfake_cls.errors import InputError
from deepfake_cls.files import write_atomically
from deepfake_cls.models.fusion import Fusion, fit_fusion
from deepfake_cls.models.image_statistics import group_slices, image_statistics
from deepfake_cls.models.statistics_classifier import Classifier
from deepfake_cls.records import Record, read_predictions, read_record

FILE = "model.npz"
_BATCH = 32  # images of a batch; larger ones do not fit the cache


@dataclass(frozen=True)
class StatisticsModel:
    """The content of ``model.npz``.

    Attributes:
        classifier: The fitted classifier.
        groups: The groups of image statistics, in the order of the columns.
        classes: Class names in label order.
        size: Height and width of the images.
        trained_on: uint64 (N,), digests of the training images of the run.
        held_out: uint64 (V,), digests of its validation images.
        fusion: None before it was fitted.
    """

    classifier: Classifier
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    size: tuple[int, int]
    trained_on: NDArray[np.uint64]
    held_out: NDArray[np.uint64]
    fusion: Fusion | None = None

    @property
    def is_kernel(self) -> bool:
        """Whether the classifier has a kernel; it is linear otherwise."""
        return len(self.classifier.landmarks) > 0


def write_model(folder: Path, model: StatisticsModel) -> None:
    """Write ``model.npz``: plain arrays, no pickles."""
    arrays: dict[str, Any] = {entry.name: getattr(model.classifier, entry.name) for entry in fields(Classifier)}
    arrays |= {"groups": np.array(model.groups), "classes": np.array(model.classes)}
    arrays |= {"size": np.array(model.size, dtype=np.int64)}
    arrays |= {"trained_on": model.trained_on, "held_out": model.held_out}
    if model.fusion is not None:
        arrays |= {f"fusion_{entry.name}": getattr(model.fusion, entry.name) for entry in fields(Fusion)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(folder / FILE, buffer.getvalue())


def read_model(folder: Path) -> StatisticsModel:
    """Read ``model.npz`` without pickles, and check it against ``result.json``.

    Raises:
        InputError: If it is missing or damaged, or does not belong to ``result.json``.
    """
    path = folder / FILE
    try:
        arrays = _read_arrays(path)
        return _checked(arrays, read_record(folder))
    except InputError:  # about result.json
        raise
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: no model of deepfake-cls statistics ({cause}); give the folder of a finished statistics run, or"
            " repeat the run with force=true."
        ) from error


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an npz file. A ValueError says why it is none, without numpy's advice to allow pickles."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no npz file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays.items())
    except (ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError("it contains more than plain arrays, or is damaged") from error


def _checked(arrays: dict[str, Any], record: Record) -> StatisticsModel:
    """The model of these arrays. A ValueError names an array that has another type, shape or value than expected."""
    groups = tuple(_array(arrays, "groups", np.str_, None).tolist())
    classes = tuple(_array(arrays, "classes", np.str_, None).tolist())
    # Permuted groups would have columns of the same number, so the file alone does not show them.
    for name, found, other in (
        ("groups", groups, record.config.get("features")),
        ("classes", classes, record.data.get("classes")),
    ):
        if list(found) != other:
            raise ValueError(f"{name} are {', '.join(found)}; expected those of result.json, {', '.join(other or [])}")
    columns, count = max(part.stop for part in group_slices(groups).values()), len(classes)
    landmarks = _array(arrays, "landmarks", np.float64, None, columns)
    classifier = Classifier(
        mean=_array(arrays, "mean", np.float64, columns),
        scale=_array(arrays, "scale", np.float64, columns, positive=True),
        landmarks=landmarks,
        width=_number(arrays, "width", positive=len(landmarks) > 0),
        coefficients=_array(arrays, "coefficients", np.float64, len(landmarks) or columns, count),
        intercept=_array(arrays, "intercept", np.float64, count),
        temperature=_number(arrays, "temperature", positive=True),
        strength=_number(arrays, "strength", positive=True),
    )
    height, width = _array(arrays, "size", np.int64, 2, positive=True).tolist()
    trained_on, held_out = (_array(arrays, name, np.uint64, None) for name in ("trained_on", "held_out"))
    fusion = None
    if any(name.startswith("fusion_") for name in arrays):
        weight = _number(arrays, "fusion_weight")
        if weight < 0:
            raise ValueError(f"fusion_weight is {weight:g}; expected 0 or more")
        temperature = _number(arrays, "fusion_temperature", positive=True)
        fusion = Fusion(weight, temperature, _array(arrays, "fusion_images", np.uint64, None))
    return StatisticsModel(classifier, groups, classes, (height, width), trained_on, held_out, fusion)


def _array(
    arrays: dict[str, Any], name: str, kind: type[np.generic], *shape: int | None, positive: bool = False
) -> NDArray[Any]:
    """The array of this name; None stands for any length of an axis."""
    values = arrays.get(name)
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{name} is missing")
    fits = len(values.shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, values.shape, strict=True))
    if values.dtype.type is not kind or not fits:
        expected = f"{kind.__name__} ({', '.join('any' if n is None else str(n) for n in shape)})"
        raise ValueError(f"{name} is {values.dtype.type.__name__} {values.shape}; expected {expected}")
    if kind is np.float64 and not np.isfinite(values).all():
        raise ValueError(f"{name} contains numbers that are not finite")
    if positive and not (values > 0).all():
        raise ValueError(f"{name} contains numbers that are not above 0")
    return values


def _number(arrays: dict[str, Any], name: str, *, positive: bool = False) -> float:
    return float(_array(arrays, name, np.float64, positive=positive))


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
        InputError: If the runs cannot be compared, were not made with a fold of the training split, or held out images
            that ``model`` was not trained on.
    """
    other = _require_pair(model, network, statistics)
    (path, _), (other_path, _) = network, statistics
    ids, labels, probs = read_predictions(path / "predictions.npz")
    other_ids, _, logits = read_predictions(other_path / "predictions.npz", "logits")
    if not np.array_equal(ids, other_ids):
        raise InputError(f"fusion: {path} and {other_path} have scored other images; give two runs on the same fold.")
    return fit_fusion(probs, logits, labels, other.held_out)


def _require_pair(
    model: StatisticsModel, network: tuple[Path, Record], statistics: tuple[Path, Record]
) -> StatisticsModel:
    """The model of ``statistics``, if the two runs can be used with ``model``."""
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
    others = int((~np.isin(other.held_out, model.trained_on)).sum())
    if others:
        raise InputError(
            f"fusion: {statistics[0]} held out {others:,} images that are not training images of this run; give two"
            " runs with data.fold_of=train on the data and image size of this run."
        )
    return other


def open_fusion(folder: Path, classes: Sequence[str], images: NDArray[np.uint8]) -> StatisticsModel:
    """Read the model of a statistics run whose fusion can be used on these images.

    Args:
        folder: The folder of the run.
        classes: The network's class names.
        images: The scored images, uint8 (N, H, W, 3 or 4).

    Raises:
        InputError: If the run has other classes, another image size or no fusion, or if some of the images were used to
            train it or to fit its fusion.
    """
    model = read_model(folder)
    if model.classes != tuple(classes):
        raise InputError(
            f"fuse={folder}: has the classes {', '.join(model.classes)}; the network has {', '.join(classes)}."
        )
    if model.size != images.shape[1:3]:
        (height, width), (own_height, own_width) = images.shape[1:3], model.size
        raise InputError(
            f"fuse={folder}: was trained on images of [{own_height},{own_width}]; the scored images have"
            f" [{height},{width}]; give a statistics run on images of that size."
        )
    if model.fusion is None:
        raise InputError(
            f"fuse={folder}: has no fusion; repeat the command of that run with 'fusion=[CNN,STATISTICS]', two runs"
            " with data.fold_of=train, which adds it."
        )
    digests = digests_of(images)
    for used, how in ((model.fusion.images, "its fusion was fitted on"), (model.trained_on, "it was trained on")):
        shared = int(np.isin(digests, used).sum())
        if shared:
            raise InputError(
                f"fuse={folder}: {how} {shared:,} of the scored images; score images that are in neither its training"
                " split nor the fold of its fusion, such as the validation split without data.fold."
            )
    return model
