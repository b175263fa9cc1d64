"""Parts of the training split: the validation split of data that has none, folds, or fewer training images.

All are stratified by class. They depend on a seed and on the ids, and not on the order of the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data.manifest import Split
from deepfake_cls.errors import InputError


def with_validation(splits: dict[str, Split], config: ImageFilesConfig) -> dict[str, Split]:
    """Add a validation split if there is none; with ``data.fold``, make that fold the validation split.

    With ``data.fold_of=all``, the data's own validation split is part of the folds; with ``data.fold_of=train`` it is
    omitted.

    Raises:
        InputError: If there is no such fold, or a class has too few images.
    """
    if config.fold is not None:
        return {**splits, **_hold_out_fold(splits, config.fold, config)}
    if "train" in splits and "validation" not in splits:
        return {**splits, **_hold_out_fraction(splits["train"], config)}
    return splits


def with_train_fraction(splits: dict[str, Split], config: ImageFilesConfig) -> dict[str, Split]:
    """Keep ``data.train_fraction`` of the training images of each class, rounded, and at least one.

    Images without a label are treated as one more class.
    """
    if config.train_fraction == 1 or "train" not in splits:
        return splits
    train = splits["train"]
    kept = np.zeros(len(train), bool)
    for rows in _shuffled_rows_by_class(train, config.val_seed):
        kept[rows[: max(1, round(config.train_fraction * len(rows)))]] = True
    return {**splits, "train": train.subset(kept)}


def _hold_out_fraction(train: Split, config: ImageFilesConfig) -> dict[str, Split]:
    held_out = np.zeros(len(train), bool)
    for rows in _shuffled_rows_by_class(train, config.val_seed):
        if len(rows) < 2:
            raise InputError(
                f"There is no split validation, and none can be cut from train: a class has one image, "
                f"{train.ids[rows[0]]}. Add images, or a validation split."
            )
        held_out[rows[: min(max(1, round(config.val_fraction * len(rows))), len(rows) - 1)]] = True
    note = (
        f"There is no split validation: {held_out.sum():,} of {len(train):,} images of train are used for it"
        f" (data.val_fraction={config.val_fraction:g}, data.val_seed={config.val_seed})."
    )
    parts = _divide(train, held_out)
    return {**parts, "validation": replace(parts["validation"], note=note)}


def _hold_out_fold(splits: dict[str, Split], fold: int, config: ImageFilesConfig) -> dict[str, Split]:
    if fold >= config.folds:
        raise InputError(f"data.fold={fold}: expected 0 to {config.folds - 1}, since data.folds={config.folds}.")
    names = ("train",) if config.fold_of == "train" else ("train", "validation")
    parts = [splits[name] for name in names if name in splits]
    if not parts or any((part.labels < 0).any() for part in parts):
        raise InputError(f"data.fold={fold}: needs labelled images in train; the data has {', '.join(splits)}.")
    pool = parts[0] if config.fold_of == "train" else _concatenate(parts)
    held_out = np.zeros(len(pool), bool)
    for rows in _shuffled_rows_by_class(pool, config.val_seed):
        if len(rows) < config.folds:
            raise InputError(
                f"data.folds={config.folds}: a class has only {len(rows)} images, such as {pool.ids[min(rows)]}; use"
                " fewer folds."
            )
        held_out[rows[fold :: config.folds]] = True
    return _divide(pool, held_out)


def _shuffled_rows_by_class(split: Split, seed: int) -> Iterator[list[int]]:
    """Yield the rows of each class, in an order that depends on the seed and the ids only."""

    def sort_key(row: int) -> bytes:
        return hashlib.sha256(f"{seed}:{split.ids[row]}".encode(errors="surrogateescape")).digest()

    for label in np.unique(split.labels):
        yield sorted(np.flatnonzero(split.labels == label).tolist(), key=sort_key)


def _concatenate(parts: list[Split]) -> Split:
    groups = None
    if any(part.groups is not None for part in parts):
        # An image without a group is a group of its own.
        groups = tuple(group for part in parts for group in part.groups or [f"{part.name}/{one}" for one in part.ids])
    rows = [part.rows for part in parts if part.rows is not None]
    return Split(
        "train",
        tuple(f"{part.name}/{image_id}" for part in parts for image_id in part.ids),  # both may use the same id
        np.concatenate([part.labels for part in parts]),
        tuple(path for part in parts for path in part.paths or ()) if parts[0].paths is not None else None,
        rows=np.concatenate(rows) if rows else None,
        groups=groups,
    )


def _divide(split: Split, held_out: NDArray[np.bool_]) -> dict[str, Split]:
    validation = replace(split.subset(held_out, "validation"), note="")
    return {"train": split.subset(~held_out, "train"), "validation": validation}
