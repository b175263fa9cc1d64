"""The validation split of data that has none: a fraction of train, or one of several folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.config import FolderConfig
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.sources import read_manifest
from tests.data.sample_files import content, images, noise, read
from tests.data.sample_files import read_refusal as refusal


@pytest.fixture
def no_validation(tmp_path: Path) -> Path:
    images(tmp_path / "train" / "gan", *(f"{n}.png" for n in range(40)))
    images(tmp_path / "train" / "real", *(f"{n}.png" for n in range(10)))
    return tmp_path


def test_the_fraction_is_stratified_disjoint_complete_ordered_and_noted(no_validation: Path) -> None:
    manifest = read(no_validation, "folder", val_fraction=0.2)
    train, validation = manifest.split("train"), manifest.split("validation")
    assert np.bincount(validation.labels).tolist() == [8, 2]
    assert np.bincount(train.labels).tolist() == [32, 8]
    assert not set(train.ids) & set(validation.ids)
    assert len({*train.ids, *validation.ids}) == 50
    for split in (train, validation):
        assert split.paths is not None
        assert [path.relative_to(no_validation / "train").as_posix() for path in split.paths] == list(split.ids)
        assert list(split.ids) == sorted(split.ids)
        assert all((label == 0) == name.startswith("gan/") for name, label in content(split).items())
    assert "There is no split validation: 10 of 50 images of train are used for it" in validation.note
    assert not train.note


def test_the_fraction_depends_on_its_seed(no_validation: Path) -> None:
    first = read(no_validation, "folder").split("validation").ids
    assert read(no_validation, "folder").split("validation").ids == first
    assert read(no_validation, "folder", val_seed=1).split("validation").ids != first
    # The images must be the same in all versions, since results are compared on them.
    assert first == ("gan/1.png", "gan/12.png", "gan/27.png", "gan/38.png", "real/6.png")


def test_both_splits_get_an_image_of_each_class(tmp_path: Path) -> None:
    for label in ("a", "b"):
        images(tmp_path / "train" / label, "1.png", "2.png")
    for fraction in (0.01, 0.99):
        manifest = read(tmp_path, "folder", val_fraction=fraction)
        assert manifest.split("train").labels.tolist() == [0, 1]
        assert manifest.split("validation").labels.tolist() == [0, 1]


def test_the_fraction_needs_two_images_of_each_class(no_validation: Path) -> None:
    images(no_validation / "train" / "single", "1.png")
    assert "a class has one image, single/1.png" in refusal(no_validation, "folder")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(no_validation: Path, fraction: float) -> None:
    assert f"data.val_fraction={fraction:g}: expected a share between 0 and 1" in refusal(
        no_validation, "folder", val_fraction=fraction
    )


# Folds


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for split, counts in (("train", (16, 8)), ("validation", (4, 2)), ("test", (3, 0))):
        for label, count in zip(("gan", "real"), counts, strict=True):
            folder = tmp_path / split if split == "test" else tmp_path / split / label
            if count:
                images(folder, *(f"{n}.png" for n in range(count)))
    return tmp_path


def files(split: Split) -> list[Path]:
    assert split.paths is not None
    return [*split.paths]


@pytest.mark.parametrize(("fold_of", "folds"), [("train", 4), ("all", 5)])
def test_folds_are_stratified_disjoint_and_complete(labelled: Path, fold_of: str, folds: int) -> None:
    held_out: list[Path] = []
    for fold in range(folds):
        manifest = read(labelled, "folder", fold=fold, folds=folds, fold_of=fold_of)
        train, validation = manifest.split("train"), manifest.split("validation")
        assert np.bincount(validation.labels).tolist() == [4, 2]
        assert np.bincount(train.labels).tolist() == [4 * (folds - 1), 2 * (folds - 1)]
        assert not {*train.ids} & {*validation.ids}
        assert not {*files(train)} & {*files(validation)}
        for split in (train, validation):
            assert [path.parent.name == "real" for path in files(split)] == [label == 1 for label in split.labels]
            parent = labelled / "train" if fold_of == "train" else labelled
            assert [path.relative_to(parent).as_posix() for path in files(split)] == list(split.ids)
        held_out += files(validation)
    assert len(held_out) == len({*held_out}) == 6 * folds
    assert {path.parents[1].name for path in held_out} == {"train"} | ({"validation"} if fold_of == "all" else set())


def test_folds_of_train_do_not_contain_the_validation_split(labelled: Path) -> None:
    validation = {*files(read(labelled, "folder").split("validation"))}
    for fold in range(5):
        folded = read(labelled, "folder", fold=fold, folds=5)
        assert not validation & {path for name in ("train", "validation") for path in files(folded.split(name))}


def test_folds_of_train_ignore_the_validation_split(tmp_path: Path) -> None:
    for label in ("gan", "real"):
        images(tmp_path / "train" / label, "1.png", "2.png")
        images(tmp_path / "validation" / label, "3.png", "4.png")
    (tmp_path / "train").rename(tmp_path / "away")
    assert "data.fold=0: needs labelled images in train" in refusal(tmp_path, "folder", fold=0, folds=2)
    (tmp_path / "away").rename(tmp_path / "train")
    (tmp_path / "validation").rename(tmp_path / "away")
    images(tmp_path / "validation", "unlabelled.png")
    assert read(tmp_path, "folder", fold=0, folds=2).split("validation").labels.tolist() == [0, 1]


def test_folds_of_train_and_validation_are_the_same_in_all_versions(labelled: Path) -> None:
    manifest = read(labelled, "folder", fold=1, folds=5, fold_of="all")
    assert manifest.split("validation").ids == (
        "train/gan/13.png",
        "train/gan/14.png",
        "train/gan/6.png",
        "train/real/0.png",
        "validation/gan/1.png",
        "validation/real/1.png",
    )
    assert manifest.sha256() == "16c5c8e1acd7004a14020d869cc4ed674652beabbdb982d7aad1a2b252798a3f"


def test_folds_depend_on_their_seed_and_do_not_change_the_test_split(labelled: Path) -> None:
    first = read(labelled, "folder", fold=0, folds=5)
    assert read(labelled, "folder", fold=0, folds=5).split("validation").ids == first.split("validation").ids
    assert (
        read(labelled, "folder", fold=0, folds=5, val_seed=1).split("validation").ids != first.split("validation").ids
    )
    assert first.split("test").ids == read(labelled, "folder").split("test").ids


@pytest.mark.parametrize("fold", [None, 0])
def test_an_unknown_fold_of_is_refused(labelled: Path, fold: int | None) -> None:
    message = refusal(labelled, "folder", fold=fold, fold_of="validation")
    assert message == "data.fold_of=validation: expected train or all."


@pytest.mark.parametrize(
    ("fold", "folds", "message"),
    [
        (5, 5, "data.fold=5: expected 0 to 4, since data.folds=5"),
        (-1, 5, "data.fold=-1: expected 0 or more"),
        (0, 1, "data.folds=1: expected 2 or more"),
    ],
)
def test_a_fold_out_of_range_is_refused(labelled: Path, fold: int, folds: int, message: str) -> None:
    assert message in refusal(labelled, "folder", fold=fold, folds=folds)


def test_a_class_smaller_than_the_folds_is_refused(labelled: Path) -> None:
    assert "data.folds=11: a class has only 8 images" in refusal(labelled, "folder", fold=0, folds=11)
    assert "a class has only 10 images" in refusal(labelled, "folder", fold=0, folds=11, fold_of="all")


def test_folds_need_labels(tmp_path: Path) -> None:
    images(tmp_path / "test", "1.png")
    assert "data.fold=0: needs labelled images in train; the data has test" in refusal(tmp_path, "folder", fold=0)


def test_smaller_shares_of_the_training_images_are_parts_of_larger_ones(no_validation: Path) -> None:
    whole = read(no_validation, "folder", val_fraction=0.2)
    kept: list[set[str]] = []
    for share, counts in ((0.27, [9, 2]), (0.5, [16, 4]), (0.01, [1, 1]), (1.0, [32, 8])):
        manifest = read(no_validation, "folder", val_fraction=0.2, train_fraction=share)
        train = manifest.split("train")
        assert np.bincount(train.labels).tolist() == counts
        assert manifest.split("validation").ids == whole.split("validation").ids
        assert list(train.ids) == sorted(train.ids)
        assert all((label == 0) == name.startswith("gan/") for name, label in content(train).items())
        kept.append(set(train.ids))
    quarter, half, least, everything = kept
    assert least < quarter < half < everything == set(whole.split("train").ids)


def test_a_share_of_the_training_images_with_folds(no_validation: Path) -> None:
    manifest = read(no_validation, "folder", fold=1, folds=5, fold_of="train", train_fraction=0.5)
    assert np.bincount(manifest.split("validation").labels).tolist() == [8, 2]
    assert np.bincount(manifest.split("train").labels).tolist() == [16, 4]


@pytest.mark.parametrize("options", [{"val_fraction": 0.25}, {"fold": 0, "folds": 4}])
def test_images_that_are_too_small_are_no_part_of_the_shares(tmp_path: Path, options: dict[str, Any]) -> None:
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(24):
            side = 40 if number % 3 == 0 else 20
            path = tmp_path / "data" / label / f"{number}.png"
            Image.fromarray(noise(100 * ord(label) + number, side, side)).save(path)
    shared: dict[str, Any] = {"root": str(tmp_path / "data"), "cache": str(tmp_path / "cache"), "crop": 32}
    manifest = read_manifest(FolderConfig(**shared, small="skip", **options))
    large = [image_id for image_id in manifest.split("validation").ids if int(image_id[2:-4]) % 3 == 0]
    assert [*manifest.split("validation").ids] == large
    assert [sum(one.startswith(label) for one in large) for label in "ab"] == [2, 2]
    assert len(manifest.split("train")) == 44
    assert len(read_manifest(FolderConfig(**shared, small="pad", **options)).split("validation")) == 12
