"""Data layouts, registered by name: a ``Source`` lists the images of a data set and says how each one is read.

A layout is one module that registers one class. A layout of image files needs one method::

    @source("mine")
    class Mine(FileSource):
        def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
            ...  # class names, and a Split of ids, labels and paths for train, test, ...

``data.name=mine`` chooses it. A layout with keys of its own sets ``Source.Config`` to a dataclass with these keys.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from deepfake_cls.config import DataConfig, ImageFilesConfig
from deepfake_cls.crops import Crops
from deepfake_cls.data.entries import cache_folder
from deepfake_cls.data.inspection import inspect
from deepfake_cls.data.manifest import STANDARD_SPLITS, Manifest, Split
from deepfake_cls.data.readers import Files, Reader
from deepfake_cls.data.rules import apply_rules
from deepfake_cls.data.splits import with_train_fraction, with_validation
from deepfake_cls.errors import InputError
from deepfake_cls.notation import override
from deepfake_cls.registry import Registry
from deepfake_cls.schema import check


class Source(ABC):
    """A data layout.

    Args:
        config: The ``data`` group, an instance of ``Config``.

    Attributes:
        Config: Schema of the ``data`` group: a dataclass derived from ``DataConfig``.
        progress: Whether ``manifest`` shows a progress bar if it decodes images.
        cut: Whether ``manifest`` cuts a validation split from the training split, if the configuration says so.
    """

    Config: ClassVar[type[DataConfig]]
    config: DataConfig
    progress: bool = False
    cut: bool = True

    def __init__(self, config: DataConfig) -> None:
        check(config, "data.")
        self.config = config

    @property
    def skips_bad_images(self) -> bool:
        """Whether images that cannot be read are skipped instead of ending the run."""
        return False

    @abstractmethod
    def manifest(self) -> Manifest:
        """List the classes, labels and splits. Images are opened only to find exact duplicates before a cut.

        Raises:
            InputError: If the data is missing, does not follow the layout, or contradicts itself.
        """

    @abstractmethod
    def reader(self, split: Split, size: tuple[int, int] | None) -> Reader:
        """Return the reader of a split's images.

        Args:
            split: One of the manifest's splits.
            size: Height and width that the images must have; None: ``data.size``, or the size of the first image.
        """

    def inspected(self, split: Split) -> Split:
        """The split with the properties of its images, which are read unless they are in the cache."""
        cache, workers = cache_folder(self.config.cache), self.config.workers
        return replace(split, inspection=inspect(self.reader(split, None), cache, workers, self.progress))


source: Registry[str, type[Source]] = Registry("data.name")


def open_source(config: DataConfig) -> Source:
    """Return the source that ``config.name`` chooses.

    Raises:
        InputError: If the layout is unknown, or a value of ``config`` is invalid.
    """
    return source[config.name](config)


def read_manifest(config: DataConfig, progress: bool = False, cut: bool = True) -> Manifest:
    """List the classes, labels and splits of the configured data set.

    Images are opened only if a validation split is cut from the training split: exact duplicates stay together. Their
    properties are cached.

    Args:
        config: The ``data`` group.
        progress: Show a progress bar while images are opened, if standard error is a terminal.
        cut: Cut validation images from the training split if the data has no such split, and with ``data.fold``.
            Without it no image is opened; the splits train and validation are then not those of a training.

    Raises:
        InputError: If the data is missing, does not follow the layout, or contradicts itself. The message lists all
            rows or folders that are wrong.
    """
    opened = open_source(config)
    opened.progress, opened.cut = progress and sys.stderr.isatty(), cut
    return opened.manifest()


def crops_of(config: DataConfig) -> Crops | None:
    """How the configuration crops images; None for whole images."""
    if not isinstance(config, ImageFilesConfig) or config.crop is None:
        return None
    return Crops(config.crop, config.crops, config.small)


class FileSource(Source):
    """A layout of images below ``data.root``. A subclass lists the files; this class does all else.

    Classes may be renamed or left out, and images be put into groups; see ``rules``. If the files have no validation
    split, a part of the training split is used for it, and no group is divided; see ``splits``. Images that are rows of
    a table instead of files need a ``reader`` of the subclass.
    """

    Config = ImageFilesConfig
    config: ImageFilesConfig

    def __init__(self, config: ImageFilesConfig) -> None:
        super().__init__(config)
        default = ImageFilesConfig()
        for key in ("crops", "small") if config.crop is None else ():
            if getattr(config, key) != getattr(default, key):
                value = override(f"data.{key}", getattr(config, key))
                raise InputError(f"{value}: is about crops of images; add data.crop=SIDE, or omit it.")
        for key in ("size", "resize") if config.crop is not None else ():
            if getattr(config, key) != getattr(default, key):
                value = override(f"data.{key}", getattr(config, key))
                raise InputError(f"{value}: data.crop={config.crop} uses native pixels of any size; give one of them.")

    @abstractmethod
    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """List the images; no file is opened.

        Args:
            root: The folder that contains the data; it exists.

        Returns:
            Class names, in label order; and the splits.

        Raises:
            InputError: If the files do not follow the layout.
        """

    @property
    def skips_bad_images(self) -> bool:
        """See ``Source``."""
        return self.config.on_error == "skip"

    def manifest(self) -> Manifest:
        """See ``Source``."""
        root = self._root()
        classes, listed = self.list_images(root)
        for split in listed:
            _check(split, classes)
        classes, listed = apply_rules(classes, listed, self.config, root)
        splits = {split.name: split for split in listed}
        if self.cut:
            splits = with_validation(splits, classes, self.config, self.inspected)
            splits = with_train_fraction(splits, self.config)
        standard = [name for name in STANDARD_SPLITS if name in splits]
        names = standard + sorted(splits.keys() - {*standard})
        return Manifest(self.config.name, classes, {name: splits[name] for name in names}, self.config.real)

    def reader(self, split: Split, size: tuple[int, int] | None) -> Reader:
        """See ``Source``."""
        assert split.paths is not None
        if size is None and self.config.size is not None:
            size = (self.config.size[0], self.config.size[1])
        return Files(split.paths, size, self.config.resize, self.config.reencode)

    def _root(self) -> Path:
        """The absolute path of ``data.root``; InputError if it is no folder."""
        if self.config.root in ("", "???"):
            raise InputError(f"data={self.config.name} needs the folder that contains the data: data.root=PATH.")
        root = Path(self.config.root).expanduser().absolute()
        if not root.exists():
            raise InputError(f"data.root={self.config.root} does not exist ({root}).")
        if not root.is_dir():
            raise InputError(
                f"data.root={self.config.root} is not a folder; expected the folder that contains the data."
            )
        return root


def _check(split: Split, classes: tuple[str, ...]) -> None:
    if len({*split.ids}) < len(split):
        duplicate = Counter(split.ids).most_common(1)[0][0]
        raise InputError(f"The split {split.name} has the image {duplicate!r} twice; remove one of them.")
    images = split.paths if split.rows is None else split.rows
    if split.labels.shape != (len(split),) or images is None or len(images) != len(split):
        raise ValueError(f"the split {split.name} needs a label and a path for each of its {len(split)} ids")
    if len(split) and not -1 <= split.labels.min() <= split.labels.max() < len(classes):
        raise ValueError(f"the split {split.name} has labels outside -1 to {len(classes) - 1}")
