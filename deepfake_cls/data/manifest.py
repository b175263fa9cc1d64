"""The contents of a data set: its classes, and the ids, labels and files of its splits."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from deepfake_cls.data.inspection import Inspection

STANDARD_SPLITS = ("train", "validation", "test")
CUT_SPLITS = ("train", "validation")  # a cut changes them
_ORIGINS = {
    "folder": "the folders of the classes, as in train/<class>/*",
    "pattern": "{class} in data.pattern",
    "table": "the column data.columns.label",
    "hf": "the column data.label",
}
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train", "testing": "test"}


def split_name(name: str) -> str:
    """The split that a folder or a cell of a table means: ``validation`` for ``Val``; another name is its own."""
    lower = name.lower()
    standard = _ALIASES.get(lower, lower)
    return standard if standard in STANDARD_SPLITS else name


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in a fixed order.

    Attributes:
        name: ``train``, ``validation``, ``test`` or another name.
        ids: One id for each image, unique within the split.
        labels: int64 (N,), index into the manifest's classes; −1 is unknown.
        paths: The image files; None if the images are not read from files.
        rows: For images that are rows of a table, such as a parquet file: int64 (N,), the row of each; else None.
        groups: The group of each image, such as its prompt; None if every image is a group of its own.
        inspection: The properties of the images, if a cut has read them.
        note: How the split was made if the data has no such split; it is shown when the split is opened.
    """

    name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    paths: tuple[Path, ...] | None
    note: str = ""
    rows: NDArray[np.int64] | None = None
    groups: tuple[str, ...] | None = None
    inspection: Inspection | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, mask: NDArray[np.bool_], name: str | None = None) -> Split:
        """The images of a mask (N,), as a split of the given name; None keeps the name."""
        return replace(
            self,
            name=self.name if name is None else name,
            ids=tuple(itertools.compress(self.ids, mask)),
            labels=self.labels[mask],
            paths=None if self.paths is None else tuple(itertools.compress(self.paths, mask)),
            rows=None if self.rows is None else self.rows[mask],
            groups=None if self.groups is None else tuple(itertools.compress(self.groups, mask)),
            inspection=None if self.inspection is None else self.inspection.subset(mask),
        )


@dataclass(frozen=True, eq=False)
class Manifest:
    """A data set: its classes and its splits.

    Attributes:
        name: The layout, ``data.name``.
        classes: Class names, in label order; empty if no image has a label.
        splits: By name: ``train``, ``validation``, ``test``, then the others in alphabetical order.
        real: The class of images that no generator made, ``data.real``; None if there is none.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    real: str | None = None

    def __post_init__(self) -> None:
        if self.real is not None and self.classes and self.real not in self.classes:
            raise InputError(f"data.real={self.real}: no such class; expected one of {', '.join(self.classes)}.")

    @property
    def real_label(self) -> int | None:
        """The label of ``real``; None also for data without labels."""
        return self.classes.index(self.real) if self.real in self.classes else None

    def split(self, name: str, advice: str = "") -> Split:
        """Return the split of that name; raise InputError, which ends with the advice, if the data has none."""
        if name not in self.splits:
            raise InputError(f"The data has no split {name!r}; it has {', '.join(self.splits)}{advice}.")
        return self.splits[name]

    def require_classes(self) -> None:
        """Raise InputError if the data has fewer than two classes."""
        if len(self.classes) < 2:
            classes = ", ".join(self.classes) or "none"
            splits = ", ".join(f"{name} ({len(split):,} images)" for name, split in self.splits.items())
            origin = _ORIGINS.get(self.name)
            raise InputError(
                f"The data has too few classes ({classes}); at least two are needed. Its splits are {splits}."
                + (f" Labels come from {origin}." if origin else "")
            )

    def sha256(self, names: Iterable[str] | None = None) -> str:
        """Hash the classes, and the names, ids and labels of the given splits (None: all splits)."""
        splits = [self.split(name) for name in (self.splits if names is None else names)]
        content = [self.classes, [(split.name, split.ids, split.labels.tolist()) for split in splits]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
