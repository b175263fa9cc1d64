"""Images with the names of their split, class and group, as layouts find them in paths and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepfake_cls.data.manifest import Split


class NamedImage(NamedTuple):
    """An image of a data set.

    Attributes:
        split: Name of its split.
        image_id: Its path below the root, or another id that no other image has.
        class_name: None if it is unknown.
        group: None if the image is a group of its own.
    """

    split: str
    image_id: str
    class_name: str | None = None
    group: str | None = None


def cell_text(cell: object) -> str:
    """A cell of a table as text: empty if it is absent or not a number, ``1`` for 1.0.

    Raises:
        ValueError: If it is neither text nor a number.
    """
    if cell is None or cell != cell:  # NaN
        return ""
    if not isinstance(cell, str | int | float):
        raise ValueError(f"is a {type(cell).__name__}; expected text or a number")
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names without repetitions: sorted as numbers if all are numbers, else as text."""
    found = {*names}
    numbers = all(name.isascii() and name.isdigit() for name in found)
    return tuple(sorted(found, key=(lambda name: (int(name), name)) if numbers else None))


def make_splits(
    images: Sequence[NamedImage], root: Path | None = None, classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], list[Split]]:
    """The classes, and the splits in which the images keep their order.

    Args:
        images: All images.
        root: The folder that the ids are paths in; None if the images are rows of a table, in this order.
        classes: The classes in label order; None: those of the images.
    """
    if classes is None:
        classes = in_order(image.class_name for image in images if image.class_name is not None)
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(classes)}
    grouped = any(image.group is not None for image in images)
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image.split, []).append(row)
    splits = []
    for name, rows in rows_of.items():
        own = [images[row] for row in rows]
        splits.append(
            Split(
                name,
                tuple(image.image_id for image in own),
                np.array([label_of.get(image.class_name, -1) for image in own], np.int64),
                None if root is None else tuple(root / image.image_id for image in own),
                rows=np.array(rows, np.int64) if root is None else None,
                groups=tuple(image.group or image.image_id for image in own) if grouped else None,
            )
        )
    return classes, splits
