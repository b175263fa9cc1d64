"""Groups, renamed classes and classes that are left out, for each layout of images on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from deepfake_cls.config import TrainConfig
from deepfake_cls.data import Manifest, Split, read_manifest
from tests.conftest import configure
from tests.data.sample_files import content, images, read, table
from tests.data.sample_files import read_refusal as refusal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 4, 4 and 2 training images and one validation image each; the stem's start is the prompt."""
    root = tmp_path / "data"
    for label, count in (("dalle", 4), ("gan", 4), ("nature", 2)):
        images(
            root / "train" / label, *(f"cat-{label}{n}.png" if n % 2 else f"dog-{label}{n}.png" for n in range(count))
        )
        images(root / "validation" / label, "cat-x.png")
    return root


def labels(split: Split) -> list[int]:
    """Images of each class."""
    return [int(count) for count in np.bincount(split.labels)]


def groups(manifest: Manifest, name: str = "train") -> dict[str, str]:
    split = manifest.split(name)
    return dict(zip(split.ids, split.groups or (), strict=True))


# Groups


def test_a_pattern_names_groups(folder: Path, unibuc: Path) -> None:
    manifest = read(folder, "folder", group_pattern=r"([^/]+)-[^/]*$")
    assert {*groups(manifest).values()} == {"cat", "dog"}
    assert groups(manifest)["gan/dog-gan2.png"] == "dog"
    assert groups(manifest, "validation")["gan/cat-x.png"] == "cat"
    assert groups(read(unibuc, group_pattern=r"^train/([a-b])")) == {
        "a": "a",
        "b": "b",
        "c": "train/c.png",
        "d": "train/d.png",
    }


def test_an_image_that_the_pattern_does_not_match_is_a_group_of_its_own(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = groups(read(folder, "folder", group_pattern="(cat)"))
    assert found["gan/dog-gan0.png"] == "train/gan/dog-gan0.png"
    assert found["gan/cat-gan1.png"] == "cat"
    assert (
        "data.group_pattern: does not match 5 of 13 paths, such as train/dalle/dog-dalle0.png; each of these images is"
        " a group of its own" in caplog.text
    )
    message = 'data.group_pattern="(fox)": matches no path, such as train/dalle/cat-dalle1.png.'
    assert refusal(folder, "folder", group_pattern="(fox)") == message


@pytest.mark.parametrize("pattern", ["cat", "(cat", "*"])
def test_a_pattern_without_a_group_is_refused(folder: Path, pattern: str) -> None:
    text = refusal(folder, "folder", group_pattern=pattern)
    assert text.endswith("expected a regular expression with a group in brackets, as in ([^/]+)-[0-9]+.")


def test_a_table_names_groups(folder: Path, tmp_path: Path) -> None:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    table(tmp_path / "groups.csv", *(f"./{path},{row // 2}" for row, path in enumerate(paths)), header="path,group")
    expected = {path: str(row // 2) for row, path in enumerate(paths)}
    for name in ("train", "validation"):
        found = groups(read(folder, "folder", group_table="groups.csv"), name)
        assert found == {path.removeprefix(f"{name}/"): group for path, group in expected.items() if name in path}

    # Images that are left out need no group.
    table(tmp_path / "few.csv", *(f"{path},x" for path in paths if "nature" not in path), header="path,group")
    assert {*groups(read(folder, "folder", group_table="few.csv", exclude=["nature"])).values()} == {"x"}

    message = "there is no such file in the current folder or in"
    assert message in refusal(folder, "folder", group_table="absent.csv")
    assert "give one of them" in refusal(folder, "folder", group_table="groups.csv", group_pattern="(cat)")
    table(
        folder / "inside.csv",
        *(f"{path},{path}" for path in paths[2:]),
        f"{paths[2]},x",
        f"{paths[3]},",
        header="path,group",
    )
    text = refusal(folder, "folder", group_table="inside.csv")
    assert text.startswith(f"data.group_table: {folder}/inside.csv needs one group for each image:\n")
    assert f"\n  line 13: {paths[2]} has another group than in line 2" in text
    assert f"\n  line 14: the group of {paths[3]} is missing" in text
    assert f"\n  there is no row for the image {paths[1]}" in text


# Classes


def test_classes_are_renamed_sorted_and_merged(folder: Path) -> None:
    manifest = read(folder, "folder", class_map={"dalle": "synthetic", "gan": "synthetic", "nature": "a real"})
    assert manifest.classes == ("a real", "synthetic")
    assert labels(manifest.split("train")) == [2, 8]
    assert content(manifest.split("validation")) == {"dalle/cat-x.png": 1, "gan/cat-x.png": 1, "nature/cat-x.png": 0}


def test_numbers_are_class_names(unibuc: Path) -> None:
    config = configure(
        "train", TrainConfig, "data=unibuc", f"data.root={unibuc}", "data.class_map={0: real, 1: 7}"
    ).data
    manifest = read_manifest(config)
    assert manifest.classes == ("7", "real")
    assert content(manifest.split("validation")) == {"e": 1, "f": 0}
    assert manifest.split("test").labels.tolist() == [-1, -1]


def test_classes_are_left_out_by_their_old_or_new_name(folder: Path) -> None:
    for name in ("nature", "real"):
        manifest = read(folder, "folder", class_map={"nature": "real"}, exclude=[name])
        assert manifest.classes == ("dalle", "gan")
        assert labels(manifest.split("train")) == [4, 4]
        assert content(manifest.split("validation")) == {"dalle/cat-x.png": 0, "gan/cat-x.png": 1}
    assert read(folder, "folder", exclude=["dalle"]).classes == ("gan", "nature")


def test_a_class_that_train_does_not_have_can_be_left_out_or_renamed(folder: Path) -> None:
    images(folder / "test" / "photo", "1.png")
    assert "train has dalle, gan, nature; data.exclude=[photo] leaves it out" in refusal(folder, "folder")
    assert [*read(folder, "folder", exclude=["photo"]).splits] == ["train", "validation"]
    assert content(read(folder, "folder", class_map={"photo": "nature"}).split("test")) == {"photo/1.png": 2}


@pytest.mark.parametrize("key", ["exclude", "class_map"])
def test_unknown_classes_are_refused(folder: Path, key: str) -> None:
    value = ["stylegan", "gan"] if key == "exclude" else {"stylegan": "gan", "gan": "x"}
    message = f"data.{key}: the data has no class stylegan; its classes are dalle, gan, nature."
    assert refusal(folder, "folder", **{key: value}) == message


def test_a_new_name_has_to_be_text(folder: Path) -> None:
    assert refusal(folder, "folder", class_map={"gan": None}) == (
        "data.class_map={gan:null}: expected a mapping such as {nature: real}."
    )


def test_small_classes_are_refused_or_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert refusal(folder, "folder", min_class=3) == (
        "data.min_class=3: classes have fewer training images: nature (2). Add images, or leave them out with"
        " data.on_small_class=exclude."
    )
    with caplog.at_level(logging.WARNING):
        manifest = read(folder, "folder", min_class=3, on_small_class="exclude")
    assert "Classes with fewer than 3 training images are left out: nature (2)" in caplog.text
    assert manifest.classes == ("dalle", "gan")
    assert labels(manifest.split("train")) == [4, 4]
    assert len(manifest.split("validation")) == 2
    assert read(folder, "folder", min_class=2).classes == ("dalle", "gan", "nature")
    # Merged classes are counted together.
    assert read(folder, "folder", min_class=6, class_map={"nature": "gan", "dalle": "gan"}).classes == ("gan",)


def test_the_rules_come_before_the_cut(folder: Path) -> None:
    manifest = read(folder, "folder", fold=0, folds=2, fold_of="all", exclude=["nature"])
    assert [len(split) for split in manifest.splits.values()] == [4, 6]
    assert manifest.classes == ("dalle", "gan")


def test_an_empty_name_and_a_data_set_without_classes_are_refused(folder: Path) -> None:
    assert refusal(folder, "folder", class_map={"nature": ""}).startswith("data.class_map: a new name is empty;")
    problem = refusal(folder, "folder", min_class=1000, on_small_class="exclude")
    assert problem == "data.exclude and data.min_class leave out all classes; leave out fewer."
