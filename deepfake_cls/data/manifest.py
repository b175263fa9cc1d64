"""Which images there are, with labels and splits: a layout in, one `Manifest` out. No image file is opened.

Layouts:

- ``synthetic``: images are drawn, not read; the labels of ``test`` are withheld.
- ``unibuc``: ``train.csv`` and ``validation.csv`` (``image_id,label``), ``test.csv`` (``image_id``), and
  beside each a folder of its name with the images, found by id, whatever their suffix. All but the first are
  optional.
- ``folder``: ``<split>/<class>/*``. A split whose folder holds images directly has no labels. Images directly
  in ``data.root`` are the unlabelled split ``test``; beside them only these three splits are looked for.
  ``val``, ``valid`` and ``dev`` are read as ``validation``.

Where there is ``train`` and no ``validation``, a stratified part of ``train`` becomes it. With ``data.fold`` the two
are put together and cut again, so that each fold holds out other images.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepfake_cls.config import ImageFilesConfig, SyntheticConfig
from deepfake_cls.data.listing import Folder, Table, label_problems, listing, read_table, scan
from deepfake_cls.errors import InputError

_log = logging.getLogger(__name__)
_ORDER = ("train", "validation", "test")
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}


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
        name: The layout: ``synthetic``, ``unibuc`` or ``folder``.
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


def read_manifest(config: SyntheticConfig | ImageFilesConfig) -> Manifest:
    """Find out which images there are.

    Args:
        config: The ``data`` group.

    Returns:
        The manifest.

    Raises:
        InputError: The data is not there, does not follow the layout, or contradicts itself; all rows or
            folders that are wrong are named together.
    """
    if isinstance(config, SyntheticConfig):
        return _synthetic(config)
    root = _root(config)
    if config.name == "unibuc":
        classes, splits = _unibuc(root, config)
    elif config.name == "folder":
        classes, splits = _folder(root)
    else:
        raise InputError(f"data.name={config.name!r} is no layout; there are synthetic, unibuc and folder.")
    if config.fold is not None:
        splits.update(_cut_fold(splits, config.fold, config))
    elif "train" in splits and "validation" not in splits:
        splits.update(_cut_validation(splits["train"], config))
    ranked = sorted(splits, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return Manifest(config.name, classes, {name: splits[name] for name in ranked})


def _synthetic(config: SyntheticConfig) -> Manifest:
    from deepfake_cls.data import synthetic  # here, so that image files need no scipy

    splits = {}
    sizes = {"train": config.train_size, "validation": config.validation_size, "test": config.test_size}
    for name, size in sizes.items():
        least = 0 if name == "test" else len(synthetic.CLASSES)
        if size < least:
            raise InputError(f"data.{name}_size={size} leaves a class without an image; give at least {least}.")
        if size == 0:
            continue
        labels = [-1 if name == "test" else synthetic.label_of(index) for index in range(size)]
        ids = tuple(f"{name}-{index:06d}" for index in range(size))
        splits[name] = Split(name, ids, np.array(labels, np.int64), None)
    return Manifest(config.name, tuple(synthetic.CLASSES), splits)


def _root(config: ImageFilesConfig) -> Path:
    if config.root in ("", "???"):
        raise InputError(f"data={config.name} needs the folder that holds the data: data.root=PATH.")
    root = Path(config.root).expanduser().absolute()
    if not root.exists():
        raise InputError(f"data.root={config.root} does not exist ({root}).")
    if not root.is_dir():
        raise InputError(f"data.root={config.root} is not a folder; give the folder that holds the data.")
    return root


# data=unibuc


def _unibuc(root: Path, config: ImageFilesConfig) -> tuple[tuple[str, ...], dict[str, Split]]:
    if not (root / "train.csv").is_file():
        found = scan(root)
        hint = " It looks like data=folder." if found.images or "train" in found.folders else ""
        raise InputError(
            f"{root} does not look like data=unibuc: there is no train.csv in it (image_id,label), with the "
            f"images in {root / 'train'}.{hint}"
        )
    tables: dict[str, Table] = {}
    for name in _ORDER:
        path, folder = root / f"{name}.csv", root / name
        if not path.is_file():
            continue
        if not folder.is_dir() and name == "test":
            _log.warning("%s is there, its images in %s are not: the split test is left out", path, folder)
            continue
        if not folder.is_dir():
            raise InputError(f"{path} is there, but not the folder of its images, {folder}.")
        tables[name] = read_table(path, folder, labelled=name != "test", allow_missing=config.on_error == "skip")
    problems = [problem for table in tables.values() for problem in table.problems]
    problems = problems or label_problems(tables["train"], tables.get("validation"))
    if problems:
        raise InputError(f"{root} does not follow the layout data=unibuc:{listing(problems)}")
    splits = {
        name: Split(name, tuple(table.ids), np.array(table.labels, np.int64), tuple(table.paths))
        for name, table in tables.items()
    }
    return tuple(str(label) for label in range(max(tables["train"].labels) + 1)), splits


# data=folder


def _folder(root: Path) -> tuple[tuple[str, ...], dict[str, Split]]:
    top = scan(root)
    named = [name for name in top.folders if _ALIASES.get(name, name) in _ORDER]
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
    return classes, splits


def _problems(
    root: Path, name: str, found: Folder, inner: dict[str, Folder], classes: tuple[str, ...]
) -> Iterator[str]:
    """What is wrong with the folder of one split."""
    labelled = any(folder.images for folder in inner.values())
    if found.images and labelled:
        yield f"{root / name} holds images and folders of images; keep one: with class folders it has labels"
    elif found.images and name == "train":
        yield f"{root / name} holds images directly; training needs train/<class>/*.{_unibuc_hint(root)}"
    elif not found.images and not labelled and _ALIASES.get(name, name) in _ORDER:
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


# Validation where there is none


def _cut_validation(train: Split, config: ImageFilesConfig) -> dict[str, Split]:
    """Share each class between train and validation, drawn by seed and ids alone."""
    if not 0 < config.val_fraction < 1:
        raise InputError(f"data.val_fraction={config.val_fraction} is no share between 0 and 1.")
    cut = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        rows = np.flatnonzero(train.labels == label).tolist()
        if len(rows) < 2:
            raise InputError(
                f"There is no split validation, and none can be cut from train: a class has one image, "
                f"{train.ids[rows[0]]}. Add images, or a validation split."
            )
        rows.sort(key=lambda row: _draw(config.val_seed, train.ids[row]))
        cut[rows[: min(max(1, round(config.val_fraction * len(rows))), len(rows) - 1)]] = True
    _log.warning(
        "There is no split validation: %d of %d images of train become it (val_fraction=%g, val_seed=%d)",
        cut.sum(), len(train), config.val_fraction, config.val_seed,
    )  # fmt: skip
    return {"train": _rows(train, "train", ~cut), "validation": _rows(train, "validation", cut)}


def _cut_fold(splits: dict[str, Split], fold: int, config: ImageFilesConfig) -> dict[str, Split]:
    """Deal train and validation out to stratified folds, drawn by seed and ids alone, and hold one of them out."""
    if config.folds < 2 or not 0 <= fold < config.folds:
        raise InputError(f"data.fold={fold}: expected 0 to {config.folds - 1}; data.folds={config.folds}, 2 or more.")
    parts = [splits[name] for name in ("train", "validation") if name in splits]
    if not parts or any(part.paths is None or (part.labels < 0).any() for part in parts):
        raise InputError(f"data.fold={fold}: needs labelled images in train; the data has {', '.join(splits)}.")
    pool = Split(
        "train",
        tuple(f"{part.name}/{image_id}" for part in parts for image_id in part.ids),  # both may use an id
        np.concatenate([part.labels for part in parts]),
        tuple(path for part in parts for path in part.paths or ()),
    )
    held = np.zeros(len(pool), bool)
    for label in np.unique(pool.labels):
        rows = np.flatnonzero(pool.labels == label).tolist()
        if len(rows) < config.folds:
            raise InputError(
                f"data.folds={config.folds}: a class has only {len(rows)} images, such as {pool.ids[rows[0]]}; give"
                " fewer folds."
            )
        rows.sort(key=lambda row: _draw(config.val_seed, pool.ids[row]))
        held[rows[fold :: config.folds]] = True
    return {"train": _rows(pool, "train", ~held), "validation": _rows(pool, "validation", held)}


def _draw(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{image_id}".encode(errors="surrogateescape")).digest()


def _rows(split: Split, name: str, chosen: NDArray[np.bool_]) -> Split:
    ids = tuple(itertools.compress(split.ids, chosen))
    paths = None if split.paths is None else tuple(itertools.compress(split.paths, chosen))
    return Split(name, ids, split.labels[chosen], paths)
