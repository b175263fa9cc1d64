"""Warnings before a training: exact duplicates across splits, and properties of files that give the class away."""

from __future__ import annotations

import logging
import sys
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import DataConfig
from deepfake_cls.data.manifest import STANDARD_SPLITS, Manifest, Split
from deepfake_cls.data.sources import open_source

_log = logging.getLogger(__name__)
STRONG = 0.2  # Cramér's V; with two classes and two values of equal size, a guess from the value is then right in 60 %
CHANCE = 1e-3  # largest p value: a small data set shows associations by chance
RARE = 5  # values of fewer images are one value, so that the distribution of chi-squared holds


def warn(manifest: Manifest, config: DataConfig, progress: bool) -> None:
    """Log what would make the validation accuracy say little, one line each.

    The images are decoded once for it, unless their properties are in the cache. Images that are drawn are left out.

    Args:
        manifest: The data set, with the splits ``train`` and ``validation``.
        config: The ``data`` group.
        progress: Show a progress bar, if standard error is a terminal.
    """
    unused = manifest.splits.keys() - {*STANDARD_SPLITS}
    others = [f"{name} ({len(manifest.split(name)):,} images)" for name in sorted(unused)]
    if others:
        _log.info("Splits that training does not use: %s", ", ".join(others))
    source = open_source(config)
    source.progress = progress and sys.stderr.isatty()
    train, validation = manifest.split("train"), manifest.split("validation")
    if source.reader(train, None).encoded(0) is None:
        return
    train, validation = (split if split.inspection else source.inspected(split) for split in (train, validation))
    resize = bool(getattr(config, "resize", False))
    for text in (shared_groups(train, validation), duplicates(train, validation), shortcuts(train, resize)):
        if text:
            _log.warning("%s See: deepfake-cls audit, with the same keys of data.", text)


def shared_groups(train: Split, validation: Split) -> str:
    """A sentence about the groups with images in both splits; empty if there are none."""
    shared = sorted({*(train.groups or ())} & {*(validation.groups or ())})
    if not shared:
        return ""
    return (
        f"{len(shared):,} groups, such as {shared[0]}, have images in train and in validation: the validation accuracy"
        " is not that of new images. Give each group to one split."
    )


def duplicates(train: Split, validation: Split) -> str:
    """A sentence about the exact duplicates in two splits with inspections; empty if there are none."""
    assert train.inspection is not None
    assert validation.inspection is not None
    known: dict[str, list[int]] = {}
    for row, digest in enumerate(train.inspection["digest"].tolist()):
        known.setdefault(digest, []).append(row)
    known.pop("", None)  # files that cannot be read
    found = [(row, known[one]) for row, one in enumerate(validation.inspection["digest"].tolist()) if one in known]
    if not found:
        return ""
    conflicts = [each for each in found if validation.labels[each[0]] not in train.labels[each[1]]]
    row, (other, *_) = (conflicts or found)[0]
    labels = f", {len(conflicts):,} of them with another label" if conflicts else ""
    return (
        f"{len(found):,} of {len(validation):,} validation images are exact duplicates of training images{labels}, such"
        f" as {validation.ids[row]} of {train.ids[other]}: the validation accuracy is not that of new images. Remove"
        " them from one split."
    )


def shortcuts(train: Split, resize: bool) -> str:
    """A sentence about properties of the training files that go with the class; empty if there are none.

    The measure is Cramér's V between property and class, corrected for its bias (Bergsma 2013): 0 for independence, 1
    where one determines the other. It is computed for the format and for the size; sizes are compared as they are, and
    in steps of a factor of √2, since sizes may all differ.
    """
    assert train.inspection is not None
    found, labels = train.inspection, train.labels
    known = (labels >= 0) & (found["digest"] != "")
    height, width = found["height"][known].astype(np.float64), found["width"][known].astype(np.float64)
    values = {
        "format": [found["format"][known]],
        "resize factor" if resize else "size": [height * 65536 + width, np.rint(np.log2(height * width))],
    }
    strong = {
        name: max(strengths)
        for name, columns in values.items()
        if (strengths := [v for v, p in (association(each, labels[known]) for each in columns) if p < CHANCE])
        and max(strengths) >= STRONG
    }
    if not strong:
        return ""
    names, sizes = " and ".join(strong), " and ".join(f"{v:.2f}" for v in strong.values())
    verb, them = ("go", "them") if len(strong) > 1 else ("goes", "it")
    return (
        f"The {names} of the training files {verb} with the class (Cramér's V {sizes}; 0 is none, 1 is complete):"
        f" a classifier may learn {them} instead of the traces of generators."
    )


def association(values: NDArray[np.generic], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Bias-corrected Cramér's V of two nominal variables (N,) (Bergsma 2013), and the p value of chi-squared.

    Rare values are one value, see ``RARE``. The result is (0, 1) if one of the variables has one value only.
    """
    if len(labels) < 2:
        return 0.0, 1.0
    value, sizes = np.unique(values, return_inverse=True, return_counts=True)[1:]
    value = np.unique(np.where(sizes[value] < RARE, -1, value), return_inverse=True)[1]
    label = np.unique(labels, return_inverse=True)[1]
    shape = rows, columns = int(value.max()) + 1, int(label.max()) + 1
    if min(shape) < 2:
        return 0.0, 1.0
    from scipy.special import chdtrc

    count = len(labels)
    table = np.bincount(value * columns + label, minlength=rows * columns).reshape(shape)
    phi = float((table**2 / (table.sum(axis=1, keepdims=True) * table.sum(axis=0))).sum()) - 1
    freedom = (rows - 1) * (columns - 1)
    corrected = max(0.0, phi - freedom / (count - 1))
    largest = min(each - (each - 1) ** 2 / (count - 1) for each in shape) - 1
    return sqrt(corrected / largest) if largest > 0 else 0.0, float(chdtrc(freedom, count * phi))
