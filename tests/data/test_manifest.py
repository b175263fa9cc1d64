"""Layouts in, one manifest out; and one clear message for each way in which folders can be wrong."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.config import ImageFilesConfig, SyntheticConfig
from deepfake_cls.data.manifest import Manifest, Split, read_manifest
from deepfake_cls.errors import InputError
from tests.data.sample_files import UNIBUC, content, images, needs_unibuc, read
from tests.data.sample_files import read_refusal as refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with two training images each, and one validation image each."""
    for label in ("gan", "real"):
        images(tmp_path / "train" / label, "2.png", "1.jpg")
        images(tmp_path / "validation" / label, "3.webp")
    return tmp_path


# data=synthetic


def test_synthetic_names_labels_and_withholds_those_of_test() -> None:
    manifest = read_manifest(SyntheticConfig(train_size=12, validation_size=5, test_size=3))
    assert manifest.name == "synthetic"
    assert len(manifest.classes) == 5
    assert [len(split) for split in manifest.splits.values()] == [12, 5, 3]
    assert manifest.split("train").labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert manifest.split("test").labels.tolist() == [-1, -1, -1]
    assert manifest.split("train").paths is None
    assert manifest.split("train").ids[11] == "train-000011"


def test_synthetic_may_have_no_test_split() -> None:
    assert list(read_manifest(SyntheticConfig(test_size=0)).splits) == ["train", "validation"]


@pytest.mark.parametrize("size", [4, 0, -1])
def test_synthetic_needs_an_image_of_each_class(size: int) -> None:
    with pytest.raises(InputError, match=rf"data\.train_size={size} leaves a class without an image; give at least 5"):
        read_manifest(SyntheticConfig(train_size=size))


def test_synthetic_refuses_a_negative_test_split() -> None:
    with pytest.raises(InputError, match=r"data\.test_size=-1"):
        read_manifest(SyntheticConfig(test_size=-1))


# data=folder


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


def test_folder_reads_images_in_the_root_as_test_and_leaves_other_folders_alone(tmp_path: Path) -> None:
    images(tmp_path, "mine.jpg", "yours.png")
    images(tmp_path / "holiday", "x.jpg")
    images(tmp_path / "holiday" / "raw", "x.jpg")
    manifest = read(tmp_path, "folder")
    assert manifest.classes == ()
    assert list(manifest.splits) == ["test"]
    assert content(manifest.split("test")) == {"mine.jpg": -1, "yours.png": -1}
    assert manifest.split("test").paths == (tmp_path / "mine.jpg", tmp_path / "yours.png")


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
def test_folder_knows_other_names_of_validation(folder: Path, alias: str) -> None:
    (folder / "validation").rename(folder / alias)
    assert content(read(folder, "folder").split("validation")) == {"gan/3.webp": 0, "real/3.webp": 1}


def test_folder_ignores_what_is_hidden_or_no_image_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    assert f"{folder}: ignored 11 entries (hidden, no image, too deep)" in caplog.text


def test_folder_names_empty_classes_and_unknown_classes_together(folder: Path) -> None:
    (folder / "train" / "empty").mkdir()
    images(folder / "validation" / "diffusion", "a.png")
    text = refusal(folder, "folder")
    assert f"{folder}/train/empty is an empty class: no images directly in it" in text
    assert f"{folder}/validation/diffusion is a class that train does not have; it has empty, gan, real" in text


@pytest.mark.parametrize("name", ["train", "validation", "val", "test"])
def test_folder_refuses_an_empty_split(tmp_path: Path, name: str) -> None:
    images(tmp_path / "other", "a.png")
    (tmp_path / name / "gan").mkdir(parents=True)
    assert f"{tmp_path / name} is an empty split: no images in it, or in folders in it" in refusal(tmp_path, "folder")


def test_folder_refuses_images_beside_class_folders(folder: Path) -> None:
    images(folder / "validation", "a.png")
    assert f"{folder}/validation holds images and folders of images; keep one" in refusal(folder, "folder")


def test_folder_refuses_a_training_split_without_classes(tmp_path: Path) -> None:
    images(tmp_path / "train", "a.png")
    text = refusal(tmp_path, "folder")
    assert f"{tmp_path}/train holds images directly; training needs train/<class>/*." in text
    assert "unibuc" not in text


def test_folder_refuses_two_folders_of_one_split(folder: Path) -> None:
    images(folder / "val" / "gan", "a.png")
    assert f"{folder}/validation is the second of two that hold the split validation" in refusal(folder, "folder")


def test_folder_refuses_images_in_the_root_beside_a_test_folder(folder: Path) -> None:
    images(folder, "a.png")
    images(folder / "test", "b.png")
    assert f"{folder}/test is the second of two that hold the split test" in refusal(folder, "folder")


# The root


@pytest.mark.parametrize("name", ["unibuc", "folder"])
def test_a_root_is_needed(name: str) -> None:
    for root in ("???", ""):
        with pytest.raises(InputError, match=f"data={name} needs the folder that holds the data: data.root=PATH"):
            read_manifest(ImageFilesConfig(name=name, root=root))


@pytest.mark.parametrize("name", ["unibuc", "folder"])
def test_the_root_must_be_a_folder(tmp_path: Path, name: str) -> None:
    assert "does not exist" in refusal(tmp_path / "gone", name)
    (tmp_path / "file.zip").touch()
    assert "is not a folder; give the folder that holds the data" in refusal(tmp_path / "file.zip", name)


def test_the_root_may_be_relative_or_in_the_home(unibuc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unibuc.parent)
    monkeypatch.setenv("HOME", str(unibuc.parent))
    expected = read(unibuc).split("train").paths
    assert read(Path(unibuc.name)).split("train").paths == expected
    assert read(Path("~") / unibuc.name).split("train").paths == expected


def test_the_other_layout_is_suggested(unibuc: Path) -> None:
    text = refusal(unibuc, "folder")
    assert "It looks like data=unibuc." in text
    for path in unibuc.glob("*.csv"):
        path.unlink()
    text = refusal(unibuc)
    assert "there is no train.csv in it (image_id,label), with the images in" in text
    assert "It looks like data=folder." in text


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    assert "there are no images in <split>/<class>/, in <split>/ or in the folder itself." in refusal(
        tmp_path, "folder"
    )
    assert "It looks like" not in refusal(tmp_path)


def test_a_layout_must_be_known(tmp_path: Path) -> None:
    assert refusal(tmp_path, "imagenet").startswith("data.name='imagenet' is no layout")


def test_a_split_must_exist(unibuc: Path) -> None:
    with pytest.raises(InputError, match="no split 'holdout'; it has train, validation, test"):
        read(unibuc).split("holdout")


# The hash


def test_the_hash_covers_ids_labels_splits_and_classes_and_no_paths(unibuc: Path, tmp_path: Path) -> None:
    manifest = read(unibuc)
    (tmp_path / "copy").mkdir()
    for path in list(unibuc.iterdir()):
        if path.name != "copy":
            path.rename(tmp_path / "copy" / path.name)
    assert read(tmp_path / "copy").sha256() == manifest.sha256()
    split = manifest.split("train")
    changed = [
        Split("other", split.ids, split.labels, None),
        Split("train", ("c", "a", "b", "e"), split.labels, None),
        Split("train", split.ids, 1 - split.labels, None),
    ]
    others = [Manifest("unibuc", manifest.classes, {**manifest.splits, "train": train}) for train in changed]
    others += [
        Manifest("unibuc", ("a", "b"), manifest.splits),
        Manifest("unibuc", ("0", "1"), {"train": split}),
    ]
    assert len({manifest.sha256(), *(other.sha256() for other in others)}) == 6
    assert manifest.sha256(["train"]) == others[-1].sha256()


def test_the_hash_survives_names_that_are_not_utf8(tmp_path: Path) -> None:
    images(tmp_path, os.fsdecode(b"\xff.png"))
    assert len(read(tmp_path, "folder").sha256()) == 64


# No image is opened, and no file is asked for one by one


def test_no_image_is_opened(unibuc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", fail)
    read(unibuc)


@pytest.mark.real_data
@needs_unibuc
def test_the_real_data_is_read_in_under_a_second() -> None:
    start = time.perf_counter()
    manifest = read(UNIBUC)
    assert time.perf_counter() - start < 1
    assert manifest.classes == ("0", "1", "2", "3", "4")
    for name in ("train", "validation"):
        counts = np.bincount(manifest.split(name).labels)
        assert counts.min() == counts.max()
    assert set(manifest.split("test").labels.tolist()) == {-1}
