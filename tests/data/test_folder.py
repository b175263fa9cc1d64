"""``data=folder``: classes and splits of folders, and the message for each kind of wrong folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls.errors import InputError
from tests.data.sample_files import content, images, read
from tests.data.sample_files import read_refusal as refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, each with two training images and one validation image."""
    for label in ("gan", "real"):
        images(tmp_path / "train" / label, "2.png", "1.jpg")
        images(tmp_path / "validation" / label, "3.webp")
    return tmp_path


def test_folder_sorts_classes_and_ids(folder: Path) -> None:
    manifest = read(folder, "folder")
    assert manifest.classes == ("gan", "real")
    assert list(manifest.splits) == ["train", "validation"]
    assert list(content(manifest.split("train")).items()) == [
        ("gan/1.jpg", 0),
        ("gan/2.png", 0),
        ("real/1.jpg", 1),
        ("real/2.png", 1),
    ]
    paths = manifest.split("validation").paths
    assert paths == (folder / "validation/gan/3.webp", folder / "validation/real/3.webp")


def test_folder_reads_a_split_of_images_as_unlabelled(folder: Path) -> None:
    images(folder / "test", "b.png", "a.png")
    images(folder / "wild", "c.png")
    manifest = read(folder, "folder")
    assert list(manifest.splits) == ["train", "validation", "test", "wild"]
    assert content(manifest.split("test")) == {"a.png": -1, "b.png": -1}


def test_folder_reads_images_in_the_root_as_test_and_ignores_other_folders(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.png")
    images(tmp_path / "holiday", "x.jpg")
    images(tmp_path / "holiday" / "raw", "x.jpg")
    manifest = read(tmp_path, "folder")
    assert manifest.classes == ()
    assert list(manifest.splits) == ["test"]
    assert content(manifest.split("test")) == {"a.jpg": -1, "b.png": -1}
    assert manifest.split("test").paths == (tmp_path / "a.jpg", tmp_path / "b.png")


def test_folder_reads_labelled_splits_without_train(tmp_path: Path) -> None:
    images(tmp_path / "test" / "real", "a.png")
    images(tmp_path / "test" / "gan", "a.png")
    manifest = read(tmp_path, "folder")
    assert manifest.classes == ("gan", "real")
    assert content(manifest.split("test")) == {"gan/a.png": 0, "real/a.png": 1}


def test_folder_accepts_a_split_with_some_of_the_classes(folder: Path) -> None:
    images(folder / "test" / "real", "a.png")
    assert content(read(folder, "folder").split("test")) == {"real/a.png": 1}


@pytest.mark.parametrize("alias", ["val", "valid", "dev"])
def test_folder_accepts_aliases_of_validation(folder: Path, alias: str) -> None:
    (folder / "validation").rename(folder / alias)
    assert content(read(folder, "folder").split("validation")) == {"gan/3.webp": 0, "real/3.webp": 1}


def test_folder_ignores_and_logs_hidden_files_and_other_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(folder, "README.md", ".secret.png")
    images(folder / ".git", "x.png")
    images(folder / "__MACOSX" / "train", "x.png")
    images(folder / "docs", "x.txt")
    images(folder / "train" / "gan", "._1.png", "labels.csv", "paper.pdf", "Thumbs.db")
    images(folder / "train" / "gan" / "deeper", "x.png")
    os.mkfifo(folder / "train" / "gan" / "pipe.png")
    with caplog.at_level(logging.INFO):
        manifest = read(folder, "folder")
    assert list(manifest.splits) == ["train", "validation"]
    assert manifest.split("train").ids[:3] == ("gan/1.jpg", "gan/2.png", "real/1.jpg")
    assert f"{folder}: ignored 11 entries (hidden, without the suffix of an image, or too deep)" in caplog.text


def test_folder_reports_empty_classes_and_unknown_classes_together(folder: Path) -> None:
    (folder / "train" / "empty").mkdir()
    images(folder / "validation" / "diffusion", "a.png")
    text = refusal(folder, "folder")
    assert f"{folder}/train/empty is an empty class: it contains no images directly" in text
    assert f"{folder}/validation/diffusion is a class that train does not have; train has empty, gan, real" in text


@pytest.mark.parametrize("name", ["train", "validation", "val", "test"])
def test_folder_refuses_an_empty_split(tmp_path: Path, name: str) -> None:
    images(tmp_path / "other", "a.png")
    (tmp_path / name / "gan").mkdir(parents=True)
    assert f"{tmp_path / name} is an empty split: it contains no images, and neither do its folders" in refusal(
        tmp_path, "folder"
    )


def test_folder_refuses_images_beside_class_folders(folder: Path) -> None:
    images(folder / "validation", "a.png")
    assert f"{folder}/validation contains images and class folders; keep one" in refusal(folder, "folder")


def test_folder_refuses_a_training_split_without_classes(tmp_path: Path) -> None:
    images(tmp_path / "train", "a.png")
    text = refusal(tmp_path, "folder")
    assert f"{tmp_path}/train contains images directly; training needs train/<class>/*." in text
    assert "unibuc" not in text


def test_folder_refuses_two_folders_for_one_split(folder: Path) -> None:
    images(folder / "val" / "gan", "a.png")
    assert f"{folder}/validation is the second folder of the split validation" in refusal(folder, "folder")


def test_folder_refuses_images_in_the_root_beside_a_test_folder(folder: Path) -> None:
    images(folder, "a.png")
    images(folder / "test", "b.png")
    assert f"{folder}/test is the second folder of the split test" in refusal(folder, "folder")


# Folders of classes without splits


def test_folders_of_images_are_classes_if_there_is_no_split(tmp_path: Path) -> None:
    for label, count in (("real", 20), ("gan", 10), ("diffusion", 10)):
        images(tmp_path / label, *(f"{n}.png" for n in range(count)))
    images(tmp_path / "gan" / "deeper", "x.png")
    manifest = read(tmp_path, "folder")
    assert manifest.classes == ("diffusion", "gan", "real")
    assert list(manifest.splits) == ["train", "validation"]
    train, validation = manifest.split("train"), manifest.split("validation")
    assert np.bincount(train.labels).tolist() == [9, 9, 18]
    assert np.bincount(validation.labels).tolist() == [1, 1, 2]
    assert (content(train) | content(validation))["real/3.png"] == 2
    assert (
        f"{tmp_path} has a folder for each class and none for splits: its 40 images are the split train." in train.note
    )
    assert "4 of 40 images of train are used for it (data.val_fraction=0.1, data.val_seed=0)" in validation.note
    assert train.paths is not None
    assert train.paths[0] == tmp_path / train.ids[0]


def test_an_empty_folder_beside_classes_is_refused(tmp_path: Path) -> None:
    for label in ("a", "b"):
        images(tmp_path / label, "1.png", "2.png")
    (tmp_path / "c").mkdir()
    assert f"{tmp_path}/c is an empty class: it contains no images directly" in refusal(tmp_path, "folder")


def test_one_folder_of_images_is_an_unlabelled_split(tmp_path: Path) -> None:
    images(tmp_path / "wild", "1.png", "2.png")
    manifest = read(tmp_path, "folder")
    assert manifest.classes == ()
    with pytest.raises(InputError, match=r"too few classes \(none\).* Its splits are wild \(2 images\)"):
        manifest.require_classes()


def test_a_root_one_level_too_deep_gets_a_hint(folder: Path) -> None:
    note = read(folder / "train", "folder").split("train").note
    assert note.endswith(f"If it is the split train of a data set, give the folder above: data.root={folder}.")


def test_a_root_one_level_too_high_gets_a_hint(tmp_path: Path) -> None:
    images(tmp_path / "mydata" / "train" / "gan", "1.png")
    hint = f"mydata/ in it looks like it: data.root={tmp_path}/mydata."
    assert hint in refusal(tmp_path, "folder")


@pytest.mark.parametrize("name", ["training", "Train", "TRAINING"])
def test_folder_accepts_aliases_of_train(folder: Path, name: str) -> None:
    (folder / "train").rename(folder / name)
    (folder / "validation").rename(folder / "Val")
    assert list(read(folder, "folder").splits) == ["train", "validation"]
