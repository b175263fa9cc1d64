"""Rules that hold for every layout of images on disk: new names of classes, classes that are left out, groups.

The order is: ``data.class_map``, ``data.exclude``, ``data.min_class``, groups of the images that remain.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data.listing import indented, locate, read_csv
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.named import in_order
from deepfake_cls.errors import InputError
from deepfake_cls.notation import override

_log = logging.getLogger(__name__)


def apply_rules(
    classes: tuple[str, ...], splits: list[Split], config: ImageFilesConfig, root: Path
) -> tuple[tuple[str, ...], list[Split]]:
    """Rename the classes of a layout, leave some out, and put the remaining images into groups.

    Args:
        classes: Class names, in label order.
        splits: The splits.
        config: The ``data`` group.
        root: The folder of the data.

    Returns:
        The classes and the splits that remain. Renamed classes are in alphabetical order.

    Raises:
        InputError: If a key names an unknown class, an image has no group in the table, no path matches the pattern,
            or a class has too few training images.
    """
    before = classes
    if config.class_map or config.exclude:
        classes, splits = _renamed(classes, splits, config)
    classes, splits = _without_small_classes(classes, splits, config)
    if before and not classes:
        raise InputError("data.exclude and data.min_class leave out all classes; leave out fewer.")
    if config.group_pattern is not None or config.group_table is not None:
        splits = _grouped(splits, config, root)
    return classes, splits


# Classes


def _renamed(
    classes: tuple[str, ...], splits: list[Split], config: ImageFilesConfig
) -> tuple[tuple[str, ...], list[Split]]:
    """Apply ``data.class_map`` and ``data.exclude``."""
    new_names = {old: str(new) for old, new in config.class_map.items()}
    _refuse_unknown("data.class_map", [*new_names], classes)
    if "" in new_names.values():
        raise InputError("data.class_map: a new name is empty; give a name, or leave the class out with data.exclude.")
    names = [new_names.get(name, name) for name in classes]
    _refuse_unknown("data.exclude", config.exclude, {**dict.fromkeys(names), **dict.fromkeys(classes)})
    kept = [None if {old, new} & {*config.exclude} else new for old, new in zip(classes, names, strict=True)]
    remaining = [name for name in kept if name is not None]
    return _relabelled(kept, in_order(remaining) if new_names else tuple(remaining), splits)


def _refuse_unknown(key: str, names: Collection[str], classes: Collection[str]) -> None:
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InputError(
            f"{key}: the data has no class {', '.join(unknown)}; its classes are {', '.join(classes) or 'none'}."
        )


def _without_small_classes(
    classes: tuple[str, ...], splits: list[Split], config: ImageFilesConfig
) -> tuple[tuple[str, ...], list[Split]]:
    train = next((split for split in splits if split.name == "train"), None)
    if train is None or not classes:
        return classes, splits
    counts = np.bincount(train.labels[train.labels >= 0], minlength=len(classes)).tolist()
    small = {name: count for name, count in zip(classes, counts, strict=True) if count < config.min_class}
    if not small:
        return classes, splits
    listed = ", ".join(f"{name} ({count:,})" for name, count in small.items())
    if config.on_small_class == "raise":
        raise InputError(
            f"data.min_class={config.min_class}: classes have fewer training images: {listed}. Add images, or leave"
            " them out with data.on_small_class=exclude."
        )
    _log.warning("Classes with fewer than %d training images are left out: %s", config.min_class, listed)
    kept = [None if name in small else name for name in classes]
    return _relabelled(kept, tuple(name for name in kept if name is not None), splits)


def _relabelled(
    names: list[str | None], classes: tuple[str, ...], splits: list[Split]
) -> tuple[tuple[str, ...], list[Split]]:
    """Give the images of each class its new name, or leave them out; splits without images are left out too.

    Args:
        names: New name of each class, in the order of the old labels; None leaves the class out.
        classes: The new classes, in label order.
        splits: The splits, with the old labels.
    """
    left_out = -2
    # The last entry is that of label −1, which is unknown and stays so.
    table = np.array([*(left_out if name is None else classes.index(name) for name in names), -1], np.int64)
    relabelled = [replace(split, labels=table[split.labels]) for split in splits]
    kept = [split.subset(split.labels != left_out) for split in relabelled]
    return classes, [split for split in kept if len(split)]


# Groups


def _grouped(splits: list[Split], config: ImageFilesConfig, root: Path) -> list[Split]:
    if config.group_pattern is not None and config.group_table is not None:
        raise InputError("data.group_pattern and data.group_table both name groups; give one of them.")
    paths = [path for split in splits for path in _paths(split, root)]
    if config.group_table is not None:
        groups = _groups_of_table(paths, locate(config.group_table, root, "data.group_table"))
    else:
        groups = _groups_of_pattern(paths, str(config.group_pattern))
    ends = np.cumsum([len(split) for split in splits]).tolist()
    return [
        replace(split, groups=tuple(groups[end - len(split) : end])) for split, end in zip(splits, ends, strict=True)
    ]


def _paths(split: Split, root: Path) -> list[str]:
    """The paths of the images below the root; their ids if they are no files."""
    return [*split.ids] if split.paths is None else [str(path).removeprefix(f"{root}{os.sep}") for path in split.paths]


def _groups_of_pattern(paths: list[str], pattern: str) -> list[str]:
    found = [re.search(pattern, path) for path in paths]
    groups = [match[1] if match else None for match in found]
    without = [path for path, group in zip(paths, groups, strict=True) if group is None]
    if without and len(without) == len(paths):
        raise InputError(f"{override('data.group_pattern', pattern)}: matches no path, such as {paths[0]}.")
    if without:
        _log.warning(
            "data.group_pattern: does not match %s of %s paths, such as %s; each of these images is a group of its own",
            f"{len(without):,}", f"{len(paths):,}", without[0],
        )  # fmt: skip
    return [path if group is None else group for path, group in zip(paths, groups, strict=True)]


def _groups_of_table(paths: list[str], table: Path) -> list[str]:
    header, rows = read_csv(table, ("path", "group"))
    path_column, group_column = header.index("path"), header.index("group")
    line_of, group_of, problems = dict[str, int](), dict[str, str](), list[str]()
    for line, cells in rows:
        cells += [""] * (len(header) - len(cells))
        path, group = posixpath.normpath(cells[path_column]), cells[group_column]
        if not group:
            problems.append(f"line {line}: the group of {path} is missing")
        elif group_of.setdefault(path, group) != group:
            problems.append(f"line {line}: {path} has another group than in line {line_of[path]}")
        line_of.setdefault(path, line)
    problems += [f"there is no row for the image {path}" for path in paths if path not in line_of]
    if problems:
        raise InputError(f"data.group_table: {table} needs one group for each image:{indented(problems)}")
    return [group_of[path] for path in paths]
