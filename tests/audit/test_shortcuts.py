"""Shortcut tests on data whose files give the class away, and on data whose files do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfake_cls.audit.images import Images
from deepfake_cls.audit.shortcuts import Shortcuts
from tests.audit.planted import encoded, read, write

COUNTS = {"train": 14, "validation": 6}


def shortcuts(images: Images) -> Shortcuts:
    return Shortcuts(images, 0, 1)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return read(write(tmp_path_factory.mktemp("clean") / "data", counts=COUNTS))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Images of one class are JPEG files, and have more detail."""

    def save(name: str, number: int) -> Mapping[str, Any]:
        return {"format": "PNG"} if name == "real" else {"format": "JPEG", "quality": 90 if number % 2 else 70}

    root = write(tmp_path_factory.mktemp("leaking") / "data", save, COUNTS)
    for index, path in enumerate(sorted(root.glob("*/gan/*"))):
        noise = np.random.default_rng(index).integers(0, 60, (48, 48, 3), np.uint8)
        path.write_bytes(encoded(noise, format="JPEG", quality=90 if index % 2 else 70))
    return read(root, reencode="jpeg:90")


def test_equal_properties_are_ok(clean: Images) -> None:
    check = shortcuts(clean).metadata()
    assert (check.verdict, check.numbers["balanced_accuracy"], check.advice) == ("ok", pytest.approx(1 / 3), "")
    assert "can only guess" in check.sentence


def test_bytes_and_colours_of_equal_classes_are_ok(clean: Images) -> None:
    found = shortcuts(clean)
    for check in (found.filesize(), found.colour()):
        assert (check.verdict, check.advice) == ("ok", ""), check.sentence
        assert check.numbers["low"] <= 1 / 3
        assert "after_reencode" not in check.numbers


def test_a_format_that_goes_with_the_class_fails(leaking: Images) -> None:
    check = shortcuts(leaking).metadata()
    assert check.verdict == "fail"
    assert check.sentence.startswith("A classifier that never looks at a pixel is right in 6")
    assert check.numbers["low"] - check.numbers["chance"] > 0.1
    # The format tells one class of three: recall 1 for it, and 1/2 on average for the other two.
    assert check.numbers["alone"]["format"]["value"] == pytest.approx(2 / 3, abs=0.1)
    assert {*check.numbers["alone"]} == {"format", "JPEG quality"}
    assert "data.reencode=jpeg:90" in check.advice


def test_bytes_that_go_with_the_class_warn_only(leaking: Images) -> None:
    check = shortcuts(leaking).filesize()
    assert check.verdict == "warn"
    assert check.numbers["balanced_accuracy"] > 0.8
    after = check.numbers["after_reencode"]["value"]  # noise still needs more bytes, but PNG files are like the others
    assert 0.5 < after < check.numbers["balanced_accuracy"]
    assert len(check.figures) == 2


def test_colours_that_go_with_the_class_warn_only(leaking: Images) -> None:
    check = shortcuts(leaking).colour()
    assert check.verdict == "warn"
    assert check.numbers["balanced_accuracy"] > 0.5
    assert check.numbers["after_reencode"]["value"] > 0.5  # dark images stay dark


def test_images_of_one_group_do_not_help_each_other(clean: Images) -> None:
    """Five images each have the colours of their group; the groups of a class have nothing in common."""
    rng = np.random.default_rng(0)
    group = np.zeros(len(clean), np.int64)
    for label in range(3):
        group[np.flatnonzero(clean.labels == label)] = 10 * label + np.arange(20) // 5
    colour = rng.random((30, 67))[group].astype(np.float32)
    images = replace(clean, appearance=replace(clean.appearance, colour=colour))
    apart = shortcuts(images).colour()
    assert (apart.verdict, apart.numbers["balanced_accuracy"], apart.numbers["grouped"]) == ("warn", 1, False)
    together = shortcuts(replace(images, groups=tuple(map(str, group)))).colour()
    assert (together.verdict, together.numbers["grouped"]) == ("ok", True)


def test_copies_of_an_image_are_in_one_fold(clean: Images) -> None:
    rng = np.random.default_rng(0)
    copies = np.arange(len(clean)) // 4
    digest = np.array([f"{number:064x}" for number in copies.tolist()])
    labels = np.arange(len(clean)) // 4 % 3
    colour = rng.random((len(clean), 67))[copies].astype(np.float32)
    images = replace(
        clean,
        labels=labels,
        columns={**clean.columns, "digest": digest},
        appearance=replace(clean.appearance, colour=colour),
    )
    check = shortcuts(images).colour()
    assert (check.verdict, check.numbers["grouped"]) == ("ok", True)


def test_images_without_labels_are_not_tested(tmp_path: Path) -> None:
    root = write(tmp_path / "data", counts={"test": 1})
    for path in root.glob("test/*/*"):
        path.rename(root / "test" / path.name)
        path.parent.rmdir()
    found = shortcuts(read(root))
    for check in (found.metadata(), found.filesize(), found.colour()):
        assert (check.verdict, check.numbers) == ("warn", {"images": 0})
        assert check.sentence.startswith("Not tested")
