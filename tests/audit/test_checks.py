"""Each check on data in which its fault was planted, and on data without a fault."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.audit.check import Check
from deepfake_cls.audit.classes import balance, groups
from deepfake_cls.audit.duplicates import exact_duplicates, label_conflicts, near_duplicates
from deepfake_cls.audit.files import alpha, decoding, formats
from deepfake_cls.config import AuditConfig
from tests.audit.planted import CLASSES, encoded, first, read, scene, write
from tests.conftest import configure

CHECKS = (decoding, formats, alpha, balance, exact_duplicates, near_duplicates, label_conflicts, groups)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def files(check: Check) -> list[list[str]]:
    """The files of the groups of images in the examples."""
    return [[image["file"] for image in example["images"]] for example in check.examples]


def below(root: Path, *paths: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def test_data_without_a_fault_is_ok(root: Path) -> None:
    images = read(root)
    assert {check(images).name: check(images).verdict for check in CHECKS} == {each.__name__: "ok" for each in CHECKS}
    assert not any(check(images).advice or check(images).examples for check in CHECKS)


def test_files_that_do_not_decode_are_listed_with_the_reason(root: Path) -> None:
    cut, empty = first(root, "train", "gan"), first(root, "validation", "real")
    cut.write_bytes(cut.read_bytes()[:-60])
    empty.write_bytes(b"")
    check = decoding(read(root))
    assert (check.verdict, check.numbers["refused"], check.numbers["images"]) == ("fail", 2, 36)
    assert [example["file"] for example in check.examples] == below(root, cut, empty)
    assert check.examples[1]["reason"] == "is empty (0 bytes)"
    assert "data.on_error=skip" in check.advice
    assert decoding(read(root, on_error="skip")).verdict == "warn"


def test_a_data_set_of_bad_files_only_is_described(root: Path) -> None:
    for path in root.glob("*/*/*"):
        path.write_bytes(b"no image")
    images = read(root)
    found = {check.__name__: check(images) for check in CHECKS}
    assert (found["decoding"].verdict, found["decoding"].numbers["refused"]) == ("fail", 36)
    assert len(found["decoding"].examples) == 20
    assert found["formats"].sentence == "No file can be decoded."
    assert found["exact_duplicates"].verdict == "ok"


def test_formats_by_class_and_wrong_suffixes(root: Path) -> None:
    for index in range(2):
        first(root, "train", "gan", index).write_bytes(encoded(scene(500 + index), format="JPEG", quality=80))
    path = first(root, "train", "real")
    path.write_bytes(encoded(scene(600, 60)[:50], format="PNG"))
    check = formats(read(root))
    assert check.verdict == "warn"
    assert check.sentence == "The files have 2 formats and 2 sizes. Files with the suffix of another format: 2."
    assert check.numbers["formats"]["images"] == {"PNG": 34, "JPEG": 2}
    assert check.numbers["sizes"]["images"] == {"48×48": 35, "50×60": 1}
    assert check.numbers["by_class"]["gan"]["jpeg_quality"]["images"] == {"80": 2}
    assert [example["file"] for example in check.examples] == below(
        root, *(first(root, "train", "gan", index) for index in range(2))
    )
    rows = {row[0]: row for row in check.rows}
    assert rows["gan"][2:] == ("PNG 83.3 %, JPEG 16.7 %", "RGB", "48×48", "80", "")


def test_metadata_are_counted(root: Path) -> None:
    first(root, "train", "gan").write_bytes(encoded(scene(0), format="PNG") + b"jumbc2pa")
    first(root, "train", "real").write_bytes(encoded(scene(1), format="PNG", icc_profile=b"a profile"))
    numbers = formats(read(root)).numbers
    assert (numbers["c2pa"], numbers["profile"], numbers["exif"], numbers["text"]) == (1, 1, 0, 0)
    assert numbers["by_class"]["real"]["profile"] == 1


def with_alpha(path: Path, value: int | None) -> None:
    """Add an alpha channel, constant or with a hole."""
    pixels = np.dstack([np.asarray(Image.open(path)), np.full((48, 48), 255 if value is None else value, np.uint8)])
    pixels[:8, :8, 3] = 0 if value is None else value
    path.write_bytes(encoded(pixels, format="PNG"))


@pytest.mark.parametrize(
    ("classes", "value", "verdict", "sentence"),
    [
        (CLASSES, 255, "ok", "The alpha channel of each image is constant."),
        (CLASSES, None, "warn", "Alpha channels: varied."),
        (("gan",), None, "fail", "gives classes away"),
        (("gan",), 255, "fail", "gives classes away"),
    ],
)
def test_alpha_channels(root: Path, classes: tuple[str, ...], value: int | None, verdict: str, sentence: str) -> None:
    for path in root.glob("*/*/*"):
        if path.parent.name in classes:
            with_alpha(path, value)
    check = alpha(read(root))
    assert (check.verdict, sentence in check.sentence) == (verdict, True), check.sentence


def test_some_images_with_alpha_in_each_class_are_a_warning(root: Path) -> None:
    for name in CLASSES:
        with_alpha(first(root, "train", name), None)
    check = alpha(read(root))
    assert (check.verdict, check.numbers["images"]) == ("warn", {"none": 33, "varied": 3})


def test_balance(root: Path) -> None:
    for path in sorted((root / "train" / "gan").iterdir())[:6]:
        path.unlink()
    check = balance(read(root))
    assert (check.verdict, check.numbers["ratio"]) == ("warn", 2.0)
    assert check.numbers["images"]["train"] == {"gan": 2, "latent": 8, "real": 8}
    shutil.rmtree(root / "validation" / "latent")
    check = balance(read(root))
    assert check.verdict == "fail"
    assert "latent has no image in validation" in check.sentence


def copy_of(path: Path, target: Path, **options: Any) -> Path:
    """The same pixels in another file."""
    target.write_bytes(encoded(np.asarray(Image.open(path)), **{"format": "BMP", **options}))
    return target


def test_exact_duplicates_within_and_across_splits(root: Path) -> None:
    original = first(root, "train", "gan")
    twin = copy_of(original, root / "train" / "gan" / "twin.bmp")
    check = exact_duplicates(read(root))
    assert (check.verdict, check.numbers["groups"], check.numbers["across_splits"]) == ("warn", 1, 0)
    other = first(root, "train", "latent")
    copy_of(other, root / "validation" / "latent" / "twin.bmp")
    images = read(root)
    check = exact_duplicates(images)
    assert (check.verdict, check.numbers["images"], check.numbers["across_splits"]) == ("fail", 4, 1)
    assert files(check)[0] == below(root, other, root / "validation" / "latent" / "twin.bmp")  # across splits first
    assert sorted(files(check)[1]) == sorted(below(root, original, twin))
    assert near_duplicates(images).verdict == label_conflicts(images).verdict == "ok"


@pytest.mark.parametrize("kind", ["jpeg", "resized", "brighter"])
def test_near_duplicates_are_found(kind: str, root: Path) -> None:
    original = first(root, "train", "gan")
    image = Image.open(original)
    target = root / "validation" / "gan" / "twin.png"
    if kind == "jpeg":
        target.write_bytes(encoded(image, format="JPEG", quality=40))
    elif kind == "resized":
        target.write_bytes(encoded(image.resize((80, 80)), format="PNG"))
    else:
        target.write_bytes(encoded(np.asarray(image) // 2 + 60, format="PNG"))
    images = read(root)
    check = near_duplicates(images)
    assert (check.verdict, check.numbers["groups"], check.numbers["across_splits"]) == ("fail", 1, 1)
    assert files(check) == [below(root, original, target)]
    assert exact_duplicates(images).verdict == label_conflicts(images).verdict == "ok"
    assert check.pictures == [[images.ids.index(f"gan/{original.name}"), images.ids.index("gan/twin.png")]]


def test_flat_images_are_no_near_duplicates(root: Path) -> None:
    for number in range(6):
        path = root / "train" / "gan" / f"flat{number}.png"
        path.write_bytes(encoded(np.full((48, 48, 3), 40 * number, np.uint8), format="PNG"))
    assert near_duplicates(read(root)).verdict == "ok"


def test_copies_with_different_labels_are_conflicts(root: Path) -> None:
    original = first(root, "train", "gan")
    exact = copy_of(original, root / "train" / "real" / "twin.bmp")
    other = first(root, "train", "latent")
    near = root / "train" / "real" / "near.jpg"
    near.write_bytes(encoded(Image.open(other), format="JPEG", quality=60))
    # A third version makes the exact copies a near duplicate too; they are still one conflict.
    (root / "train" / "gan" / "third.jpg").write_bytes(encoded(Image.open(original), format="JPEG", quality=60))
    check = label_conflicts(read(root))
    assert (check.verdict, check.numbers) == ("fail", {"exact": 1, "near": 1})
    assert files(check) == [below(root, original, exact), below(root, other, near)]
    exact.unlink()
    check = label_conflicts(read(root))
    assert (check.verdict, check.numbers) == ("warn", {"exact": 0, "near": 1})


def test_names_that_repeat_across_classes_give_a_pattern(root: Path) -> None:
    for folder in root.glob("*/*"):
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"prompt{number}.png")
    check = groups(read(root))
    assert check.verdict == "warn"
    assert (check.numbers["shared_names"], check.numbers["shared_names_across_splits"]) == (8, 4)
    pattern = re.search(r"'(data\.group_pattern=.*?)'\.", check.advice)
    assert pattern is not None
    config = configure("audit", AuditConfig, "data=folder", "data.root=x", pattern[1])  # it can be pasted
    assert config.data.group_pattern == check.numbers["group_pattern"]
    found = re.search(config.data.group_pattern, "train/gan/prompt 1.2.png")
    assert found is not None
    assert found[1] == "prompt 1.2"


def test_groups_across_splits(root: Path) -> None:
    images = read(root)
    apart = replace(images, groups=tuple(f"{split}/{row // 3}" for row, split in enumerate(images.split.tolist())))
    check = groups(apart)
    assert (check.verdict, check.numbers["groups"], check.numbers["largest"]) == ("ok", 12, 3)
    across = list(apart.groups or ())
    across[0] = across[-1]
    check = groups(replace(images, groups=tuple(across)))
    assert (check.verdict, check.numbers["across_splits"]) == ("fail", 1)
    assert len(check.examples[0]["images"]) == 4


def test_images_smaller_than_a_crop_are_listed(root: Path) -> None:
    path = first(root, "train", "gan")
    path.write_bytes(encoded(scene(99, 30), format="PNG"))
    assert decoding(read(root, crop=30)).verdict == decoding(read(root, crop=40, small="pad")).verdict == "ok"
    check = decoding(read(root, crop=40))
    assert (check.verdict, check.numbers["too_small"]) == ("fail", 1)
    assert check.examples[0]["file"] == below(root, path)[0]
    assert check.examples[0]["reason"] == "is 30×30 (height×width); expected 40 or more pixels in each direction"
    assert decoding(read(root, crop=40, small="skip")).verdict == "warn"


def test_groups_that_allow_no_cut_fail_and_all_else_is_audited(root: Path) -> None:
    shutil.rmtree(root / "validation")
    assert groups(read(root)).verdict == "ok"
    check = groups(read(root, group_pattern="(train)"))
    assert check.verdict == "fail"
    assert "none can be cut from train: all 8 images of the class gan are of one group" in check.sentence
    assert decoding(read(root, group_pattern="(train)")).verdict == "ok"
