"""Tables of ids: what is read, and one clear message for each row that is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.sample_files import content, images, read, table
from tests.data.sample_files import read_refusal as refusal


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


def test_unibuc_leaves_test_out_where_its_images_are_not(unibuc: Path, caplog: pytest.LogCaptureFixture) -> None:
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
    assert text.startswith(f"{unibuc} does not follow the layout data=unibuc:\n  {unibuc}/train.csv, line 7: ")
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


@pytest.mark.parametrize(("row", "message"), [("x,one", "label 'one'"), ("../x,1", "leads out of"), ("a,1", "again")])
def test_unibuc_with_skip_still_refuses_bad_rows(unibuc: Path, row: str, message: str) -> None:
    table(unibuc / "train.csv", "a,0", row, "b,1")
    assert message in refusal(unibuc, on_error="skip")


def test_unibuc_with_skip_refuses_a_missing_image_that_is_listed_twice(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "x,1", "x,1", "b,1")
    assert "line 4: image_id 'x' is the image of line 3 again" in refusal(unibuc, on_error="skip")


def test_unibuc_names_an_empty_class(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "b,3", "c,0", "d,3")
    assert f"{unibuc}/train.csv: empty class 1, 2: labels go up to 3, each needs an image" in refusal(unibuc)


def test_unibuc_does_not_blame_a_class_for_a_bad_row(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "b,one", "c,2", "d,2")
    text = refusal(unibuc)
    assert "line 3: label 'one'" in text
    assert "empty class" not in text


def test_unibuc_survives_a_label_of_many_digits(unibuc: Path) -> None:
    table(unibuc / "train.csv", "a,0", "b,999999999")
    start = time.process_time()
    assert "empty class 1, 2, 3, 4, 5: labels go up to 999999999" in refusal(unibuc)
    assert time.process_time() - start < 1


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
    assert f"{name}.csv has no rows below its header; a row for each image is expected" in refusal(unibuc)


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
