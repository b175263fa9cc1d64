"""``data=folder``: images in ``<split>/<class>/``, or in ``<class>/`` without splits.

- A split folder that contains images directly is an unlabelled split.
- Two or more folders that contain images directly are classes of the split ``train``, unless a folder has the name of a
  split, or images only in its own folders.
- Images directly in ``data.root`` are the unlabelled split ``test``. Then only the folders ``train``, ``validation``
  and ``test`` are read as splits.
- ``val``, ``valid`` and ``dev`` are aliases of ``validation``, ``training`` of ``train``, and ``testing`` of ``test``.
  Upper and lower case are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepfake_cls.config import FolderConfig
from deepfake_cls.data.listing import Folder, entries, indented, scan
from deepfake_cls.data.manifest import STANDARD_SPLITS, Split, split_name
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)


@source("folder")
class FolderSource(FileSource):
    """One folder for each split, with one folder for each class in it."""

    Config = FolderConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See ``FileSource``."""
        top = scan(root)
        standard = [name for name in top.folders if split_name(name) in STANDARD_SPLITS]
        split_folders = [_SplitFolder(root / name) for name in (standard if top.images else top.folders)]
        if not standard and not top.images and _are_classes(split_folders):
            return _without_splits(root, top, {folder.path.name: folder.top for folder in split_folders})
        class_folders = [each for folder in split_folders for each in folder.class_folders.values()]
        _log_ignored(root, [top, *(folder.top for folder in split_folders), *class_folders], class_folders)
        labelled = [folder for folder in split_folders if folder.labelled]
        train = [folder for folder in labelled if folder.split == "train"]
        # Classes that are left out or renamed need not be in train.
        changed = {*self.config.exclude, *self.config.class_map}
        known = {name for folder in train or labelled for name in folder.class_folders}
        known |= {name for folder in labelled for name in folder.class_folders if name in changed}
        classes = tuple(sorted(known))
        problems = [problem for folder in split_folders for problem in folder.problems(classes)]
        splits = {"test": _make_split("test", root, {"": top}, ())} if top.images else {}
        for folder in split_folders:
            if folder.split in splits:
                problems.append(f"{folder.path} is the second folder of the split {folder.split}; move one away")
            elif folder.labelled or folder.top.images:
                splits[folder.split] = _make_split(folder.split, folder.path, folder.image_folders(), classes)
        if problems:
            raise InputError(f"{root} does not follow the layout data=folder:{indented(problems)}")
        if not splits:
            raise InputError(
                f"{root} does not look like data=folder: there are no images in <split>/<class>/, in <class>/, in "
                f"<split>/ or in the folder itself.{_level_hint(root, top)}{_unibuc_hint(root)}"
            )
        return classes, list(splits.values())


class _SplitFolder:
    """The folder of one split, and the folders of its classes."""

    def __init__(self, path: Path) -> None:
        self.path, self.split = path, split_name(path.name)
        self.top = scan(path)
        self.class_folders = {name: scan(path / name) for name in self.top.folders}
        self.labelled = any(folder.images for folder in self.class_folders.values())

    def image_folders(self) -> dict[str, Folder]:
        return self.class_folders if self.labelled else {"": self.top}

    def problems(self, classes: tuple[str, ...]) -> Iterator[str]:
        if self.top.images and self.labelled:
            yield f"{self.path} contains images and class folders; keep one of them (class folders give labels)"
        elif self.top.images and self.split == "train":
            hint = _unibuc_hint(self.path.parent)
            yield f"{self.path} contains images directly; training needs train/<class>/*.{hint}"
        elif not self.top.images and not self.labelled and self.split in STANDARD_SPLITS:
            yield f"{self.path} is an empty split: it contains no images, and neither do its folders"
        for name, folder in self.class_folders.items() if self.labelled else ():
            if not folder.images:
                yield f"{self.path / name} is an empty class: it contains no images directly"
            if name not in classes:
                yield (
                    f"{self.path / name} is a class that train does not have; train has {', '.join(classes)};"
                    f" data.exclude=[{name}] leaves it out"
                )


def _are_classes(folders: list[_SplitFolder]) -> bool:
    """Whether folders without the name of a split are classes: two or more contain images, none only class folders."""
    only_classes = any(folder.labelled and not folder.top.images for folder in folders)
    return sum(bool(folder.top.images) for folder in folders) > 1 and not only_classes


def _without_splits(root: Path, top: Folder, classes: dict[str, Folder]) -> tuple[tuple[str, ...], list[Split]]:
    """One class for each folder; all images are the split train."""
    empty = [
        f"{root / name} is an empty class: it contains no images directly"
        for name in classes
        if not classes[name].images
    ]
    if empty:
        raise InputError(f"{root} does not follow the layout data=folder:{indented(empty)}")
    _log_ignored(root, [top, *classes.values()], [*classes.values()])
    names = tuple(sorted(classes))
    split = _make_split("train", root, {name: classes[name] for name in names}, names)
    note = f"{root} has a folder for each class and none for splits: its {len(split)} images are the split train."
    if (name := split_name(root.name)) in STANDARD_SPLITS:
        note += f" If it is the split {name} of a data set, give the folder above: data.root={root.parent}."
    return names, [replace(split, note=note)]


def _make_split(name: str, path: Path, folders: dict[str, Folder], classes: tuple[str, ...]) -> Split:
    """Make a split from the folders of its classes; a folder that is not in ``classes`` has the label −1."""
    ids, labels = [], []
    for class_name, folder in folders.items():
        ids += [f"{class_name}/{image}" if class_name else image for image in folder.images]
        labels += [classes.index(class_name) if class_name in classes else -1] * len(folder.images)
    return Split(name, tuple(ids), np.array(labels, np.int64), tuple(path / image_id for image_id in ids))


def _log_ignored(root: Path, folders: list[Folder], class_folders: list[Folder]) -> None:
    ignored = [name for folder in folders for name in folder.others]
    ignored += [f"{name}/" for folder in class_folders for name in folder.folders]
    if ignored:
        text = "%s: ignored %s (hidden, without the suffix of an image, or too deep), such as %s"
        _log.info(text, root, entries(len(ignored)), ignored[0])


def _level_hint(root: Path, top: Folder) -> str:
    """Name the folder that the user probably meant: one below the root that has a folder for a split."""
    below = [
        name for name in top.folders if any(split_name(inner) in STANDARD_SPLITS for inner in scan(root / name).folders)
    ]
    return f" {below[0]}/ in it looks like it: data.root={root / below[0]}." if below else ""


def _unibuc_hint(root: Path) -> str:
    return " It looks like data=unibuc." if (root / "train.csv").is_file() else ""
