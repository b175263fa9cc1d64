"""The validation split where the data has none of its own: a part of train, or one of several folds.

Both are stratified by class and follow from a seed and the ids alone, not from the order of the images.
"""

from __future__ import annotations

import hashlib
import itertools
import logging

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data.manifest import Split
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)


def with_validation(splits: dict[str, Split], config: ImageFilesConfig) -> dict[str, Split]:
    """Add a validation split where there is none, or hold out a fold where ``data.fold`` asks for it.

    Args:
        splits: By name, as the files have them.
        config: The ``data`` group.

    Returns:
        The splits by name. With ``data.fold``, ``validation`` is the fold, and a validation split of the data's own
        is in ``train`` and ``validation`` (``data.fold_of=all``) or left out (``train``).

    Raises:
        InputError: A setting means nothing, or a class has too few images.
    """
    if config.fold_of not in ("train", "all"):
        raise InputError(
            f"data.fold_of={config.fold_of}: expected train (folds of the training split alone) or all (of train and"
            " validation together); the default is data.fold_of=train."
        )
    if config.fold is not None:
        return {**splits, **_cut_fold(splits, config.fold, config)}
    if "train" in splits and "validation" not in splits:
        return {**splits, **_cut_validation(splits["train"], config)}
    return splits


def _cut_validation(train: Split, config: ImageFilesConfig) -> dict[str, Split]:
    """Share each class between train and validation, drawn by seed and ids alone."""
    cut = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label).tolist()
        if len(rows) < 2:
            raise InputError(
                f"There is no split validation, and none can be cut from train: a class has one image, "
                f"{train.ids[rows[0]]}. Add images, or a validation split."
            )
        rows.sort(key=lambda row: _sort_key(config.val_seed, train.ids[row]))
        cut[rows[: min(max(1, round(config.val_fraction * len(rows))), len(rows) - 1)]] = True
    _log.warning(
        "There is no split validation: %d of %d images of train become it (val_fraction=%g, val_seed=%d)",
        cut.sum(), len(train), config.val_fraction, config.val_seed,
    )  # fmt: skip
    return {"train": _subset(train, "train", ~cut), "validation": _subset(train, "validation", cut)}


def _cut_fold(splits: dict[str, Split], fold: int, config: ImageFilesConfig) -> dict[str, Split]:
    """Deal images out to stratified folds, drawn by seed and ids alone, and hold one of the folds out."""
    if fold >= config.folds:
        raise InputError(f"data.fold={fold}: expected 0 to {config.folds - 1}, since data.folds={config.folds}.")
    wanted = ("train",) if config.fold_of == "train" else ("train", "validation")
    parts = [splits[name] for name in wanted if name in splits]
    if not parts or any((part.labels < 0).any() for part in parts):
        raise InputError(f"data.fold={fold}: needs labelled images in train; the data has {', '.join(splits)}.")
    pool = parts[0] if config.fold_of == "train" else _joined(parts)
    held = np.zeros(len(pool), bool)
    for label in np.unique(pool.labels):
        rows = np.flatnonzero(pool.labels == label).tolist()
        if len(rows) < config.folds:
            raise InputError(
                f"data.folds={config.folds}: a class has only {len(rows)} images, such as {pool.ids[rows[0]]}; give"
                " fewer folds."
            )
        rows.sort(key=lambda row: _sort_key(config.val_seed, pool.ids[row]))
        held[rows[fold :: config.folds]] = True
    return {"train": _subset(pool, "train", ~held), "validation": _subset(pool, "validation", held)}


def _joined(parts: list[Split]) -> Split:
    return Split(
        "train",
        tuple(f"{part.name}/{image_id}" for part in parts for image_id in part.ids),  # both may use an id
        np.concatenate([part.labels for part in parts]),
        tuple(path for part in parts for path in part.paths or ()),
    )


def _sort_key(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{image_id}".encode(errors="surrogateescape")).digest()


def _subset(split: Split, name: str, chosen: NDArray[np.bool_]) -> Split:
    ids = tuple(itertools.compress(split.ids, chosen))
    paths = None if split.paths is None else tuple(itertools.compress(split.paths, chosen))
    return Split(name, ids, split.labels[chosen], paths)
