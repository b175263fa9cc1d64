"""The images of a split with their ids and labels; no framework, so that what needs none imports none."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import DataConfig
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.data.store import Store, open_split
from deepfake_cls.errors import InputError


@dataclass(frozen=True)
class SplitImages:
    """The images of one split that could be read, with what is known of them.

    Attributes:
        ids: One for each image, in manifest order.
        labels: int64 (N,), −1 where unknown.
        store: The decoded images, uint8 (N, H, W, 3 or 4).
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    store: Store

    def __len__(self) -> int:
        return len(self.ids)


def open_images(
    manifest: Manifest,
    name: str,
    config: DataConfig,
    progress: bool,
    size: tuple[int, int] | None = None,
) -> SplitImages:
    """Open one split, decoding it first where that has not been done.

    Args:
        manifest: The data set.
        name: Name of the split.
        config: The ``data`` group.
        progress: Show a bar while images are decoded.
        size: Height and width that the images have to have; None leaves it to ``config``.

    Raises:
        InputError: If there is no such split, or an image is bad.
    """
    split = manifest.split(name)
    store = open_split(split, config, size=size, progress=progress and sys.stderr.isatty())
    ids = tuple(split.ids[row] for row in store.kept)
    return SplitImages(ids, split.labels[store.kept], store)


def fingerprint(manifest: Manifest, splits: dict[str, SplitImages]) -> str:
    """SHA-256 of all that a result takes from the data: pixels, ids, labels, class names, order.

    Args:
        manifest: The data set.
        splits: The splits that were used.
    """
    pixels = {name: split.store.fingerprint for name, split in sorted(splits.items())}
    return hashlib.sha256(json.dumps([manifest.sha256(sorted(splits)), pixels]).encode()).hexdigest()


def describe(manifest: Manifest, splits: dict[str, SplitImages]) -> dict[str, Any]:
    """What a record says of its data.

    Args:
        manifest: The data set.
        splits: The splits that were used.
    """
    return {
        "name": manifest.name,
        "fingerprint": fingerprint(manifest, splits),
        "sizes": {name: len(split) for name, split in splits.items()},
        "size": list(next(iter(splits.values())).store.size),
        "classes": list(manifest.classes),
        "alpha": any(split.store.has_alpha for split in splits.values()),
    }


def skipped(splits: dict[str, SplitImages]) -> list[list[str]]:
    """Id and reason of every file that was set aside."""
    return [[*pair] for split in splits.values() for pair in split.store.skipped]


def require_labels(split: SplitImages, name: str) -> None:
    """Refuse to score what has no labels.

    Raises:
        InputError: If a label is unknown.
    """
    if bool((split.labels < 0).any()):
        raise InputError(f"split={name}: has no labels to score against; choose a labelled split, or use predict.")


def require_same_classes(known: list[str], manifest: Manifest) -> None:
    """Refuse labels that mean something else than the model's.

    Raises:
        InputError: Naming both lists.
    """
    if list(manifest.classes) != known:
        raise InputError(
            f"The model's classes are {', '.join(known)}; the data's are {', '.join(manifest.classes)}."
            " Labels would not mean the same: evaluate on data with the model's classes."
        )
