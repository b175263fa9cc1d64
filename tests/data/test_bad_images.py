"""Images that cannot be used: all are reported in one message, or skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.listing import indented
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.data.store import open_split
from deepfake_cls.errors import InputError
from tests.data.sample_files import COUNT, Config, folders, noise, path_of, refusal, replace, spoil

# Sizes


RESIZE = (
    "Skip these images with data.on_error=skip, or resize images of another size with data.resize=true, which weakens"
    " generator traces"
)


def test_other_sizes_are_refused_in_one_line_with_three_examples(split: Split, config: Config) -> None:
    for row in (2, 9, 11, 20):
        replace(split, row, noise(row, 8, 7))
    summary = (
        f"Split train: 4 of {COUNT} images cannot be used:\n  each of 4 images is 8×7 (height×width); expected 5×6;"
    )
    assert summary in refusal(split, config())
    replace(split, 3, noise(3, 9, 9))
    text = (
        f"Split train: 5 of {COUNT} images cannot be used:\n"
        "  each of 5 images has another size; expected 5×6; examples:"
        f" {path_of(split, 2)} (8×7), {path_of(split, 3)} (9×9), {path_of(split, 9)} (8×7)\n"
        f"{RESIZE}"
    )
    first = ". The first image has set the size; set another with 'data.size=[HEIGHT,WIDTH]', or use crops of native"
    assert refusal(split, config()) == f"{text}{first} pixels from images of any size with data.crop=SIDE."
    assert refusal(split, config(size=[5, 6])) == f"{text}."


def test_the_advice_fits_the_reasons(split: Split, config: Config) -> None:
    spoil(split, 4)
    assert refusal(split, config()).endswith(
        "\nRepair or remove these files. Skip these images with data.on_error=skip."
    )
    replace(split, 9, noise(9, 8, 7))
    assert f"\nRepair or remove these files. {RESIZE}." in refusal(split, config())


def test_the_size_is_an_argument_or_a_key_or_that_of_the_first_image(split: Split, config: Config) -> None:
    replace(split, 0, noise(0, 8, 7))
    assert f"1 of {COUNT} images" in refusal(split, config(size=[5, 6]))
    assert f"{COUNT - 1} of {COUNT} images" in refusal(split, config())  # the first image sets it
    assert f"{COUNT} of {COUNT} images" in refusal(split, config(size=[5, 6]), size=(9, 9))


def test_resizing_is_logged_each_time(split: Split, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    replace(split, 9, noise(9, 8, 7))
    for _ in range(2):
        caplog.clear()
        store = open_split(split, config(resize=True))
        assert f"resized 1 of {COUNT} images to 5×6 by Lanczos, which weakens" in caplog.text
    expected = Image.fromarray(noise(9, 8, 7)).resize((6, 5), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(store.images[9], expected)
    np.testing.assert_array_equal(store.images[8], noise(8))


# Bad images


def test_bad_images_are_reported_together_by_reason(split: Split, config: Config, cache: Path) -> None:
    rows = [0, *range(30, 54)]
    spoil(split, *rows)
    path_of(split, 30).unlink()
    places = ", ".join(str(path_of(split, row)) for row in (0, 31, 32))
    assert refusal(split, config()).splitlines() == [
        f"Split train: 25 of {COUNT} images cannot be used:",
        f"  each of 24 images is empty (0 bytes); examples: {places}",
        f"  {path_of(split, 30)} does not exist",
        "Repair or remove these files. Skip these images with data.on_error=skip.",
    ]
    assert not folders(cache, "store")
    assert not folders(cache, "building")


def test_at_most_20_reasons_are_listed() -> None:
    lines = indented([f"reason {number}" for number in range(25)]).splitlines()
    assert lines == ["", *(f"  reason {number}" for number in range(20)), "  and 5 more"]


def test_bad_images_can_be_skipped(split: Split, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    bad = [0, 1, 40, COUNT - 1]
    spoil(split, *bad)
    good = [row for row in range(COUNT) if row not in bad]
    for _ in range(2):  # built, then opened
        caplog.clear()
        store = open_split(split, config(on_error="skip", verify=True))
        np.testing.assert_array_equal(store.images, [noise(row) for row in good])
        assert store.kept.tolist() == good
        assert store.skipped == tuple((split.ids[row], "is empty (0 bytes)") for row in bad)
        assert f"skipped 4 of {COUNT} images" in caplog.text
    assert "cannot be used" in refusal(split, config())


def test_the_fingerprint_depends_on_which_images_are_skipped(split: Split, config: Config) -> None:
    for row in range(COUNT):
        replace(split, row, noise(0))
    fingerprints = set()
    for row in (3, 4):
        content = path_of(split, row).read_bytes()
        spoil(split, row)
        fingerprints.add(open_split(split, config(on_error="skip")).fingerprint)
        path_of(split, row).write_bytes(content)
    assert len(fingerprints) == 2


def test_an_empty_split_is_an_error(config: Config) -> None:
    empty = Split("holdout", (), np.array([], np.int64), ())
    assert refusal(empty, config()) == "Split holdout is empty; expected at least one image."


def test_a_split_without_a_good_image_is_an_error(split: Split, config: Config, cache: Path) -> None:
    spoil(split, *range(COUNT))
    text = refusal(split, config(on_error="skip"))
    assert f"{COUNT} of {COUNT} images cannot be used" in text
    assert text.endswith("No image is left.")
    assert "Skip these images" in refusal(split, config())
    assert not folders(cache, "store")


def test_a_class_without_a_good_image_is_an_error(split: Split, config: Config) -> None:
    spoil(split, *range(1, COUNT, 2))
    assert refusal(split, config(on_error="skip")).endswith("No image is left of the class with label 1.")


def test_options_are_checked(split: Split, config: Config) -> None:
    assert "data.on_error=ignore: expected raise or skip" in refusal(split, config(on_error="ignore"))
    for size in ([0, 5], [5], [1, 2, 3]):
        text = str(size).replace(" ", "")
        assert f"data.size={text}: expected height and width" in refusal(split, config(size=size))
    for workers in (0, -1):
        assert f"data.workers={workers}: expected 1 or more" in refusal(split, config(workers=workers))


def test_an_invalid_option_of_the_embedded_data_is_reported_with_its_key(tmp_path: Path) -> None:
    config = SyntheticConfig(cache=str(tmp_path), alpha="checkerboard")
    with pytest.raises(InputError, match="data.alpha=checkerboard: expected none, constant"):
        read_manifest(config)
