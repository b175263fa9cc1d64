"""Typed configuration of the ``data`` group: a schema for each layout."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from deepfake_cls.schema import Rule, number, one_of


@dataclass
class DataConfig:
    """Keys of every data set.

    Attributes:
        name: The layout: synthetic, folder, unibuc, pattern, table or hf; data=NAME sets it.
        cache: Folder of decoded images; null is the user's cache folder.
        workers: Threads that decode images, or processes that draw them; null is one for each core.
        verify: Check the cached images against their SHA-256.
    """

    name: str = "synthetic"
    cache: str | None = None
    workers: int | None = number(None, least=1, expected="1 or more, or null for one a core")
    verify: bool = False


@dataclass
class SyntheticConfig(DataConfig):
    """The embedded data set (``data=synthetic``).

    Attributes:
        seed: Seed of content and traces; with class and index it determines an image.
        train_size: Images in the training split, of all classes.
        validation_size: Images in the validation split.
        test_size: Images in the test split, whose labels are withheld.
        strength: Factor of every trace; 0 makes the classes equal.
        alpha: Alpha channel: none, constant, mask or informative.
        image_size: Side of an image in pixels, 16 to 100; smaller images are the middle of larger ones.
    """

    seed: int = number(0, least=0)
    train_size: int = 2500
    validation_size: int = 1000
    test_size: int = 250
    strength: float = number(1.0, least=0)
    alpha: str = one_of("none", "constant", "mask", "informative")
    image_size: int = number(100, least=16, most=100, expected="16 to 100")


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups > 0
    except re.error:
        return False


_COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}
_NAMES = Rule(
    lambda names: all(isinstance(name, str | int) for name in names.values()), "a mapping such as {nature: real}"
)


@dataclass
class ImageFilesConfig(DataConfig):
    """Images that others made: files on disk, or rows of a data set on disk.

    Attributes:
        root: The folder that contains the data.
        size: Height and width of an image; null takes those of the first image.
        resize: Resize images of another size, which changes the traces; false refuses them.
        on_error: raise refuses bad files; skip lists and omits them.
        train_fraction: Share of the training images of each class that is used; smaller shares are within larger ones.
        val_fraction: Share of the training split that becomes the validation split if there is none.
        val_seed: Seed of that split, of the folds, and of the share of the training images.
        fold: Hold out this fold, from 0, as the validation split; null keeps the splits. fold=${seed} gives each seed
            its own validation images.
        fold_of: The images that are split into folds. train: the training split; the data's own validation split is not
            used, so that a recipe tuned on folds has never seen it. all: training and validation split.
        folds: Number of folds.
        group_pattern: Regular expression that is searched in the path below root; its first group names the image's
            group, such as a prompt. Images of one group are never on both sides of a cut. null: each image is a group,
            unless the layout has groups.
        group_table: CSV table with the columns path and group, instead of group_pattern.
        class_map: New name of a class, such as {nature: real}; several classes may get one name.
        exclude: Names of classes that are left out, as in the data or as class_map renames them.
        min_class: Fewest training images of a class, before any of them are held out.
        on_small_class: raise refuses classes with fewer images; exclude leaves them out.
        real: Name of the class of images that no generator made; null if there is none.
        crop: Side of the square crops of native pixels that are used instead of whole images; null uses whole images.
        crops: Crops of an image that are scored; its probabilities are their mean.
        small: Images smaller than a crop. raise refuses them; skip omits them; pad extends them by reflection.
        reencode: Re-encode every image before use, as in jpeg:90 or webp:80; null uses the pixels as they are.
    """

    root: str = "???"
    size: list[int] | None = field(
        default=None,
        metadata={
            "rule": Rule(
                lambda size: len(size) == 2 and min(size) >= 1, "height and width, integers from 1 up, as in [100,100]"
            )
        },
    )
    resize: bool = False
    on_error: str = one_of("raise", "skip")
    train_fraction: float = number(1.0, above=0, most=1, expected="a share above 0, up to 1")
    val_fraction: float = number(0.1, above=0, below=1, expected="a share between 0 and 1")
    val_seed: int = 0
    fold: int | None = number(None, least=0)
    fold_of: str = one_of("train", "all")
    folds: int = number(10, least=2)
    group_pattern: str | None = field(
        default=None,
        metadata={"rule": Rule(_has_group, "a regular expression with a group in brackets, as in ([^/]+)-[0-9]+")},
    )
    group_table: str | None = None
    class_map: dict[Any, Any] = field(default_factory=dict, metadata={"rule": _NAMES})
    exclude: list[str] = field(default_factory=list)
    min_class: int = number(1, least=1)
    on_small_class: str = one_of("raise", "exclude")
    real: str | None = None
    crop: int | None = number(None, least=16, expected="16 or more pixels, or null for whole images")
    crops: int = number(4, least=1, most=256)
    small: str = one_of("raise", "skip", "pad")
    reencode: str | None = field(
        default=None,
        metadata={
            "rule": Rule(
                lambda text: bool(re.fullmatch(r"(jpeg|webp):([1-9]\d?|100)", text)),
                "jpeg or webp and a quality from 1 to 100, such as jpeg:90",
            )
        },
    )

    def __post_init__(self) -> None:
        # Hydra reads the name 0 as a number; the run key needs one type of keys.
        self.class_map = {str(old): new for old, new in self.class_map.items()}


@dataclass
class UnibucConfig(ImageFilesConfig):
    """CSV tables and a folder of images for each split (``data=unibuc``)."""

    name: str = "unibuc"


@dataclass
class FolderConfig(ImageFilesConfig):
    """``split/class/*`` (``data=folder``)."""

    name: str = "folder"


@dataclass
class PatternConfig(ImageFilesConfig):
    """Folders and file names that a template describes (``data=pattern``).

    Attributes:
        pattern: Template of the paths below root, with {split}, {class}, {group}, *, ** and [0-9], as in
            "{split}/{class}/**"; | separates templates, of which the first that matches a path counts.
        split_map: Split that a {split} means, such as {holdout: validation}.
    """

    name: str = "pattern"
    pattern: str = "???"
    split_map: dict[Any, Any] = field(default_factory=dict, metadata={"rule": _NAMES})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.split_map = {str(old): new for old, new in self.split_map.items()}


@dataclass
class TableConfig(ImageFilesConfig):
    """A table of image files (``data=table``).

    Attributes:
        table: The table: CSV, TSV, a JSON list or JSON Lines; relative to the current folder, or else to root.
        columns: Columns of path, label, split and group. The default columns of split and group may be absent; null is
            no column.
    """

    name: str = "table"
    table: str = "???"
    columns: dict[Any, Any] = field(
        default_factory=lambda: dict(_COLUMNS),
        metadata={
            "rule": Rule(lambda names: {*names} <= {*_COLUMNS}, f"a mapping with the keys {', '.join(_COLUMNS)}")
        },
    )


@dataclass
class HfConfig(ImageFilesConfig):
    """A Hugging Face data set on disk (``data=hf``), read by the package datasets.

    Attributes:
        label: Column of the label; null if there is none.
        image: Column of the image.
        group: Column of the group; null if there is none.
    """

    name: str = "hf"
    label: str | None = "label"
    image: str = "image"
    group: str | None = None
