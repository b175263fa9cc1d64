"""The images of a split with their ids and labels; imports neither torch nor Lightning."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import DataConfig
from deepfake_cls.data.manifest import Manifest
from deepfake_cls.data.store import Store, open_split
from deepfake_cls.data.whole import CropStore
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitImages:
    """The images of one split that could be read.

    Attributes:
        ids: One id for each image, in manifest order.
        labels: int64 (N,); −1 is unknown.
        store: The decoded images, uint8 (N, H, W, 3 or 4), or with ``data.crop`` images of any size with their crops.
        groups: int64 (N,), the number of each image's group, from 0; None if there are no groups.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    store: Store | CropStore
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def open_images(
    manifest: Manifest, name: str, config: DataConfig, progress: bool, size: tuple[int, int] | None = None
) -> SplitImages:
    """Open one split; decode it first if it is not in the cache.

    Args:
        manifest: The data set.
        name: Name of the split.
        config: The ``data`` group.
        progress: Show a progress bar during decoding, if standard error is a terminal.
        size: Height and width that the images must have; None: ``data.size``, or the size of the first image. With
            ``data.crop``, images have any size.

    Raises:
        InputError: If there is no such split, or an image is bad.
    """
    split = manifest.split(name)
    if split.note:
        _log.info(split.note)
    store = open_split(split, config, size=size, progress=progress and sys.stderr.isatty())
    ids = tuple(split.ids[row] for row in store.kept)
    groups = None
    if split.groups is not None:
        groups = np.unique(np.array(split.groups)[store.kept], return_inverse=True)[1].astype(np.int64)
    return SplitImages(ids, split.labels[store.kept], store, groups)


def fingerprint(manifest: Manifest, splits: dict[str, SplitImages]) -> str:
    """Hash everything in the data that a result depends on: pixels, ids, labels, class names and their order."""
    pixels = {name: split.store.fingerprint for name, split in sorted(splits.items())}
    return hashlib.sha256(json.dumps([manifest.sha256(sorted(splits)), pixels]).encode()).hexdigest()


def describe(manifest: Manifest, splits: dict[str, SplitImages]) -> dict[str, Any]:
    """Describe the data for a record (``data`` in ``result.json``)."""
    groups = {name: len(np.unique(split.groups)) for name, split in splits.items() if split.groups is not None}
    return {
        "name": manifest.name,
        "fingerprint": fingerprint(manifest, splits),
        "sizes": {name: len(split) for name, split in splits.items()},
        "size": list(next(iter(splits.values())).store.size),
        "classes": list(manifest.classes),
        "alpha": any(split.store.has_alpha for split in splits.values()),
    } | ({"groups": groups} if groups else {})


def skipped(splits: dict[str, SplitImages]) -> list[list[str]]:
    """Return the id and the reason of each image that was skipped."""
    return [[*pair] for split in splits.values() for pair in split.store.skipped]


def require_labels(manifest: Manifest, name: str, predict: str) -> None:
    """Raise InputError if a label of the split is unknown, or the data has no labels; ``predict`` labels its images."""
    unlabelled = [split for split in manifest.splits if bool((manifest.split(split).labels < 0).any())]
    if name in unlabelled or (name not in manifest.splits and not manifest.classes):
        split = name if name in unlabelled else unlabelled[0]
        raise InputError(
            f"split={split}: has no labels to compare with; choose a split with labels, or label its images with"
            f" {predict} split={split}"
        )


def require_same_classes(model_classes: list[str], manifest: Manifest) -> None:
    """Raise InputError if the data's classes, or their order, differ from the model's."""
    if list(manifest.classes) != model_classes:
        raise InputError(
            f"The model's classes are {', '.join(model_classes)}; those of data={manifest.name} are"
            f" {', '.join(manifest.classes)}. Use data with the classes of the model, in the same order, such as"
            " data=folder data.root=PATH."
        )
