"""``data=synthetic``: the splits and their labels."""

from __future__ import annotations

import pytest

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import InputError


def test_synthetic_has_labels_except_in_test() -> None:
    manifest = read_manifest(SyntheticConfig(train_size=12, validation_size=5, test_size=3))
    assert manifest.name == "synthetic"
    assert len(manifest.classes) == 5
    assert [len(split) for split in manifest.splits.values()] == [12, 5, 3]
    assert manifest.split("train").labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert manifest.split("test").labels.tolist() == [-1, -1, -1]
    assert manifest.split("train").paths is None
    assert manifest.split("train").ids[11] == "train-000011"


def test_synthetic_can_have_no_test_split() -> None:
    assert list(read_manifest(SyntheticConfig(test_size=0)).splits) == ["train", "validation"]


@pytest.mark.parametrize("size", [4, 0, -1])
def test_synthetic_needs_an_image_of_each_class(size: int) -> None:
    with pytest.raises(InputError, match=rf"data\.train_size={size}: expected 5 or more"):
        read_manifest(SyntheticConfig(train_size=size))


def test_synthetic_refuses_a_negative_test_split() -> None:
    with pytest.raises(InputError, match=r"data\.test_size=-1: expected 0 or more"):
        read_manifest(SyntheticConfig(test_size=-1))
