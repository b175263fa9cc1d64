"""Layouts in, one manifest out; and one clear message for each way in which data can be wrong."""

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

UNIBUC = Path(
    os.environ.get("DEEPFAKE_CLS_UNIBUC", Path(__file__).parents[2] / ".." / "shared" / "unibuc")
).resolve()


def images(folder: Path, *names: str) -> None:
    """Files that are called images; a manifest that opened one would fail."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("no image")


def table(path: Path, *rows: str, header: str = "image_id,label") -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def unibuc(tmp_path: Path) -> Path:
    """Two classes; train a b c d, validation e f, test g h, whose rows are not in the order of the files."""
    for split, names in {"train": "abcd", "validation": "ef", "test": "gh"}.items():
        images(tmp_path / split, *(f"{name}.png" for name in names))
    table(tmp_path / "train.csv", "c,1", "a,0", "b,0", "d,1")
    table(tmp_path / "validation.csv", "f,1", "e,0")
    table(tmp_path / "test.csv", "h", "g", header="image_id")
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with two training images each, and one validation image each."""
    for label in ("gan", "real"):
        images(tmp_path / "train" / label, "2.png", "1.jpg")
        images(tmp_path / "validation" / label, "3.webp")
    return tmp_path


def read(root: Path, name: str = "unibuc", **options: object) -> Manifest:
    return read_manifest(ImageFilesConfig(name=name, root=str(root), **options))  # type: ignore[arg-type]


def refusal(root: Path, name: str = "unibuc", **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(root, name, **options)
    return str(caught.value)


def content(split: Split) -> dict[str, int]:
    return dict(zip(split.ids, split.labels.tolist(), strict=True))


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
    with pytest.raises(
        InputError, match=f"data.train_size={size} leaves a class without an image; give at least 5"
    ):
        read_manifest(SyntheticConfig(train_size=size))


def test_synthetic_refuses_a_negative_test_split() -> None:
    with pytest.raises(InputError, match="data.test_size=-1"):
        read_manifest(SyntheticConfig(test_size=-1))


# data=unibuc


def test_unibuc_keeps_the_order_of_the_tables(unibuc: Path) -> None:
    manifest = read(unibuc)
    assert manifest.name == "unibuc"
    assert manifest.classes == ("0", "1")
    assert list(manifest.splits) == ["train", "validation", "test"]
    assert manifest.split("train").ids == ("c", "a", "b", "d")
    assert manifest.split("train").labels.tolist() == [1, 0, 0, 1]
    assert manifest.split("train").labels.dtype == np.int64
    assert content(manifest.split("test")) == {"h": -1, "g": -1}
    paths = manifest.split("train").paths
    assert paths is not None
    assert [path.relative_to(unibuc).as_posix() for path in paths] == [f"train/{n}.png" for n in "cabd"]


def test_unibuc_finds_images_by_id_with_or_without_suffix(unibuc: Path) -> None:
    images(unibuc / "train", "v1.5_e.WEBP", "f.jpg", "f.png", "g.png", "g.txt", "i.raw")
    table(unibuc / "train.csv", "v1.5_e,0", "f.jpg,1", "f.png,0", "g,1", "i.raw,1")
    paths = read(unibuc).split("train").paths
    assert paths is not None
    assert [path.name for path in paths] == ["v1.5_e.WEBP", "f.jpg", "f.png", "g.png", "i.raw"]


def test_unibuc_reads_bom_crlf_blank_lines_spaces_and_other_columns(unibuc: Path) -> None:
    text = '\ufefflabel, image_id ,source\r\n1,c,x\r\n\r\n0, a ,y\r\n   \r\n0,"b","z, z"\r\n1,d,\r\n\r\n'
    (unibuc / "train.csv").write_bytes(text.encode())
    assert content(read(unibuc).split("train")) == {"c": 1, "a": 0, "b": 0, "d": 1}


def test_unibuc_needs_neither_validation_nor_test(unibuc: Path) -> None:
    (unibuc / "validation.csv").unlink()
    (unibuc / "test.csv").unlink()
    manifest = read(unibuc)
    assert list(manifest.splits) == ["train", "validation"]
    assert len(manifest.split("train")) == len(manifest.split("validation")) == 2


def test_unibuc_leaves_test_out_where_its_images_are_not(
    unibuc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (unibuc / "test").rename(unibuc / "elsewhere")
    assert list(read(unibuc).splits) == ["train", "validation"]
    assert "the split test is left out" in caplog.text


def test_unibuc_names_the_folder_of_training_images_that_is_missing(unibuc: Path) -> None:
    (unibuc / "train").rename(unibuc / "images")
    assert f"but not the folder of its images, {unibuc / 'train'}" in refusal(unibuc)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,1", "there is no image 'x' in {root}/train, with any suffix"),
        ("sub/a,1", "there is no image 'sub/a' in"),
        ("a,1", "image_id 'a' is the image of line 3 again; list it once"),
        ("a.png,1", "image_id 'a.png' is the image of line 3 again; list it once"),
        (",1", "image_id is missing"),
        ("e", "label is missing; an integer from 0 up is expected"),
        ("e,", "label is missing; an integer from 0 up is expected"),
        ("e,gan", "label 'gan' is no integer from 0 up"),
        ("e,1.0", "label '1.0' is no integer from 0 up"),
        ("e,-1", "label '-1' is no integer from 0 up"),
        ("e,1_0", "label '1_0' is no integer from 0 up"),
        ("e,٣", "label '٣' is no integer from 0 up"),
        ("e,99999999999999999999", "is no integer from 0 up"),
        ("e,1,", "3 cells, 2 are expected; quote a comma within a cell"),
        ("../validation/e,1", "image_id '../validation/e' leads out of {root}/train; name a file in it"),
        ("..,1", "image_id '..' leads out of"),
        ("sub/../../validation/e.png,1", "leads out of"),
        ("..\\validation\\e,1", "leads out of"),
        ("/etc/passwd,1", "image_id '/etc/passwd' leads out of"),
        ("C:\\e.png,1", "leads out of"),
        (
            "two,1",
            "image_id 'two' can mean two.jpg or two.png in {root}/train; remove one, or write the suffix",
        ),
    ],
)
def test_unibuc_names_the_line_of_a_bad_row(unibuc: Path, row: str, message: str) -> None:
    images(unibuc / "train", "e.png", "two.png", "two.jpg")
    table(unibuc / "train.csv", "c,1", "a,0", "", "b,0", "d,1", row)
    text = refusal(unibuc)
    assert text.startswith(
        f"{unibuc} does not follow the layout data=unibuc:\n  {unibuc}/train.csv, line 7: "
    )
    assert message.format(root=unibuc) in text
    assert text.count("\n") == 1


def test_unibuc_reports_all_rows_of_all_tables_together_and_lists_20(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", *(f"x{n},1" for n in range(18)), "b,1")
    table(unibuc / "validation.csv", "e,zero", "f,1")
    table(unibuc / "test.csv", "y", "z", "g", header="image_id")
    lines = refusal(unibuc).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[1].startswith(f"  {unibuc}/train.csv, line 3: there is no image 'x0'")
    assert lines[19].startswith(f"  {unibuc}/validation.csv, line 2: label 'zero'")
    assert lines[20].startswith(f"  {unibuc}/test.csv, line 2: there is no image 'y'")
    assert lines[21] == "  and 1 more"


def test_unibuc_with_skip_leaves_missing_images_to_the_store(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "x,1", "b,1", "c,1")
    train = read(unibuc, on_error="skip").split("train")
    assert content(train) == {"a": 0, "x": 1, "b": 1, "c": 1}
    assert train.paths is not None
    assert not train.paths[1].exists()


@pytest.mark.parametrize(
    ("row", "message"), [("x,one", "label 'one'"), ("../x,1", "leads out of"), ("a,1", "again")]
)
def test_unibuc_with_skip_still_refuses_bad_rows(unibuc: Path, row: str, message: str) -> None:
    table(unibuc / "train.csv", "a,0", row, "b,1")
    assert message in refusal(unibuc, on_error="skip")


def test_unibuc_with_skip_refuses_a_missing_image_that_is_listed_twice(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "x,1", "x,1", "b,1")
    assert "line 4: image_id 'x' is the image of line 3 again" in refusal(unibuc, on_error="skip")


def test_unibuc_names_an_empty_class(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "b,3", "c,0", "d,3")
    assert f"{unibuc}/train.csv: empty class 1, 2: labels go up to 3, each needs an image" in refusal(unibuc)


def test_unibuc_survives_a_label_of_many_digits(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "b,999999999")
    start = time.perf_counter()
    assert "empty class 1, 2, 3, 4, 5: labels go up to 999999999" in refusal(unibuc)
    assert time.perf_counter() - start < 1


def test_unibuc_names_a_validation_label_that_train_does_not_have(unibuc: Path) -> None:
    table(unibuc / "validation.csv", "e,0", "f,2")
    assert f"{unibuc}/validation.csv, line 3: label 2 does not occur in train.csv" in refusal(unibuc)


@pytest.mark.parametrize("header", ["id,label", "image_id;label", "image_id", "image_id,label,label", ""])
def test_unibuc_says_which_columns_were_found(unibuc: Path, header: str) -> None:
    table(unibuc / "train.csv", "a,0", header=header)
    assert refusal(unibuc) == (
        f"{unibuc}/train.csv has the columns {header!r} in its first line; 'image_id,label' is expected."
    )


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_unibuc_refuses_an_empty_split(unibuc: Path, name: str) -> None:
    table(unibuc / f"{name}.csv")
    assert f"{name}.csv has no rows below its header: the split {name} is empty" in refusal(unibuc)


@pytest.mark.parametrize("encoded", ["a,0\né,1\n".encode("latin-1"), "a,0\nb,1\n".encode("utf-16")])
def test_unibuc_refuses_what_is_not_utf8(unibuc: Path, encoded: bytes) -> None:
    (unibuc / "train.csv").write_bytes(b"image_id,label\n" + encoded)
    assert "not UTF-8; save the table with the encoding UTF-8" in refusal(unibuc)


def test_unibuc_names_the_line_that_is_not_utf8(unibuc: Path) -> None:
    (unibuc / "train.csv").write_bytes(b"image_id,label\na,0\n\xe9,1\n")
    assert "train.csv, line 3: not UTF-8" in refusal(unibuc)


def test_unibuc_refuses_a_quote_that_is_never_closed(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", '"b,1')
    assert "comma-separated values are expected" in refusal(unibuc)


def test_unibuc_refuses_a_table_that_cannot_be_read(unibuc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert refusal(unibuc) == f"{unibuc}/train.csv cannot be read: Permission denied."


def test_unibuc_accepts_links_within_the_data_and_names_those_that_lead_nowhere_as_files(
    unibuc: Path,
) -> None:
    (unibuc / "train" / "a.png").unlink()
    (unibuc / "train" / "a.png").symlink_to(unibuc / "gone.png")
    assert "a" in read(unibuc).split("train").ids  # the store reports it as missing, with all bad images


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


def test_folder_ignores_what_is_hidden_or_no_image_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert (
        f"{folder}/validation/diffusion is a class that train does not have; it has empty, gan, real" in text
    )


@pytest.mark.parametrize("name", ["train", "validation", "val", "test"])
def test_folder_refuses_an_empty_split(tmp_path: Path, name: str) -> None:
    images(tmp_path / "other", "a.png")
    (tmp_path / name / "gan").mkdir(parents=True)
    assert f"{tmp_path / name} is an empty split: no images in it, or in folders in it" in refusal(
        tmp_path, "folder"
    )


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
    assert f"{folder}/validation is the second of two that hold the split validation" in refusal(
        folder, "folder"
    )


def test_folder_refuses_images_in_the_root_beside_a_test_folder(folder: Path) -> None:
    images(folder, "a.png")
    images(folder / "test", "b.png")
    assert f"{folder}/test is the second of two that hold the split test" in refusal(folder, "folder")


# The root


@pytest.mark.parametrize("name", ["unibuc", "folder"])
def test_a_root_is_needed(name: str) -> None:
    for root in ("???", ""):
        with pytest.raises(
            InputError, match=f"data={name} needs the folder that holds the data: data.root=PATH"
        ):
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


# Validation where there is none


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
@pytest.mark.skipif(not UNIBUC.is_dir(), reason=f"no real data in {UNIBUC}: set DEEPFAKE_CLS_UNIBUC")
def test_the_real_data_is_read_in_under_a_second() -> None:
    start = time.perf_counter()
    manifest = read(UNIBUC)
    assert time.perf_counter() - start < 1
    assert manifest.classes == ("0", "1", "2", "3", "4")
    for name in ("train", "validation"):
        counts = np.bincount(manifest.split(name).labels)
        assert counts.min() == counts.max()
    assert set(manifest.split("test").labels.tolist()) == {-1}
