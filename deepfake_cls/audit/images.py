"""All images of a data set with their properties, whatever split they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.audit.near import components, equal_values, near_pairs
from deepfake_cls.config import DataConfig
from deepfake_cls.data.appearance import Appearance, empty
from deepfake_cls.data.decode import decode
from deepfake_cls.data.entries import cache_folder
from deepfake_cls.data.inspection import inspect_pixels
from deepfake_cls.data.readers import Reader
from deepfake_cls.data.sources import Source, open_source
from deepfake_cls.errors import InputError


@dataclass(frozen=True, eq=False)
class Images:
    """N images of all splits.

    Attributes:
        source: The data set.
        config: The ``data`` group.
        classes: Class names, in label order.
        splits: Names of the splits.
        split: int64 (N,), index into ``splits``.
        labels: int64 (N,), index into ``classes``; −1 is unknown.
        ids: The id of each image in its split.
        groups: The group of each image, such as its prompt; None if the data has no groups.
        readers: The reader of each split.
        columns: The properties, see :class:`deepfake_cls.data.properties.Properties`, each (N,).
        appearance: What the images look like.
        exact: Groups of images with equal pixels, as rows.
        near: Groups of images that look the same but are not all equal, as rows.
        problem: Why training can cut no validation split; the splits are then those of the data. Empty if it can.
    """

    source: Source
    config: Any  # a DataConfig; most keys are those of one layout
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    split: NDArray[np.int64]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    groups: tuple[str, ...] | None
    readers: tuple[Reader, ...]
    columns: dict[str, NDArray[Any]]
    appearance: Appearance
    exact: list[list[int]]
    near: list[list[int]]
    problem: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether an image can be decoded, (N,)."""
        return np.asarray(self.columns["error"] == "")

    def described(self) -> dict[str, Any]:
        """Layout and folder of the data, the classes, and the number of images of each split."""
        counts = np.bincount(self.split, minlength=len(self.splits)).tolist()
        return {
            "name": self.config.name,
            "root": getattr(self.config, "root", None),
            "classes": [*self.classes],
            "splits": dict(zip(self.splits, counts, strict=True)),
        }

    def file(self, row: int) -> str:
        """The file of an image, below ``data.root`` where it is there."""
        name = self.readers[int(self.split[row])].where(self._row_in_split(row))
        root = Path(getattr(self.config, "root", "") or ".").expanduser().absolute()
        return str(name).removeprefix(f"{root}/")

    def example(self, row: int) -> dict[str, Any]:
        """Split, class and file of an image."""
        label = int(self.labels[row])
        name = self.classes[label] if label >= 0 else None
        return {"split": self.splits[self.split[row]], "class": name, "file": self.file(row)}

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """The decoded image, uint8 (H, W, 3 or 4), as it is in the file; raise DecodeError if it is refused."""
        reader, own = self.readers[self.split[row]], self._row_in_split(row)
        encoded = reader.encoded(own)
        return decode(encoded)[0] if encoded is not None else reader.read(own, None)[0]

    def by_class(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The name and the rows of each class, then of the images without a label if there are any."""
        for label, name in enumerate(self.classes):
            yield name, np.flatnonzero(self.labels == label)
        if (self.labels < 0).any():
            yield "no label", np.flatnonzero(self.labels < 0)

    def crossing(self, groups: Sequence[Sequence[int]], values: NDArray[np.int64]) -> list[Sequence[int]]:
        """The groups of rows in which a value, such as split or label, is not the same; negative values are ignored."""
        return [rows for rows in groups if len({*values[list(rows)].tolist()} - {-1}) > 1]

    def _row_in_split(self, row: int) -> int:
        return row - int(np.searchsorted(self.split, self.split[row]))


def read_images(config: DataConfig, progress: bool = False) -> Images:
    """List all images, read their properties, and find duplicates.

    Raises:
        InputError: If the data does not follow its layout. An image that cannot be decoded raises no error.
    """
    source = open_source(config)
    source.progress = progress
    problem = ""
    try:
        manifest = source.manifest()
    except InputError as error:
        source.cut, problem = False, str(error)
        manifest = source.manifest()  # raises the error again if it is not about the cut
    splits = [*manifest.splits.values()]
    readers = tuple(source.reader(split, None) for split in splits)
    cache = cache_folder(config.cache)
    found = [inspect_pixels(reader, cache, config.workers, progress) for reader in readers]
    names = [*(found[0][0].columns if found else ())]
    columns = {name: np.concatenate([inspection[name] for inspection, _ in found]) for name in names}
    looks = {name: np.concatenate([getattr(each, name) for _, each in found]) for name in vars(empty(0))}
    exact, near = _duplicates(columns["digest"], Appearance(**looks))
    return Images(
        source,
        config,
        manifest.classes,
        tuple(manifest.splits),
        np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
        np.concatenate([split.labels for split in splits]),
        tuple(image_id for split in splits for image_id in split.ids),
        # An image without a group is a group of its own.
        tuple(group for split in splits for group in split.groups or [f"{split.name}/{one}" for one in split.ids])
        if any(split.groups is not None for split in splits)
        else None,
        readers,
        columns,
        Appearance(**looks),
        exact,
        near,
        problem,
    )


def _duplicates(digests: NDArray[Any], looks: Appearance) -> tuple[list[list[int]], list[list[int]]]:
    """Groups of images with equal pixels, and groups of images that look the same but are not all equal."""
    rows = np.flatnonzero(digests != "")
    _, first, unit = np.unique(digests[rows], return_index=True, return_inverse=True)
    unique = rows[first]  # one image for each digest
    component = components(near_pairs(looks.hash[unique], looks.thumbnail[unique]), len(unique))[unit]
    alike = np.full(len(digests), -1)
    alike[rows] = component
    return equal_values(digests, rows), equal_values(alike, rows[component >= 0])
