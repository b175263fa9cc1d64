"""The store of whole images of several sizes, and the crops that are read from it."""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls import cache
from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.config_runs import CacheConfig
from deepfake_cls.crops import Crops
from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.sources import open_source
from deepfake_cls.data.store import open_split
from deepfake_cls.data.whole import CropStore, WholeImages
from deepfake_cls.errors import InputError
from tests.conftest import configure
from tests.data.sample_files import folders, noise, refusal, spoil
from tests.data.test_datamodule import pages_in_memory

SIDE = 20
COUNT = 70  # several chunks of 32


def size_of(row: int) -> tuple[int, int]:
    return SIDE + row % 7, SIDE + 3 * (row % 5)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Images of 20×20 to 26×32 pixels; each tenth has alpha."""
    paths = tuple(tmp_path / "images" / f"{row:02d}.png" for row in range(COUNT))
    paths[0].parent.mkdir()
    for row, path in enumerate(paths):
        Image.fromarray(pixels_of(row)).save(path)
    return Split("train", tuple(path.name for path in paths), np.arange(COUNT) % 2, paths)


def pixels_of(row: int) -> NDArray[np.uint8]:
    return noise(row, *size_of(row), channels=4 if row % 10 == 5 else 3)


def rgba(row: int) -> NDArray[np.uint8]:
    image = pixels_of(row)
    return image if image.shape[2] == 4 else np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def config(**options: Any) -> ImageFilesConfig:
    return ImageFilesConfig(**{"name": "folder", "root": "images", "cache": "cache", "crop": SIDE, **options})


def opened(split: Split, **options: Any) -> CropStore:
    store = open_split(split, config(**options))
    assert isinstance(store, CropStore)
    return store


def test_whole_images_are_stored_as_they_are(split: Split) -> None:
    store = opened(split)
    for row in range(COUNT):
        np.testing.assert_array_equal(store.whole.image(row), pixels_of(row))
    assert store.size == (SIDE, SIDE)
    assert store.has_alpha
    assert (store.folder / "images.u8").stat().st_size == sum(pixels_of(row).size for row in range(COUNT))


def test_another_crop_needs_no_decoding_and_other_pixels_do(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(split)
    monkeypatch.setattr("deepfake_cls.data.store.write_whole", None)
    for options in cast("list[dict[str, Any]]", [{"crops": 9}, {"crop": SIDE - 4}, {"small": "skip"}]):
        assert opened(split, **options).fingerprint == first.fingerprint
    with pytest.raises(TypeError):
        opened(split, reencode="jpeg:90")


def test_crops_and_images_of_one_size_have_stores_of_their_own(split: Split) -> None:
    assert split.paths is not None
    for row, path in enumerate(split.paths):
        Image.fromarray(noise(row, SIDE, SIDE)).save(path)
    uniform = open_split(split, config(crop=None))
    assert not isinstance(uniform, CropStore)
    np.testing.assert_array_equal(opened(split).images, uniform.images)
    assert len(folders(Path("cache"), "store")) == 2


def test_the_fingerprint_depends_on_pixels_and_not_on_threads(split: Split) -> None:
    prints = {opened(split, workers=1).fingerprint}
    assert split.paths is not None
    (folder,) = folders(Path("cache"), "store")
    folder.rename("elsewhere")
    for row in range(0, COUNT, 9):  # decoding these takes longer, so the order in the file may differ
        Image.fromarray(pixels_of(row)).save(split.paths[row], compress_level=9)
    prints.add(opened(split, workers=4).fingerprint)
    assert len(prints) == 1
    hasher = hashlib.sha256(np.array([pixels_of(row).shape for row in range(COUNT)], "<i8").tobytes())
    for row in range(COUNT):
        hasher.update(pixels_of(row).tobytes())
    assert prints == {hasher.hexdigest()}
    changed = pixels_of(3).copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(split.paths[3])
    assert opened(split).fingerprint not in prints


@pytest.mark.parametrize("damage", ["images.u8", "table.npy", "verify"])
def test_a_damaged_store_is_built_again(split: Split, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = opened(split)
    file = expected.folder / ("images.u8" if damage == "verify" else damage)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content if damage == "verify" else content[:-1])
    again = opened(split, verify=True)
    assert again.fingerprint == expected.fingerprint
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(again.whole.image(COUNT - 1), pixels_of(COUNT - 1))


def test_the_centre_crops_are_the_images_for_knn_and_statistics(split: Split) -> None:
    store = opened(split)
    expected = []
    for row in range(COUNT):
        (height, width), image = size_of(row), rgba(row)
        y, x = round((height - SIDE) / 2), round((width - SIDE) / 2)
        expected.append(image[y : y + SIDE, x : x + SIDE])
    for _ in range(2):  # the second time from the file
        np.testing.assert_array_equal(store.images, expected)
        store = opened(split)
    assert not [*Path("cache").rglob("*.tmp")]


def test_cache_lists_the_store(
    split: Split, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(split)
    monkeypatch.setenv("COLUMNS", "200")
    cache.run(configure("cache", CacheConfig, "data.cache=cache"), False)
    assert re.search(rf"train\s+{COUNT}\s+any size", capsys.readouterr().out)


# Small and damaged images


def test_small_images_are_refused_skipped_or_extended(split: Split, caplog: pytest.LogCaptureFixture) -> None:
    side = SIDE + 2
    text = refusal(split, config(crop=side))
    few = [row for row in range(COUNT) if min(size_of(row)) < side]
    assert f"Split train: {len(few)} of {COUNT} images cannot be used:" in text
    assert f"images has another size; expected {side} or more pixels in each direction; examples: " in text
    assert " (20×20)" in text
    assert text.splitlines()[-1] == (
        f"Choose a smaller crop than data.crop={side}, skip these images with data.small=skip, or extend them by"
        " reflection with data.small=pad."
    )
    skipping = opened(split, crop=side, small="skip")
    assert skipping.images.shape[:3] == (COUNT - len(few), side, side)
    assert skipping.kept.tolist() == [row for row in range(COUNT) if row not in few]
    assert [image_id for image_id, _ in skipping.skipped] == [split.ids[row] for row in few]
    assert skipping.fingerprint != opened(split).fingerprint
    for position, row in enumerate(skipping.kept.tolist()):
        np.testing.assert_array_equal(skipping.whole.image(position), pixels_of(row))
    caplog.set_level("INFO")
    extended = opened(split, crop=side, small="pad")
    assert f"extended {len(few)} of {COUNT} images to {side} pixels by reflection" in caplog.text
    assert len(extended.kept) == COUNT
    assert extended.images.shape == (COUNT, side, side, 4)


def test_damaged_images_are_refused_or_skipped_beside_small_ones(split: Split) -> None:
    spoil(split, 2, 40)
    assert "is empty (0 bytes)" in refusal(split, config())
    store = opened(split, on_error="skip")
    assert len(store.kept) == COUNT - 2
    np.testing.assert_array_equal(store.whole.image(38), pixels_of(39))
    options = {**vars(config()), "crop": SIDE + 1, "small": "skip", "on_error": "skip"}
    both = open_split(split, ImageFilesConfig(**options))
    assert [reason for image_id, reason in both.skipped if image_id in ("02.png", "40.png")] == [
        "is empty (0 bytes)"
    ] * 2
    assert both.skipped == tuple(sorted(both.skipped))


def test_a_class_without_images_is_refused(split: Split) -> None:
    assert split.paths is not None
    for row in range(1, COUNT, 2):
        Image.fromarray(noise(row, 10, 10)).save(split.paths[row])
    assert "No image is left of the class with label 1." in refusal(split, config(small="skip"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": [64, 64]}, "data.size=[64,64]: data.crop=20 uses native pixels of any size; give one of them."),
        ({"resize": True}, "data.resize=true: data.crop=20 uses native pixels of any size; give one of them."),
        ({"crop": None, "crops": 9}, "data.crops=9: is about crops of images; add data.crop=SIDE, or omit it."),
        ({"crop": None, "small": "pad"}, "data.small=pad: is about crops of images; add data.crop=SIDE, or omit it."),
        ({"crop": 8}, "data.crop=8: expected 16 or more pixels"),
        ({"crops": 257}, "data.crops=257: expected 1 or more, at most 256"),
        ({"small": "grow"}, "data.small=grow: expected raise, skip or pad"),
        *(
            ({"reencode": text}, f"data.reencode={text}: expected jpeg or webp and a quality from 1 to 100")
            for text in ("png:90", "jpeg", "jpeg:0", "jpeg:101", "webp:9.5", "JPEG:90")
        ),
    ],
)
def test_contradictions_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(config(**options))
    assert message in re.sub("['\"]", "", str(caught.value))
    assert "\n" not in str(caught.value)


# Batches


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mincore(2) of Linux")
def test_crops_of_the_next_batch_are_read_ahead(tmp_path: Path) -> None:
    file, line = tmp_path / "images.u8", 64 * 3
    table = np.array([(row * 256 * line, 256, 64, 3) for row in range(300)])  # 12 pages for each image
    file.write_bytes(np.random.default_rng(0).bytes(len(table) * 256 * line))
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    images = np.memmap(file, np.uint8, "r")
    mapped: Any = images.base
    if any(pages_in_memory(mapped, len(images))):
        pytest.skip("this file system keeps files in memory")
    store = CropStore(WholeImages(images, table), Crops(48), tmp_path, "", np.arange(300), ())
    rows, corners = np.array([7, 290]), np.array([[[0, 5], [208, 0]], [[100, 9], [150, 3]]])
    store.prefetch(rows, corners)
    starts = [(row * 256 + y) * line for row, of_row in zip(rows, corners, strict=True) for y, _ in of_row]
    expected = {start // mmap.PAGESIZE + page for start in starts for page in range(48 * line // mmap.PAGESIZE + 1)}
    deadline = time.monotonic() + 300
    while not all(pages_in_memory(mapped, len(images))[page] for page in expected):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(pages_in_memory(mapped, len(images))) < len(table) * 12 / 2


def pixels(split: Split, channels: str = "RGB", **options: Any) -> Pixels:
    return Pixels(SplitImages(split.ids, split.labels, opened(split, **options)), channels)


def test_shuffled_batches_have_one_random_crop_of_each_image(split: Split) -> None:
    seen: dict[int, set[tuple[int, int]]] = {row: set() for row in range(COUNT)}
    batches = Batches(pixels(split, "RGBA"), 16, seed=3)
    for _ in range(6):
        for batch in batches:
            assert batch.images.shape == (len(batch.labels), SIDE, SIDE, 4)
            assert batch.crops == 1
            for image, row in zip(batch.images.numpy(), batch.indices.tolist(), strict=True):
                whole, (height, width) = rgba(row), size_of(row)
                corners = [(y, x) for y in range(height - SIDE + 1) for x in range(width - SIDE + 1)]
                places = [(y, x) for y, x in corners if np.array_equal(whole[y : y + SIDE, x : x + SIDE], image)]
                assert len(places) == 1
                seen[row] |= {*places}
    assert sum(len(places) > 2 for places in seen.values()) > 40


def test_random_crops_depend_on_seed_epoch_and_step_only(split: Split) -> None:
    def images(seed: int, epoch: int = 0, step: int = 0, needed: list[int] | None = None) -> list[torch.Tensor]:
        rows = None if needed is None else np.array(needed)
        batches = Batches(pixels(split), 16, seed, needed=None if needed is None else lambda *_: rows)
        batches.load_state_dict({"epoch": epoch, "step": step})
        return [batch.images for batch in batches]

    whole = images(1)
    resumed, share = images(1, step=2), images(1, needed=[5, 2])
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], resumed, strict=True))
    assert all(torch.equal(a[[5, 2]], b) for a, b in zip(whole[:4], share[:4], strict=True))
    rows, source = np.arange(COUNT), pixels(split)
    draws = ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))  # seed, epoch, step
    corners = [np.array(source.random_corners(rows, *draw)) for draw in draws]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(corners, 2))


@pytest.mark.parametrize("crops", [1, 4, 9])
def test_batches_in_file_order_have_the_grid_of_each_image(split: Split, crops: int) -> None:
    batches = [*Batches(pixels(split, crops=crops), 36)]
    assert len(batches[0].labels) == 36 // crops
    assert np.concatenate([batch.indices for batch in batches]).tolist() == [*range(COUNT)]
    row = 13
    grid = torch.cat([batch.images for batch in batches]).view(COUNT, crops, SIDE, SIDE, 3)[row].numpy()
    (height, width), image = size_of(row), pixels_of(row)
    if crops == 1:
        y, x = round((height - SIDE) / 2), round((width - SIDE) / 2)
        np.testing.assert_array_equal(grid[0], image[y : y + SIDE, x : x + SIDE])
    else:
        np.testing.assert_array_equal(grid[0], image[:SIDE, :SIDE])
        np.testing.assert_array_equal(grid[-1], image[-SIDE:, -SIDE:])
