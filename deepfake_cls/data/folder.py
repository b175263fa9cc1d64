"""``data=folder``: ``<split>/<class>/*``.

A split whose folder holds images directly has no labels. Images directly in ``data.root`` are the unlabelled split
``test``; beside them only ``train``, ``validation`` and ``test`` are looked for. ``val``, ``valid`` and ``dev`` are
other names of ``validation``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepfake_cls.config import FolderConfig
from deepfake_cls.data.listing import Folder, listing, scan
from deepfake_cls.data.manifest import STANDARD_SPLITS, Split
from deepfake_cls.data.sources import FileSource, source
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}


@source("folder")
class FolderSource(FileSource):
    """A folder for each split and class."""

    Config = FolderConfig

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        """See `FileSource`."""
        top = scan(root)
        named = [name for name in top.folders if _ALIASES.get(name, name) in STANDARD_SPLITS]
        # Beside images in the root itself, a folder of any other name is the user's own affair.
        folders = {name: scan(root / name) for name in (named if top.images else top.folders)}
        inner = {name: {label: scan(root / name / label) for label in folders[name].folders} for name in folders}
        _say_ignored(root, [top, *folders.values()], [found for name in inner for found in inner[name].values()])
        labelled = [name for name in folders if any(found.images for found in inner[name].values())]
        naming = ["train"] if "train" in labelled else labelled
        classes = tuple(sorted({label for name in naming for label in inner[name]}))
        problems = [p for name in folders for p in _problems(root, name, folders[name], inner[name], classes)]
        splits = {"test": _collect("test", root, {"": top}, ())} if top.images else {}
        for name, found in folders.items():
            split = _ALIASES.get(name, name)
            if split in splits:
                problems.append(f"{root / name} is the second of two that hold the split {split}; move one away")
            elif name in labelled:
                splits[split] = _collect(split, root / name, inner[name], classes)
            elif found.images:
                splits[split] = _collect(split, root / name, {"": found}, ())
        if problems:
            raise InputError(f"{root} does not follow the layout data=folder:{listing(problems)}")
        if not splits:
            raise InputError(
                f"{root} does not look like data=folder: there are no images in <split>/<class>/, in <split>/ or "
                f"in the folder itself.{_unibuc_hint(root)}"
            )
        return classes, list(splits.values())


def _problems(
    root: Path, name: str, found: Folder, inner: dict[str, Folder], classes: tuple[str, ...]
) -> Iterator[str]:
    """What is wrong with the folder of one split."""
    labelled = any(folder.images for folder in inner.values())
    if found.images and labelled:
        yield f"{root / name} holds images and folders of images; keep one: with class folders it has labels"
    elif found.images and name == "train":
        yield f"{root / name} holds images directly; training needs train/<class>/*.{_unibuc_hint(root)}"
    elif not found.images and not labelled and _ALIASES.get(name, name) in STANDARD_SPLITS:
        yield f"{root / name} is an empty split: no images in it, or in folders in it"
    for label in inner if labelled else ():
        if not inner[label].images:
            yield f"{root / name / label} is an empty class: no images directly in it"
        if label not in classes:
            yield f"{root / name / label} is a class that train does not have; it has {', '.join(classes)}"


def _collect(name: str, folder: Path, inner: dict[str, Folder], classes: tuple[str, ...]) -> Split:
    """One split from the folders of its classes, sorted; a class that is not in ``classes`` is unknown."""
    ids, labels = [], []
    for label, found in inner.items():
        ids += [f"{label}/{image}" if label else image for image in found.images]
        labels += [classes.index(label) if label in classes else -1] * len(found.images)
    return Split(name, tuple(ids), np.array(labels, np.int64), tuple(folder / image_id for image_id in ids))


def _say_ignored(root: Path, outer: list[Folder], inner: list[Folder]) -> None:
    ignored = [name for found in outer + inner for name in found.others]
    ignored += [f"{name}/" for found in inner for name in found.folders]
    if ignored:
        text = "%s: ignored %d entries (hidden, no image, too deep), such as %s"
        _log.info(text, root, len(ignored), ignored[0])


def _unibuc_hint(root: Path) -> str:
    return " It looks like data=unibuc." if (root / "train.csv").is_file() else ""
