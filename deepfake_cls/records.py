"""``result.json`` and ``predictions.npz``, the files of a finished run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError
from deepfake_cls.files import write_atomically

SCHEMA = 2
KINDS = ("cnn", "knn", "statistics", "evaluate")  # of runs
# Raise it when a change of the code or of a default alters results; tests/test_golden.py then fails.
RESULT_VERSION = 1
PACKAGES = ("deepfake-cls", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "pillow", "scipy")


@dataclass
class Record:
    """The result of a run; accuracies are fractions, times are in seconds.

    Attributes:
        kind: ``cnn``, ``knn``, ``statistics``, ``evaluate``.
        status: ``ok`` or ``failed``.
        identity: The run key, 64 hex digits; the first 12 name the folder.
        config: The resolved configuration.
        seed: The run's seed.
        data: ``name``, ``fingerprint``, ``sizes`` by split, ``classes``; number of ``groups`` by split, if any.
        metrics: Flat: ``val_acc`` and so on.
        recall: By class, in label order.
        confusion: Counts; rows are true classes, columns predictions.
        seconds: ``total``, ``setup``, ``fit``, ``first_step`` (with warm-up and compilation), ``per_epoch`` (median
            without the first), ``evaluate``.
        device: Name of the CPU or GPU.
        precision: ``32-true``, ``bf16-mixed``, or for KNN the number type of the distances.
        threads: CPU threads.
        processes: Number of devices that shared the job.
        by_k: For KNN: metrics for each k.
        importance: For image statistics: a row for each group of features, see
            :func:`deepfake_cls.models.statistics_importance.importance`.
        history: For the CNN: a row for each epoch.
        skipped: Id and reason of each skipped file.
        error: The error of a failed run.
        digests: SHA-256 of files that the result depends on: ``checkpoint``, ``init``, ``fuse``.
        result_version: ``RESULT_VERSION`` of the code that made the result.
        versions: Of Python and the packages.
        git: Commit of the sources, and whether they have changes.
        schema: Schema of the file.
    """

    kind: str
    status: str
    identity: str
    config: dict[str, Any]
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    recall: list[float | None] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    precision: str = ""
    threads: int = 0
    processes: int = 1
    by_k: dict[str, dict[str, float]] = field(default_factory=dict)
    importance: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    skipped: list[list[str]] = field(default_factory=list)
    error: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    result_version: int = RESULT_VERSION
    versions: dict[str, str] = field(default_factory=lambda: versions())
    git: dict[str, Any] = field(default_factory=lambda: git_state())
    schema: int = SCHEMA


def digest_of(key: str, path: str) -> str:
    """SHA-256 of the checkpoint that a configuration key names: 64 hex digits.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe would hang
            raise InputError(f"{key}={path}: is no regular file; give a checkpoint.")
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{key}={path}: cannot be read ({error.strerror or error}); give a checkpoint.") from error


def write_record(folder: Path, record: Record) -> None:
    """Write ``result.json``; write it last, since its presence means that the run is finished."""
    text = json.dumps(asdict(record), indent=1, allow_nan=False)
    write_atomically(folder / "result.json", text.encode())


def read_record(folder: Path) -> Record:
    """Read a run folder's ``result.json``.

    Raises:
        InputError: If it is damaged, of another schema, or not from this project.
    """
    path = folder / "result.json"
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] not in (1, SCHEMA):
            raise InputError(
                f"{path}: schema {content['schema']}, expected {SCHEMA} or 1; run it again with force=true."
            )
        if content["kind"] not in KINDS:
            raise InputError(f"{path}: kind {content['kind']!r} is unknown here; a later version may read it.")
        if content["schema"] == 1:
            _upgrade(content)
        keys = {entry.name for entry in fields(Record)}
        return Record(**{key: value for key, value in content.items() if key in keys})
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a result of this project ({error}).") from error


def _upgrade(content: dict[str, Any]) -> None:
    """Convert a record of schema 1 in place: its recipe contained augmentation and skips."""
    config = content["config"]
    content["result_version"] = 1
    if "checkpoint_sha256" in config:
        content["digests"] = {"checkpoint": config.pop("checkpoint_sha256")}
    if "fold" in config.get("data", {}):
        config["data"].setdefault("fold_of", "train" if config["data"]["fold"] is None else "all")
    if content["kind"] != "cnn" or "model" in config:
        return
    recipe = config.setdefault("recipe", {})
    config["model"] = {"name": "resnet", "args": {"skips": recipe.pop("skips", True)}}
    flip, degrees, share = recipe.pop("flip", 0.5), recipe.pop("rotation", 10.0), recipe.pop("cutmix", 0.5)
    fill, alpha = recipe.pop("alpha_fill", "mask"), recipe.pop("cutmix_alpha", 1.0)
    config["augment"] = {
        "flip": {"p": flip} if flip else None,
        "rotation": {"degrees": degrees, "fill_alpha": fill} if degrees else None,
        "cutmix": {"p": share, "alpha": alpha} if share else None,
    }


def write_predictions(
    path: Path,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    probs: NDArray[np.float32],
    groups: NDArray[np.int64] | None = None,
    **others: NDArray[np.float32] | None,
) -> None:
    """Write ``predictions.npz``, from which any score can be computed later.

    Args:
        path: The file.
        ids: One for each image, in manifest order.
        labels: int64 (N,); −1 is unknown.
        probs: float32 (N, C).
        groups: int64 (N,), the number of each image's group; None is omitted.
        others: Further arrays (N, ...) by name: ``logits``, ``features`` (the input of the network's last dense layer),
            ``probs_flip`` (with flip TTA); None is omitted.
    """
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {"ids": np.array(ids, dtype=np.str_), "labels": labels}
    arrays["probs"] = probs.astype(np.float32)
    arrays |= {} if groups is None else {"groups": groups.astype(np.int64)}
    arrays |= {name: values.astype(np.float32) for name, values in others.items() if values is not None}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_predictions(
    path: Path, name: str = "probs"
) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.float32]]:
    """Read ``predictions.npz`` without pickles: ids, labels, and ``probs`` or ``probs_flip`` (with flip TTA).

    Raises:
        InputError: If it is missing or damaged, or has no such array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["ids"], arrays["labels"], arrays[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: contains no {name} of this project ({error}); repeat the run with force=true."
        ) from error


def read_groups(path: Path) -> NDArray[np.int64] | None:
    """The group of each image in ``predictions.npz``, int64 (N,); None if the run's data has no groups.

    Raises:
        InputError: If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            groups: NDArray[np.int64] | None = arrays.get("groups")
            return groups
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is no file of this project ({error}); repeat the run with force=true.") from error


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect a result."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def git_state() -> dict[str, Any]:
    """Commit of the sources and whether they have changes; None outside a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return completed.stdout.strip()

    try:
        # A wheel may be installed inside another project's checkout, whose commit would be wrong.
        git("ls-files", "--error-unmatch", "records.py")
        return {"sha": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"sha": None, "dirty": None}
