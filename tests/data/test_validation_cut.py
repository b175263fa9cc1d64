"""The validation split that is cut from train where the data has none."""

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
