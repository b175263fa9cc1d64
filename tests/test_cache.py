"""``deepfake-cls cache``: list the cached images, delete what is not needed."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_cls import cache
from deepfake_cls.config import FolderConfig, SyntheticConfig
from deepfake_cls.config_runs import CacheConfig, CacheFolderConfig
from deepfake_cls.data import read_manifest
from deepfake_cls.data.entries import DAY, Entry, entries
from deepfake_cls.data.store import Store, _in_use, open_split
from deepfake_cls.data.whole import CropStore
from deepfake_cls.errors import InputError
from tests.conftest import call

CACHE = Path("cache")
DATA = SyntheticConfig(train_size=10, validation_size=5, test_size=5, image_size=16, workers=1, cache="cache")


def opened(config: SyntheticConfig | FolderConfig = DATA, split: str = "validation") -> Store | CropStore:
    """A split, decoded into the cache."""
    return open_split(read_manifest(config).split(split), config)


def prune(what: str) -> None:
    cache.run(CacheConfig(data=CacheFolderConfig("cache"), prune=what, yes=True), False)


def release() -> None:
    """Forget the stores that this process has opened, as if it had ended."""
    _in_use.clear()


def only() -> Entry:
    (entry,) = entries(CACHE)
    return entry


def test_the_table_shows_what_there_is() -> None:
    opened()
    done = call("deepfake_cls.cache", "data.cache=cache")
    (row,) = (line.split() for line in done.stdout.splitlines() if line.strip().startswith("synthetic"))
    assert row[:4] == ["synthetic", "validation", "5", "16×16×3"]
    assert row[-2:] == ["in", "use"]  # by this process
    size = sum(file.stat().st_size for file in CACHE.glob("store-*/*"))
    assert f"1 entry, {size / 1000:.1f} kB, in {CACHE.absolute()}\n" in done.stdout


def test_an_empty_cache_says_how_it_is_filled() -> None:
    done = call("deepfake_cls", "cache", "data.cache=cache")
    assert "cache: no cached images there." in done.stdout
    assert not CACHE.exists()


def test_the_folder_of_the_data_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name in itertools.product(("train", "validation"), ("a", "b")):
        Path("mine", split, name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("mine", split, name, "1.png"))
    opened(FolderConfig(root="mine", cache="cache"), "train")
    assert only().data == {"name": "folder", "split": "train", "root": str(tmp_path / "mine")}
    prune("none")
    assert f"folder {tmp_path / 'mine'}" in re.sub(r"\n\s*", "", capsys.readouterr().out)


def test_entries_of_older_versions_are_shown_and_opened(capsys: pytest.CaptureFixture[str]) -> None:
    fingerprint = opened().fingerprint
    index = only().path / "index.json"
    content = json.loads(index.read_text())
    del content["data"]
    index.write_text(json.dumps(content))
    prune("none")
    assert "unknown" in capsys.readouterr().out
    assert opened().fingerprint == fingerprint
    assert "data" not in json.loads(index.read_text())  # it was not built again


def test_opening_an_entry_sets_the_time_of_its_last_use() -> None:
    opened()
    release()
    index = only().path / "index.json"
    os.utime(index, (0, 0))
    assert only().used == 0
    opened()
    assert time.time() - only().used < 60


def test_unused_entries_go_and_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    opened(split="train")
    recent = only().path
    opened()
    (old,) = {entry.path for entry in entries(CACHE)} - {recent}
    now = time.time()
    os.utime(old / "index.json", (now - 31 * DAY, now - 31 * DAY))
    os.utime(recent / "index.json", (now - 29 * DAY, now - 29 * DAY))
    stale, young = (CACHE / f"building-{digit * 32}" for digit in "ab")
    for folder, age in ((stale, 2 * DAY), (young, 0)):
        folder.mkdir()
        os.utime(folder, (now - age, now - age))
    prune("unused")
    assert not stale.exists()
    assert old.exists()  # this process has it open
    release()
    prune("unused")
    assert (old.exists(), recent.exists(), young.exists()) == (False, True, True)
    prune("all")
    assert (recent.exists(), young.exists()) == (False, True)
    assert not list(CACHE.glob("store-*"))  # the lock files are gone too
    prune("all")
    assert capsys.readouterr().out.endswith("prune=all: there is nothing to delete.\n")


def test_an_entry_that_another_process_has_open_stays_until_it_ends() -> None:
    code = "import tests.test_cache as t; store = t.opened(); print(flush=True); input(); print(store.images.sum())"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    prune("all")
    assert only().status == "in use"
    assert process.communicate("\n", timeout=60)[0].strip().isdigit()
    prune("all")
    assert not entries(CACHE)


def test_a_store_that_is_deleted_while_it_is_open_can_be_read() -> None:
    store = opened()
    before = np.array(store.images)
    release()  # as a store of an older version, which has no lock
    prune("all")
    assert not entries(CACHE)
    np.testing.assert_array_equal(store.images, before)
    assert opened().fingerprint == store.fingerprint  # it is made again


def test_links_and_other_folders_stay(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "index.json").write_text("{}")
    CACHE.mkdir()
    (CACHE / f"store-{'a' * 32}").symlink_to(outside)
    (CACHE / "store-of-mine").mkdir()
    damaged = CACHE / f"store-{'b' * 32}"
    damaged.mkdir()
    assert [entry.status for entry in entries(CACHE)] == ["damaged"]
    prune("all")
    assert (outside / "index.json").exists()
    assert (CACHE / "store-of-mine").exists()
    assert not damaged.exists()


def test_nothing_goes_without_consent() -> None:
    opened()
    release()
    done = call("deepfake_cls.cache", "data.cache=cache", "prune=all", check=False)
    assert done.returncode == 1
    assert done.stderr == "error: prune=all: nothing was deleted; without a terminal, confirm with yes=true.\n"
    assert str(only().path.absolute()) in done.stdout
    with pytest.raises(InputError, match="call it without -m"):
        cache.run(CacheConfig(), True)
