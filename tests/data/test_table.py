"""``data=table``: the formats that are read, columns, and the message for each kind of wrong row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deepfake_cls.config import TableConfig, TrainConfig
from deepfake_cls.data import Manifest, read_manifest
from deepfake_cls.data.images import open_images
from deepfake_cls.data.table import TableSource
from deepfake_cls.errors import InputError
from tests.conftest import configure
from tests.data.sample_files import content, images

ROWS: list[dict[str, Any]] = [
    {"path": "x/1.png", "label": "gan", "split": "train", "group": "cat"},
    {"path": "./x/2.png", "label": "real", "split": "Train", "group": "cat"},
    {"path": "y/1.dat", "label": "gan", "split": "val", "group": ""},
    {"path": "y/./3.png", "label": "", "split": "test", "group": "dog"},
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images(tmp_path / "data" / "x", "1.png", "2.png")
    images(tmp_path / "data" / "y", "1.dat", "3.png", "4.png")
    return tmp_path / "data"


def write(file: Path, rows: list[Any]) -> str:
    """Write a table in the format of its suffix, and return the name of the file."""
    if file.suffix == ".json":
        text = json.dumps(rows, indent=1)
    elif file.suffix == ".jsonl":
        text = "\n".join(map(json.dumps, rows)) + "\n\n"
    else:
        separator = "," if file.suffix == ".csv" else "\t"
        names = dict.fromkeys(name for row in rows for name in row)
        lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
        text = "\n".join(separator.join(line) for line in lines)
    file.write_text(text, encoding="utf-8")
    return file.name


def read(root: Path, table: str, **options: Any) -> Manifest:
    return read_manifest(TableConfig(root=str(root), table=table, **options))


def listed(root: Path, table: str, **options: Any) -> tuple[tuple[str, ...], dict[str, dict[str, int]]]:
    """Classes and labels as the table says, before anything is cut from train."""
    classes, splits = TableSource(TableConfig(root=str(root), table=table, **options)).list_images(root)
    return classes, {split.name: content(split) for split in splits}


def refusal(root: Path, table: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(root, table, **options)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_each_format_gives_the_same_data(root: Path, tmp_path: Path, suffix: str) -> None:
    manifest = read(root, write(tmp_path / f"images.{suffix}", ROWS))
    assert manifest.classes == ("gan", "real")
    assert {name: content(split) for name, split in manifest.splits.items()} == {
        "train": {"x/1.png": 0, "x/2.png": 1},
        "validation": {"y/1.dat": 0},
        "test": {"y/3.png": -1},
    }
    assert manifest.split("train").paths == (root / "x/1.png", root / "x/2.png")
    assert [split.groups for split in manifest.splits.values()] == [("cat", "cat"), ("y/1.dat",), ("dog",)]


def test_a_table_needs_neither_splits_nor_groups_nor_other_names(root: Path) -> None:
    write(root / "t.csv", [{"file": f"y/{name}", "generator": label} for name, label in (("3.png", 10), ("4.png", 9))])
    overrides = ["data=table", f"data.root={root}", "data.table=t.csv", "data.columns={path: file, label: generator}"]
    config = configure("train", TrainConfig, *overrides).data
    assert isinstance(config, TableConfig)
    # Numbers are sorted as numbers.
    assert listed(root, "t.csv", columns=config.columns) == (("9", "10"), {"train": {"y/3.png": 1, "y/4.png": 0}})
    unlabelled = config.columns | {"label": None}
    assert listed(root, "t.csv", columns=unlabelled) == ((), {"train": {"y/3.png": -1, "y/4.png": -1}})


def test_lists_of_forensichub_are_read_as_they_are(root: Path) -> None:
    rows = [{"path": "x/1.png", "label": 1}, {"path": str(root / "y" / "3.png"), "label": 0}]
    expected = (("0", "1"), {"train": {"x/1.png": 1, "y/3.png": 0}})
    assert listed(root, write(root / "train.json", rows)) == expected
    # Numbers may be written as 1.0, and the root may be a link.
    rows[0]["label"] = 1.0
    (root.parent / "link").symlink_to(root)
    assert listed(root.parent / "link", write(root / "train.json", rows)) == expected


def test_lists_of_imdlbenco_are_read_as_they_are(root: Path) -> None:
    rows = [["./x/1.png", "./Gt/1.png"], ["./y/3.png", "Negative"]]
    expected = {"train": {"x/1.png": 1, "y/3.png": 0}}
    assert listed(root, write(root / "train.json", rows)) == (("authentic", "manipulated"), expected)


def test_wrong_rows_are_listed_with_their_place(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "away").symlink_to(tmp_path)
    paths = [
        "../secret.png",
        "y/../../secret.png",
        "/etc/hosts",
        "out.png",
        "away/secret.png",
        "x/9.png",
        "x",
        "",
        "x/1.png",
    ]
    rows = [{"path": "x/1.png", "label": "a"}, *({"path": path, "label": "b"} for path in [*paths, "..\\secret.png"])]
    text = refusal(root, write(tmp_path / "t.csv", [*rows, {"path": "x/2.png", "label": ""}]))
    assert text.splitlines() == [
        f"{tmp_path}/t.csv cannot be used with data.root={root}:",
        "  line 3: ../secret.png leads out of data.root; expected a file in it",
        "  line 4: y/../../secret.png leads out of data.root; expected a file in it",
        "  line 5: /etc/hosts leads out of data.root; expected a file in it",
        "  line 6: out.png leads out of data.root by a link; copy the file, or choose a data.root above it",
        "  line 7: away/secret.png leads out of data.root by a link; copy the file, or choose a data.root above it",
        "  line 8: there is no file x/9.png in data.root",
        "  line 9: there is no file x in data.root",
        "  line 10: the path is missing",
        "  line 11: x/1.png is the image of line 2 again; list it once",
        "  line 12: ..\\secret.png leads out of data.root; expected a file in it",
        "  line 13: label is missing; expected a label for each image of train",
    ]


def test_missing_files_are_skipped_if_bad_images_are(root: Path) -> None:
    write(root / "t.json", [{"path": f"x/{number}.png", "label": "a"} for number in (1, 8)])
    assert "entry 2: there is no file x/8.png" in refusal(root, "t.json")
    assert listed(root, "t.json", on_error="skip")[1] == {"train": {"x/1.png": 0, "x/8.png": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path;label\nx/1.png;a",
            ": the cells of the first line are separated by ;, expected a comma or a tab.",
        ),
        (
            "path,class\nx/1.png,a",
            "has no column 'label' for the label; it has path, class: write data.columns",
        ),
        ("path,label,label\nx/1.png,a,b", "expected different names of columns."),
        ("path,label\nx/1.png,a,b", "line 2: more cells than the 2 columns"),
        ("", "has no rows below its header"),
        ("[]", "has no rows; expected a row for each image."),
        ("[1]", 'entry 1: expected an object such as {"path": ..., "label": ...}, or a pair'),
        (
            '[{"path": "x/1.png"',
            "line 1: not JSON (Expecting ',' delimiter: line 1 column 20",
        ),
        ('{"path": "x/1.png", "label": 1}\n{"path"}', "line 2: not JSON (Expecting ':' delimiter"),
        ('{"path": "x/1.png", "label": 1}\n[1]', "line 2: expected a JSON object in each line."),
        ('[{"path": "x/1.png", "label": NaN}]', "entry 1: label is missing"),
        ('[{"path": "x/1.png", "label": [1]}]', "entry 1: label is a list; expected text or a number"),
    ],
)
def test_a_file_that_is_no_table_is_refused(root: Path, text: str, message: str) -> None:
    (root / "t.csv").write_text(text)
    assert message in refusal(root, "t.csv")


def test_columns_that_were_asked_for_have_to_exist(root: Path) -> None:
    write(root / "t.csv", ROWS[:2])
    message = (
        "has no column 'prompt' for the group; it has path, label, split, group: write data.columns.group=NAME, or"
    )
    assert message in refusal(root, "t.csv", columns={"group": "prompt"})
    assert "expected a mapping with the keys path, label, split, group" in refusal(root, "t.csv", columns={"file": "x"})
    assert refusal(root, "t.csv", columns={"path": None}) == "data.columns.path=null: expected the column of the paths."
    assert refusal(root, "u.csv") == f"data.table=u.csv: there is no such file in the current folder or in {root}."


def test_the_images_of_a_table_are_decoded(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    for row, path in enumerate(("x/1.png", "x/2.png", "y/3.png", "y/4.png")):
        Image.new("RGB", (4, 4), (row, 0, 0)).save(root / path)
    rows = [{"path": path, "label": "a", "split": "train"} for path in ("y/4.png", "x/2.png")]
    write(tmp_path / "t.csv", [*rows, {"path": "x/1.png", "label": "a", "split": "val"}])
    config = TableConfig(root=str(root), table="t.csv")
    opened = open_images(read_manifest(config), "train", config, progress=False)
    assert opened.store.images[:, 0, 0, 0].tolist() == [3, 1]


def test_a_row_without_a_split_is_refused(root: Path) -> None:
    rows = [{"path": f"x/{number}.png", "label": "a", "split": split} for number, split in ((1, "train"), (2, ""))]
    assert "line 3: split is missing; expected train, validation, test" in refusal(root, write(root / "t.csv", rows))
