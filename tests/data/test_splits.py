"""The validation split where the data has none: cut from train, or one of several folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.sample_files import content, images, read
from tests.data.sample_files import read_refusal as refusal


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    images(tmp_path / "train" / "gan", *(f"{n}.png" for n in range(40)))
    images(tmp_path / "train" / "real", *(f"{n}.png" for n in range(10)))
    return tmp_path


def test_the_cut_is_stratified_disjoint_complete_in_order_and_said(
    unsplit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read(unsplit, "folder", val_fraction=0.2)
    train, validation = manifest.split("train"), manifest.split("validation")
    assert np.bincount(validation.labels).tolist() == [8, 2]
    assert np.bincount(train.labels).tolist() == [32, 8]
    assert not set(train.ids) & set(validation.ids)
    assert len({*train.ids, *validation.ids}) == 50
    for split in (train, validation):
        assert split.paths is not None
        assert [path.relative_to(unsplit / "train").as_posix() for path in split.paths] == list(split.ids)
        assert list(split.ids) == sorted(split.ids)
        assert all((label == 0) == name.startswith("gan/") for name, label in content(split).items())
    assert "There is no split validation: 10 of 50 images of train become it" in caplog.text


def test_the_cut_follows_from_its_seed(unsplit: Path) -> None:
    first = read(unsplit, "folder").split("validation").ids
    assert read(unsplit, "folder").split("validation").ids == first
    assert read(unsplit, "folder", val_seed=1).split("validation").ids != first
    # The known answer keeps the cut the same across versions: results are compared on it.
    assert first == ("gan/1.png", "gan/12.png", "gan/27.png", "gan/38.png", "real/6.png")


def test_the_cut_leaves_each_split_an_image_of_each_class(tmp_path: Path) -> None:
    for label in ("a", "b"):
        images(tmp_path / "train" / label, "1.png", "2.png")
    for fraction in (0.01, 0.99):
        manifest = read(tmp_path, "folder", val_fraction=fraction)
        assert manifest.split("train").labels.tolist() == [0, 1]
        assert manifest.split("validation").labels.tolist() == [0, 1]


def test_the_cut_needs_two_images_of_each_class(unsplit: Path) -> None:
    images(unsplit / "train" / "alone", "1.png")
    assert "a class has one image, alone/1.png" in refusal(unsplit, "folder")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_the_cut_needs_a_share(unsplit: Path, fraction: float) -> None:
    assert f"data.val_fraction={fraction} is no share between 0 and 1" in refusal(
        unsplit, "folder", val_fraction=fraction
    )


# Folds


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    for split, counts in (("train", (16, 8)), ("validation", (4, 2)), ("test", (3, 0))):
        for label, count in zip(("gan", "real"), counts, strict=True):
            folder = tmp_path / split if split == "test" else tmp_path / split / label
            if count:
                images(folder, *(f"{n}.png" for n in range(count)))
    return tmp_path


def test_folds_are_stratified_disjoint_and_complete(pooled: Path) -> None:
    held: list[str] = []
    for fold in range(5):
        manifest = read(pooled, "folder", fold=fold, folds=5)
        train, validation = manifest.split("train"), manifest.split("validation")
        assert np.bincount(validation.labels).tolist() == [4, 2]
        assert np.bincount(train.labels).tolist() == [16, 8]
        assert not {*train.ids} & {*validation.ids}
        for split in (train, validation):
            assert split.paths is not None
            assert [path.relative_to(pooled).as_posix() for path in split.paths] == list(split.ids)
            assert [name.split("/")[1] == "real" for name in split.ids] == [label == 1 for label in split.labels]
        held += validation.ids
    assert len(held) == len({*held}) == 30
    assert {name.split("/")[0] for name in held} == {"train", "validation"}


def test_folds_follow_from_their_seed_and_leave_the_test_split_alone(pooled: Path) -> None:
    first = read(pooled, "folder", fold=0, folds=5)
    assert read(pooled, "folder", fold=0, folds=5).split("validation").ids == first.split("validation").ids
    assert read(pooled, "folder", fold=0, folds=5, val_seed=1).split("validation").ids != first.split("validation").ids
    assert first.split("test").ids == read(pooled, "folder").split("test").ids


@pytest.mark.parametrize(("fold", "folds"), [(5, 5), (-1, 5), (0, 1)])
def test_there_is_no_such_fold(pooled: Path, fold: int, folds: int) -> None:
    assert f"data.fold={fold}: expected 0 to {folds - 1}" in refusal(pooled, "folder", fold=fold, folds=folds)


def test_a_class_smaller_than_the_folds_is_refused(pooled: Path) -> None:
    assert "data.folds=11: a class has only 10 images" in refusal(pooled, "folder", fold=0, folds=11)


def test_folds_need_labels(tmp_path: Path) -> None:
    images(tmp_path / "test", "1.png")
    assert "data.fold=0: needs labelled images in train; the data has test" in refusal(tmp_path, "folder", fold=0)
