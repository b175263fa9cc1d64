"""The manifest: splits by name, and the hash of its content; no image is opened."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.config import PredictConfig
from deepfake_cls.data.manifest import Manifest, Split
from deepfake_cls.errors import InputError
from deepfake_cls.inference import open_scored_split
from tests.data.sample_files import UNIBUC, images, needs_unibuc, read


def test_an_unknown_split_is_refused(unibuc: Path) -> None:
    with pytest.raises(InputError, match="has train, validation, test; choose one with split=NAME.$"):
        open_scored_split(PredictConfig(split="holdout"), None, read(unibuc))  # type: ignore[arg-type]  # refused before
    with pytest.raises(InputError, match="no split 'holdout'; it has train, validation, test"):
        read(unibuc).split("holdout")


def test_the_hash_depends_on_ids_labels_splits_and_classes_but_not_on_paths(unibuc: Path, tmp_path: Path) -> None:
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
    other_manifests = [Manifest("unibuc", manifest.classes, {**manifest.splits, "train": train}) for train in changed]
    other_manifests += [
        Manifest("unibuc", ("a", "b"), manifest.splits),
        Manifest("unibuc", ("0", "1"), {"train": split}),
    ]
    assert len({manifest.sha256(), *(other.sha256() for other in other_manifests)}) == 6
    assert manifest.sha256(["train"]) == other_manifests[-1].sha256()


def test_the_hash_accepts_names_that_are_not_utf8(tmp_path: Path) -> None:
    images(tmp_path, os.fsdecode(b"\xff.png"))
    assert len(read(tmp_path, "folder").sha256()) == 64


def test_no_image_is_opened(unibuc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", fail)
    read(unibuc)


@pytest.mark.real_data
@needs_unibuc
def test_the_real_data_is_listed_in_under_a_second_of_cpu_time() -> None:
    start = time.process_time()
    manifest = read(UNIBUC)
    assert time.process_time() - start < 1
    assert manifest.classes == ("0", "1", "2", "3", "4")
    for name in ("train", "validation"):
        counts = np.bincount(manifest.split(name).labels)
        assert counts.min() == counts.max()
    assert set(manifest.split("test").labels.tolist()) == {-1}
