"""The store: its pixels, its key in the cache, and what happens if it is damaged."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deepfake_cls.config import ImageFilesConfig, SyntheticConfig
from deepfake_cls.data import decode, drawing, readers
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.readers import Files
from deepfake_cls.data.sources import open_source, read_manifest
from deepfake_cls.data.store import Store, _key, open_split
from deepfake_cls.data.synthetic import Drawings
from deepfake_cls.data.whole import CropStore
from tests.data.sample_files import COUNT, UNIBUC, Config, folders, needs_unibuc, noise, path_of, refusal, replace


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def fail(*args: Any, **options: Any) -> None:
            raise AssertionError("an image was decoded")

        monkeypatch.setattr(readers, "decode", fail)

    return forbid


# Pixels


@pytest.mark.parametrize("workers", [1, 2, None])
def test_the_store_contains_the_pixels_in_the_order_of_the_split(
    split: Split, config: Config, workers: int | None
) -> None:
    store = open_split(split, config(workers=workers))
    np.testing.assert_array_equal(store.images, [noise(row) for row in range(COUNT)])
    assert store.images.dtype == np.uint8
    assert store.size == (5, 6)
    assert not store.has_alpha
    assert store.kept.tolist() == list(range(COUNT))
    assert store.kept.dtype == np.int64
    assert store.skipped == ()


def test_the_images_are_mapped_and_read_only(split: Split, config: Config) -> None:
    store = open_split(split, config())
    assert isinstance(store.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.images[0, 0, 0, 0] = 1


@pytest.mark.parametrize("row", [0, 1, COUNT - 1])
def test_one_image_with_alpha_gives_all_images_an_alpha_channel(split: Split, config: Config, row: int) -> None:
    replace(split, row, noise(row, channels=4))
    store = open_split(split, config())
    assert store.has_alpha
    assert store.images.shape == (COUNT, 5, 6, 4)
    for other in range(COUNT):
        expected = noise(row, channels=4) if other == row else np.dstack([noise(other), np.full((5, 6), 255)])
        np.testing.assert_array_equal(store.images[other], expected)


def test_the_store_of_the_embedded_data_contains_its_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawings, "images_per_worker", 16)
    config = SyntheticConfig(
        cache=str(tmp_path), workers=2, seed=3, train_size=36, validation_size=5, test_size=2, strength=0.5
    )
    manifest = read_manifest(config)
    for name in ("train", "test"):  # train is drawn in worker processes, test in this process
        store = open_split(manifest.split(name), config)
        for row in (0, len(store.images) - 1):
            np.testing.assert_array_equal(store.images[row], drawing.draw(3, name, row, strength=0.5))
    assert store.size == (drawing.SIZE, drawing.SIZE)
    config.alpha = "mask"
    masked = open_split(manifest.split("test"), config)
    assert masked.has_alpha
    np.testing.assert_array_equal(masked.images[1], drawing.draw(3, "test", 1, strength=0.5, alpha="mask"))


# Key and fingerprint


def test_a_later_run_decodes_nothing(split: Split, config: Config, no_decoding: Callable[[], None]) -> None:
    first = open_split(split, config())
    no_decoding()
    again = open_split(split, config(workers=1, verify=True))
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.images, first.images)


def test_the_fingerprint_depends_on_the_pixels_and_not_on_the_paths(
    split: Split, config: Config, tmp_path: Path
) -> None:
    first = open_split(split, config())
    folder = tmp_path / "renamed"
    (tmp_path / "data").rename(folder)
    paths = tuple(folder / path.name for path in split.paths or ())
    other = Split("other", split.ids, split.labels, paths)
    assert open_split(other, config(cache=str(tmp_path / "b"))).fingerprint == first.fingerprint
    pixels = noise(3)
    pixels[0, 0, 0] ^= 1
    replace(other, 3, pixels)
    assert open_split(other, config()).fingerprint != first.fingerprint


def test_a_changed_file_is_decoded_again(split: Split, config: Config) -> None:
    open_split(split, config())
    before = path_of(split, 3).stat()
    replace(split, 3, 255 - noise(3))
    os.utime(path_of(split, 3), ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    np.testing.assert_array_equal(open_split(split, config()).images[3], 255 - noise(3))


def test_the_key_of_files_depends_on_everything_that_changes_pixels(
    split: Split, config: Config, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reverse = Split("train", split.ids[::-1], split.labels, (split.paths or ())[::-1])
    open_split(split, config())
    open_split(reverse, config())
    open_split(split, config(size=[5, 6]))
    open_split(split, config(size=[5, 6], resize=True))
    open_split(split, config(on_error="skip"))
    assert len(folders(cache, "store")) == 5
    monkeypatch.setattr(readers, "DECODE_VERSION", decode.DECODE_VERSION + 1)
    open_split(split, config())
    assert len(folders(cache, "store")) == 6


def test_the_key_of_drawings_depends_on_everything_that_changes_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint_and_stores(**options: Any) -> tuple[str, int]:
        config = SyntheticConfig(
            cache=str(tmp_path), workers=1, train_size=5, validation_size=5, test_size=5, **options
        )
        manifest = read_manifest(config)
        store = open_split(manifest.split("test"), config)
        return store.fingerprint, len(list(tmp_path.glob("store-*.lock")))

    options: list[dict[str, Any]] = [{}, {"seed": 1}, {"strength": 0.5}, {"alpha": "constant"}]
    assert len({fingerprint_and_stores(**each) for each in options}) == 4
    monkeypatch.setattr(drawing, "VERSION", drawing.VERSION + 1)
    assert fingerprint_and_stores()[1] == 5


def test_keys_are_those_of_earlier_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.__version__", "11.0.0")
    Path("a.png").write_bytes(b"12345")
    os.utime("a.png", ns=(0, 1_000_000_007))
    paths = (Path("a.png"), Path("gone.png"))
    keys = [
        _key(Files(paths, None, False), skip=False),
        _key(Files(paths, (5, 6), True), skip=True),
        _key(Drawings("train", 40, 3, 0.5, "mask", 64), skip=False),
    ]
    assert keys == [
        "4e9dc71dcbd3833f96e8d6d5758152131e0a3339a9b6f9372d195de4fd7c53aa",
        "479de60f370f6d525f138e0e6afd89f4e24a4eb67e9d3b46ed7aec9386429ff4",
        "aa194ba75d561bf77d19c24bb9688988ea16cb97ab5dcc5a620ec7d0f83f44ec",
    ]


def test_the_reader_has_the_settings_of_the_data(split: Split, config: Config) -> None:
    files = open_source(config(size=[5, 6], resize=True)).reader(split, None)
    assert files == Files(split.paths or (), (5, 6), True)
    assert open_source(config(size=[5, 6])).reader(split, (7, 8)) == Files(split.paths or (), (7, 8), False)
    drawn = SyntheticConfig(seed=3, strength=0.5, alpha="mask", image_size=64)
    assert open_source(drawn).reader(split, (7, 8)) == Drawings("train", COUNT, 3, 0.5, "mask", 64)


def test_only_the_images_of_the_split_are_opened(split: Split, config: Config, tmp_path: Path) -> None:
    (tmp_path / "data" / "broken.png").write_text("no image")
    test = Split("test", ("broken",), np.array([-1]), (tmp_path / "data" / "broken.png",))
    open_split(split, config())
    assert "broken.png" in refusal(test, config())


# Damage


def damage(store: Store | CropStore, cache: Path, kind: str) -> None:
    (folder,) = folders(cache, "store")
    if kind == "byte":
        with (folder / "images.u8").open("r+b") as file:
            file.seek(store.images.size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    elif kind == "short":
        os.truncate(folder / "images.u8", store.images.size - 1)
    elif kind == "long":
        os.truncate(folder / "images.u8", store.images.size + 1)
    elif kind == "gone":
        (folder / "images.u8").unlink()
    elif kind == "index":
        (folder / "index.json").write_text((folder / "index.json").read_text()[:-30])
    elif kind == "key":
        index = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**index, "key": "0" * 64}))


@pytest.mark.parametrize("kind", ["byte", "short", "long", "gone", "index", "key"])
def test_a_damaged_store_is_reported_and_built_again(
    split: Split, config: Config, cache: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    store = open_split(split, config())
    damage(store, cache, kind)
    again = open_split(split, config(verify=kind == "byte"))
    np.testing.assert_array_equal(again.images, [noise(row) for row in range(COUNT)])
    assert again.fingerprint == store.fingerprint
    assert f"{folders(cache, 'store')[0]} is damaged (" in caplog.text
    assert "its images are decoded again" in caplog.text


def test_pixels_are_only_verified_with_data_verify(split: Split, config: Config, cache: Path) -> None:
    damage(open_split(split, config()), cache, "byte")
    assert (np.asarray(open_split(split, config()).images) != [noise(row) for row in range(COUNT)]).sum() == 1


def test_folders_of_killed_builds_are_removed_after_a_day(split: Split, config: Config, cache: Path) -> None:
    old, new = cache / "building-old", cache / "building-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "images.u8").touch()
    os.utime(old, (time.time() - 86_500,) * 2)
    os.utime(new, (time.time() - 86_300,) * 2)
    open_split(split, config())
    assert not old.exists()
    assert new.exists()


# The cache folder


def test_the_message_for_an_unwritable_cache_names_the_folder_and_the_key(
    split: Split, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert refusal(split, config(cache=str(tmp_path / "file" / "cache"))) == (
        f"Decoded images cannot be saved to {tmp_path}/file/cache: Not a directory. "
        "Free some space, or choose another folder: data.cache=PATH."
    )


@pytest.mark.parametrize("home", ["XDG_CACHE_HOME", "HOME"])
def test_the_default_cache_is_in_the_cache_of_the_user(
    split: Split,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    home: str,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # ignored, by the XDG specification
    monkeypatch.setenv(home, str(tmp_path / "user"))
    open_split(split, config(cache=None))
    cache = tmp_path / "user" if home == "XDG_CACHE_HOME" else tmp_path / "user" / ".cache"
    assert len(list((cache / "deepfake_cls").glob("store-*/images.u8"))) == 1


def test_the_cache_can_start_with_a_tilde(
    split: Split, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_split(split, config(cache="~/images"))
    assert (tmp_path / "images").is_dir()


def test_a_progress_bar_is_shown_only_with_progress(
    split: Split, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    open_split(split, config())
    assert capsys.readouterr() == ("", "")
    open_split(split, config(resize=True), progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert f"{COUNT}/{COUNT}" in err


def test_a_build_is_logged_with_its_folder(
    split: Split, config: Config, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        open_split(split, config())
    assert f"Decoding the {COUNT} images of split train into {folders(cache, 'store')[0]}" in caplog.text


@pytest.mark.real_data
@needs_unibuc
def test_the_real_data_is_decoded_once(tmp_path: Path) -> None:
    config = ImageFilesConfig(name="unibuc", root=str(UNIBUC), cache=str(tmp_path))
    split = read_manifest(config).split("validation")
    store = open_split(split, config)
    assert store.images.shape == (len(split), 100, 100, 3)
    for row in (0, 77, len(split) - 1):
        with Image.open(path_of(split, row)) as image:
            np.testing.assert_array_equal(store.images[row], np.asarray(image.convert("RGB")))
    start = time.process_time()
    assert open_split(split, config).fingerprint == store.fingerprint
    assert time.process_time() - start < 0.5
