"""Which images there are: a data set's classes, and the ids, labels and files of its splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.errors import InputError

STANDARD_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in a fixed order.

    Attributes:
        name: ``train``, ``validation``, ``test`` or a folder's name.
        ids: One for each image, unique within the split.
        labels: int64 (N,), index into the manifest's classes; −1 is unknown.
        paths: The image files; None where images are drawn.
    """

    name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    paths: tuple[Path, ...] | None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Manifest:
    """A data set: its classes and its splits.

    Attributes:
        name: The layout, ``data.name``.
        classes: Names of the classes, indexed by label; empty where nothing is labelled.
        splits: By name: ``train``, ``validation``, ``test``, then others in alphabetical order.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
            InputError: There is none.
        """
        if name not in self.splits:
            raise InputError(f"The data has no split {name!r}; it has {', '.join(self.splits)}.")
        return self.splits[name]

    def require_classes(self) -> None:
        """Refuse data in which there is nothing to tell apart.

        Raises:
            InputError: There are fewer than two classes.
        """
        if len(self.classes) < 2:
            found = ", ".join(self.classes) or "none"
            raise InputError(f"The data has too few classes ({found}): two or more are needed to tell apart.")

    def sha256(self, names: Iterable[str] | None = None) -> str:
        """SHA-256 over the classes, and over name, ids and labels of the splits given (None: of all)."""
        chosen = [self.split(name) for name in (self.splits if names is None else names)]
        content = [self.classes, [(split.name, split.ids, split.labels.tolist()) for split in chosen]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
