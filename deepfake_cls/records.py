"""``result.json`` and ``predictions.npz``: what a run leaves behind, written last and atomically."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError

SCHEMA = 2
# Raised when a change of the code, a changed default included, alters results; tests/test_golden.py says when.
RESULT_VERSION = 1
PACKAGES = ("deepfake-cls", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "pillow", "scipy")


@dataclass
class Record:
    """One run's result; accuracies are fractions, times seconds.

    Attributes:
        kind: ``cnn``, ``knn``, ``evaluate``.
        status: ``ok`` or ``failed``.
        identity: The run's key, 64 hex digits; the first 12 name the folder.
        config: The resolved configuration.
        seed: The run's seed.
        data: ``name``, ``fingerprint``, ``sizes`` by split, ``classes``.
        metrics: Flat: ``val_acc`` and so on.
        recall: By class, in label order.
        confusion: Counts; rows are true classes, columns predictions.
        seconds: ``total``, ``setup``, ``fit``, ``first_step`` (with warm-up and compilation), ``per_epoch`` (median
            without the first), ``evaluate``.
        device: In words.
        precision: ``32-true``, ``bf16-mixed``, or what the distances were computed in.
        threads: CPU threads.
        processes: Devices that shared the job.
        by_k: For KNN: metrics for each k.
        history: For the CNN: a row for each epoch.
        skipped: (id, reason) of files that were set aside.
        error: What went wrong, for a failed run.
        digests: SHA-256 of files that the result depends on: ``checkpoint``, ``init``.
        result_version: ``RESULT_VERSION`` of the code that made the result.
        schema: Of the file that was read.
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
    history: list[dict[str, float]] = field(default_factory=list)
    skipped: list[list[str]] = field(default_factory=list)
    error: str | None = None
    digests: dict[str, str] = field(default_factory=dict)
    result_version: int = RESULT_VERSION
    versions: dict[str, str] = field(default_factory=lambda: versions())
    git: dict[str, Any] = field(default_factory=lambda: git_state())
    schema: int = SCHEMA


def digest_of(key: str, path: str) -> str:
    """SHA-256 of a checkpoint: 64 hex digits.

    Args:
        key: The configuration key that names it, for the message.
        path: The file.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{key}={path}: cannot be read ({error.strerror or error}); give a checkpoint.") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Args:
        path: The file; its folder is made where it is missing.
        content: All of it.
    """
    path = path.resolve()  # what a link points to is written, and the link stays
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; a result is as readable as any other file its owner makes.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # noqa: PTH101
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_record(folder: Path, record: Record) -> None:
    """Write ``result.json``; do it last, since its presence says that the run is finished."""
    text = json.dumps(asdict(record), indent=1, allow_nan=False)
    write_atomically(folder / "result.json", text.encode())


def read_record(folder: Path) -> Record:
    """Read a run folder's ``result.json``.

    Raises:
        InputError: If it is torn, of another schema, or not from this project.
    """
    path = folder / "result.json"
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] not in (1, SCHEMA):
            raise InputError(
                f"{path}: schema {content['schema']}, expected {SCHEMA} or 1; run it again with force=true."
            )
        if content["schema"] == 1:
            _upgrade(content)
        known = {entry.name for entry in fields(Record)}
        return Record(**{key: value for key, value in content.items() if key in known})
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a result of this project ({error}).") from error


def _upgrade(content: dict[str, Any]) -> None:
    """Bring a record of schema 1 to the current configuration, in place: its recipe held augmentation and skips."""
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
    **more: NDArray[np.float32] | None,
) -> None:
    """Write ``predictions.npz``, so that any claim can be tested again without training.

    Args:
        path: The file.
        ids: One for each image, in manifest order.
        labels: int64 (N,), −1 where unknown.
        probs: float32 (N, C).
        more: Further arrays (N, ...) by name, None for one that there is not: ``logits``, ``features`` (the input of
            the network's last dense layer), ``probs_flip`` (with flip TTA).
    """
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {"ids": np.array(ids, dtype=np.str_), "labels": labels}
    arrays["probs"] = probs.astype(np.float32)
    arrays |= {name: values.astype(np.float32) for name, values in more.items() if values is not None}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_predictions(
    path: Path, name: str = "probs"
) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.float32]]:
    """Read ``predictions.npz`` without pickles: ids, labels, probabilities.

    Args:
        path: The file.
        name: ``probs``, or ``probs_flip`` for those with flip TTA.

    Raises:
        InputError: If it is absent, torn, or holds no such array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["ids"], arrays["labels"], arrays[name]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: holds no {name} of this project ({error}); repeat the run with force=true."
        ) from error


def versions() -> dict[str, str]:
    """Versions of what a result rests on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any]:
    """Commit and cleanliness of the sources, where they are a git checkout; provenance only."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        # A wheel may be installed inside some other project's checkout: that commit is not ours.
        git("ls-files", "--error-unmatch", "records.py")
        return {"sha": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"sha": None, "dirty": None}
