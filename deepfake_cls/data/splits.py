"""Parts of the training split: the validation split of data that has none, folds, or fewer training images.

All are stratified by class, and keep the images of one group together. Exact duplicates are never on both sides of a
cut either. The parts depend on a seed and on the ids, and not on the order of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.units import Units, first_share, folds, hold_out, units_of
from deepfake_cls.errors import InputError
from deepfake_cls.escaping import printable

Inspect = Callable[[Split], Split]  # adds the inspection to a split


def with_validation(
    splits: dict[str, Split], classes: Sequence[str], config: ImageFilesConfig, inspect: Inspect
) -> dict[str, Split]:
    """Add a validation split if there is none; with ``data.fold``, make that fold the validation split.

    With ``data.fold_of=all``, the data's own validation split is part of the folds; with ``data.fold_of=train`` it is
    omitted. ``inspect`` is called for the images that are cut.

    Raises:
        InputError: If there is no such fold, or a class cannot be on both sides.
    """
    if config.fold is not None:
        return {**splits, **_hold_out_fold(splits, config.fold, classes, config, inspect)}
    if "train" in splits and "validation" not in splits:
        return {**splits, **_hold_out_fraction(inspect(splits["train"]), classes, config)}
    return splits


def with_train_fraction(splits: dict[str, Split], config: ImageFilesConfig) -> dict[str, Split]:
    """Keep ``data.train_fraction`` of the training images of each class, rounded, and at least one.

    Images without a label are treated as one more class.
    """
    if config.train_fraction == 1 or "train" not in splits:
        return splits
    units = units_of(splits["train"], config.val_seed)
    kept = first_share(units, config.train_fraction)[units.of_row]
    return {**splits, "train": splits["train"].subset(kept)}


def _hold_out_fraction(train: Split, classes: Sequence[str], config: ImageFilesConfig) -> dict[str, Split]:
    pool, usable = _large_enough(train, config)
    units = units_of(pool, config.val_seed)
    problem = "There is no split validation, and none can be cut from train"
    for label, size, count in zip(units.labels, units.sizes, units.per_class(), strict=True):
        example = pool.ids[int(np.flatnonzero(pool.labels == label)[0])]
        if size == 1:
            raise InputError(f"{problem}: a class has one image, {example}. Add images, or a validation split.")
        if count == 1:
            raise InputError(
                f"{problem}: all {size:,} images of the class {_name(classes, label)} are of one group or exact"
                f" duplicates, such as {example}. Add images of other groups, or a validation split, or leave the"
                " class out."
            )
    chosen = hold_out(units, config.val_fraction)
    held_out = np.zeros(len(train), bool)
    held_out[usable] = chosen[units.of_row]
    _require_both_sides(units, chosen, classes, f"{problem}:", "Add images, or a validation split.")
    note = (
        f"There is no split validation: {held_out.sum():,} of {len(train):,} images of train are used for it"
        f" (data.val_fraction={config.val_fraction:g}, data.val_seed={config.val_seed}).{_together(train)}"
    )
    return _divide(train, held_out, note)


def _hold_out_fold(
    splits: dict[str, Split], fold: int, classes: Sequence[str], config: ImageFilesConfig, inspect: Inspect
) -> dict[str, Split]:
    if fold >= config.folds:
        raise InputError(f"data.fold={fold}: expected 0 to {config.folds - 1}, since data.folds={config.folds}.")
    names = ("train",) if config.fold_of == "train" else ("train", "validation")
    parts = [splits[name] for name in names if name in splits]
    if not parts or any((part.labels < 0).any() for part in parts):
        raise InputError(f"data.fold={fold}: needs labelled images in train; the data has {', '.join(splits)}.")
    listed = inspect(parts[0] if config.fold_of == "train" else _concatenate(parts))
    pool, usable = _large_enough(listed, config)
    units = units_of(pool, config.val_seed)
    for label, size, count in zip(units.labels, units.sizes, units.per_class(), strict=True):
        if size < config.folds:
            example = pool.ids[int(np.flatnonzero(pool.labels == label)[0])]
            raise InputError(
                f"data.folds={config.folds}: a class has only {size} images, such as {example}; use fewer folds."
            )
        if count < config.folds:
            raise InputError(
                f"data.folds={config.folds}: the {size:,} images of the class {_name(classes, label)} are of only"
                f" {count} groups, where exact duplicates are of one group; use fewer folds, or leave the class out."
            )
    chosen = folds(units, config.folds) == fold
    _require_both_sides(units, chosen, classes, f"data.fold={fold}:", "Use fewer folds.")
    held_out = np.zeros(len(listed), bool)
    held_out[usable] = chosen[units.of_row]
    return _divide(listed, held_out, _together(pool).lstrip())


def _large_enough(split: Split, config: ImageFilesConfig) -> tuple[Split, NDArray[np.bool_]]:
    """The images that ``data.small=skip`` does not omit, and whether each image is one of them, bool (N,).

    Only these are shared between the parts, so that each part gets its share of the images that are used.
    """
    if config.crop is None or config.small != "skip" or split.inspection is None:
        return split, np.ones(len(split), bool)
    usable = (split.inspection["height"] >= config.crop) & (split.inspection["width"] >= config.crop)
    return split.subset(usable), usable


def _require_both_sides(
    units: Units, chosen: NDArray[np.bool_], classes: Sequence[str], start: str, advice: str
) -> None:
    """Raise InputError if all images of a class are on one side."""
    held = units.counts[chosen].sum(axis=0)
    lost = [_name(classes, label) for label in units.labels[(held == 0) | (held == units.sizes)]]
    if lost:
        raise InputError(
            f"{start} no cut was found that keeps groups whole and has images of {', '.join(lost)} on both sides."
            f" {advice}"
        )


def _name(classes: Sequence[str], label: int) -> str:
    return printable(classes[label]) if label >= 0 else "without a label"


def _together(split: Split) -> str:
    """A sentence about the groups and the exact duplicates of a split; empty if it has neither."""
    parts = [] if split.groups is None else [f"the images of each of {len({*split.groups}):,} groups"]
    if split.inspection is not None:
        digests = split.inspection["digest"]
        counts = np.unique(digests[digests != ""], return_counts=True)[1]
        if (counts > 1).any():
            parts.append(f"{counts[counts > 1].sum():,} images in {(counts > 1).sum():,} sets of exact duplicates")
    return f" Kept together: {' and '.join(parts)}." if parts else ""


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


def _divide(split: Split, held_out: NDArray[np.bool_], note: str) -> dict[str, Split]:
    validation = replace(split.subset(held_out, "validation"), note=note)
    return {"train": split.subset(~held_out, "train"), "validation": validation}
