"""Warnings before a training: duplicates across splits, and formats and sizes that give the class away."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association as uncorrected

from deepfake_cls import cache, knn, statistics
from deepfake_cls.config import FolderConfig, ImageFilesConfig, KnnConfig, StatisticsConfig, UnibucConfig
from deepfake_cls.config_runs import CacheConfig, CacheFolderConfig
from deepfake_cls.data import inspection
from deepfake_cls.data.cautions import association, shared_groups, shortcuts, warn
from deepfake_cls.data.inspection import Inspection
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.sources import open_source, read_manifest
from tests.conftest import SMALL_DATA, configure
from tests.data.sample_files import ATTRIBUTION, UNIBUC, needs_attribution, needs_unibuc, noise

Options = dict[str, object]
DUPLICATES = (
    "3 of 24 validation images are exact duplicates of training images, 1 of them with another label, such as b/0.png"
    " of a/1.png: the validation accuracy is not that of new images. Remove them from one split. See: deepfake-cls"
    " audit, with the same keys of data."
)


def write(split: str, label: str, number: int, seed: int, suffix: str = "png", side: int = 16) -> None:
    """Write one image of noise."""
    Path("data", split, label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, side, side)).save(f"data/{split}/{label}/{number}.{suffix}")


def fair() -> None:
    """Two classes, 40 training and 12 validation images of each, without duplicates, of one format and size."""
    for place, (split, count) in enumerate((("train", 40), ("validation", 12))):
        for label in "ab":
            for number in range(count):
                write(split, label, number, seed=1000 * place + 100 * ord(label) + number)


def warnings(caplog: pytest.LogCaptureFixture, **options: object) -> list[str]:
    """The warnings for the data in the folder ``data``."""
    config = FolderConfig(root="data", cache="cache", workers=1, **options)  # type: ignore[arg-type]
    manifest = read_manifest(config)
    caplog.clear()
    warn(manifest, config, progress=False)
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_fair_data_gives_no_warning_and_is_read_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fair()
    assert warnings(caplog) == []
    monkeypatch.setattr(inspection, "_inspect", None)  # fails if it is called
    assert warnings(caplog) == []


@pytest.mark.parametrize("command", ["knn", "statistics"])
def test_duplicates_across_splits_are_reported_before_a_run(command: str, caplog: pytest.LogCaptureFixture) -> None:
    fair()
    write("validation", "a", 3, seed=100 * ord("a") + 3)
    write("validation", "a", 4, seed=100 * ord("a") + 3)
    write("validation", "b", 0, seed=100 * ord("a") + 1)
    arguments = ["data=folder", "data.root=data", "data.cache=cache", "data.workers=1", "trainer.progress=false"]
    for expected in ([DUPLICATES], []):  # a finished run is not repeated
        caplog.clear()
        if command == "knn":
            knn.run(configure("knn", KnnConfig, *arguments, "k=[1]", "run_dir=out"), False)
        else:
            some = [*arguments, "features=[colours]", "classifier=linear", "run_dir=out"]
            statistics.run(configure("statistics", StatisticsConfig, *some), False)
        assert [each.getMessage() for each in caplog.records if "cautions" in each.name] == expected


def test_a_cut_leaves_no_duplicates_to_report(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(30):
        write("train", "a", number, seed=number // 2)
        write("train", "b", number, seed=1000 + number // 3)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("suffix", "side", "options", "name"),
    [
        ("bmp", 16, {}, "The format of the training files goes with the class (Cramér's V 1.00"),
        ("png", 64, {"resize": True, "size": [16, 16]}, "The resize factor of the training files goes with the class"),
        ("bmp", 64, {"resize": True, "size": [16, 16]}, "The format and resize factor of the training files go with"),
    ],
)
def test_formats_and_sizes_that_give_the_class_away_are_reported(
    suffix: str, side: int, options: Options, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        for split in ("train", "validation"):
            place = 5000 * (split == "train")
            # All sizes differ, but those of b are larger.
            further = number if side > 16 else 0
            write(split, "a", number, place + number, side=16 + further)
            write(split, "b", number, place + 100 + number, suffix, side + further)
    (found,) = warnings(caplog, **options)
    assert found.startswith(name)


def test_a_weak_association_of_few_images_is_no_warning() -> None:
    formats = ["PNG"] * 7 + ["BMP"] * 3 + ["PNG"] * 3 + ["BMP"] * 7
    sizes = np.full(20, 16)
    columns = {"format": np.array(formats), "digest": np.array(["0"] * 20), "height": sizes, "width": sizes}
    labels = np.repeat([0, 1], 10)
    split = Split("train", tuple(map(str, range(20))), labels, None, inspection=Inspection(columns))
    assert association(columns["format"], labels)[0] > 0.3
    assert shortcuts(split, resize=False) == ""


def test_files_that_cannot_be_read_are_no_duplicates(caplog: pytest.LogCaptureFixture) -> None:
    fair()
    for split in ("train", "validation"):
        Path("data", split, "a", "bad.png").write_bytes(b"")
    assert warnings(caplog, on_error="skip") == []


def test_groups_of_both_splits_are_reported() -> None:
    names = ("a", "b", "b", "c")
    train = Split("train", tuple("0123"), np.zeros(4, np.int64), None, groups=names)
    other = Split("validation", tuple("456"), np.zeros(3, np.int64), None, groups=("c", "d", "b"))
    assert shared_groups(train, other) == (
        "2 groups, such as b, have images in train and in validation: the validation accuracy is not that of new"
        " images. Give each group to one split."
    )
    assert shared_groups(train, dataclasses.replace(other, groups=("x", "y", "z"))) == ""
    assert shared_groups(train, dataclasses.replace(other, groups=None)) == ""


def test_the_warnings_need_no_drawn_images(caplog: pytest.LogCaptureFixture) -> None:
    config = configure("knn", KnnConfig, *SMALL_DATA, "data.cache=cache")
    warn(read_manifest(config.data), config.data, progress=False)
    assert not list(Path("cache").glob("inspection-*"))


def test_the_association_is_the_corrected_v_of_cramer() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    values = np.where(rng.random(500) < 0.5, labels, rng.integers(0, 6, 500))
    table = np.array([[((values == value) & (labels == label)).sum() for label in range(4)] for value in range(6)])
    oracle = chi2_contingency(table, correction=False)
    phi = max(0, oracle.statistic / 500 - 5 * 3 / 499)
    v, p = association(values, labels)
    assert v == pytest.approx(np.sqrt(phi / min(6 - 25 / 499 - 1, 4 - 9 / 499 - 1)))
    assert p == pytest.approx(oracle.pvalue)
    assert v == pytest.approx(uncorrected(table, method="cramer"), abs=0.02)
    assert association(labels, labels)[0] == pytest.approx(1, abs=0.01)
    assert association(np.zeros(500), labels) == (0, 1)
    # Values of single images say nothing, although each determines its class.
    assert association(np.arange(500), labels) == (0, 1)


def test_independent_properties_give_few_warnings() -> None:
    rng = np.random.default_rng(1)
    found = [association(rng.integers(0, 5, 40), rng.integers(0, 2, 40)) for _ in range(500)]
    assert sum(v >= 0.2 and p < 1e-3 for v, p in found) <= 3


@pytest.mark.real_data
@needs_unibuc
def test_the_images_of_the_competition_have_no_shortcut() -> None:
    config = UnibucConfig(root=str(UNIBUC))
    split = open_source(config).inspected(read_manifest(config).split("validation"))
    assert shortcuts(split, resize=True) == ""


@pytest.mark.real_data
@needs_attribution
def test_a_public_sample_has_shortcuts() -> None:
    config: ImageFilesConfig = FolderConfig(root=str(ATTRIBUTION), size=[96, 96], resize=True)
    split = read_manifest(config).split("train")
    assert shortcuts(split, resize=True).startswith(
        "The format and resize factor of the training files go with the class"
    )


def test_the_cache_lists_and_deletes_properties(capsys: pytest.CaptureFixture[str]) -> None:
    fair()
    config = FolderConfig(root="data", cache="cache", workers=1)
    open_source(config).inspected(read_manifest(config).split("train"))
    (file,) = Path("cache").glob("inspection-*.npz")
    cache.run(CacheConfig(data=CacheFolderConfig("cache")), False)
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if "properties" in line)
    assert row[:4] == ["properties", "of", "images", "80"]
    assert row[4:6] == [f"{file.stat().st_size / 1000:.1f}", "kB"]
    assert row[-3:] == ["not", "in", "use"]
    cache.run(CacheConfig(data=CacheFolderConfig("cache"), prune="unused", yes=True), False)
    assert file.exists()
    cache.run(CacheConfig(data=CacheFolderConfig("cache"), prune="all", yes=True), False)
    assert not [*Path("cache").glob("inspection-*")]
    assert "Deleted 1 of 1 item, " in capsys.readouterr().out


def test_splits_that_training_does_not_use_are_named(caplog: pytest.LogCaptureFixture) -> None:
    fair()
    shutil.copytree("data/train", "data/other")
    config = FolderConfig(root="data", cache="cache", workers=1)
    with caplog.at_level("INFO"):
        warn(read_manifest(config), config, False)
    assert "Splits that training does not use: other (80 images)" in caplog.text
