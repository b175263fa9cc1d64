"""Builds that are killed, run at the same time, fill the disk or lose a worker, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deepfake_cls.data import build, drawing
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.readers import Files
from deepfake_cls.data.store import open_split
from deepfake_cls.data.synthetic import Drawings
from deepfake_cls.errors import InputError
from tests.data.sample_files import COUNT, Config, folders, noise, path_of, write_split

# Opens the 71 images in another process; decoding takes `delay` seconds longer for each.
OPEN = """
import logging, sys, time
from pathlib import Path
import numpy as np
from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data import readers
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.store import open_split
from deepfake_cls.errors import InputError

logging.basicConfig(level=logging.INFO)
data, cache, delay = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
decode = readers.decode
readers.decode = lambda *args, **options: (time.sleep(delay), decode(*args, **options))[1]
paths = tuple(data / f"{(7 * row) % 71:03d}.png" for row in range(71))
split = Split("train", tuple(path.stem for path in paths), np.arange(71) % 2, paths)
try:
    print(open_split(split, ImageFilesConfig(name="folder", cache=cache, workers=2)).fingerprint)
except InputError as error:
    sys.exit(f"InputError: {error}")
"""

DRAW = """
import sys
from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.data.store import open_split

if __name__ == "__main__":
    config = SyntheticConfig(cache=sys.argv[1], workers=2, train_size=5000)
    open_split(read_manifest(config).split("train"), config)
"""

# Draws with the start method that is the default in a worker of joblib.
JOBLIB = """
import multiprocessing
from joblib.externals import loky  # registers the start method
from deepfake_cls.data.synthetic import Drawings

if __name__ == "__main__":
    multiprocessing.set_start_method("loky", force=True)
    reader = Drawings("train", 1, 0, 1.0, "none", 16)
    with reader.pool(1) as pool:
        print(pool.submit(reader.read, 0, None).result()[0].shape)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    # A file, since spawned workers import the main module again; written once, since another process may be reading it.
    file = Path(f"script_{len(script)}.py")
    if not file.exists():
        file.write_text(script)
    return subprocess.Popen(
        [sys.executable, str(file), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.01)


def test_a_killed_build_leaves_no_store(split: Split, config: Config, cache: Path) -> None:
    process = start(OPEN, path_of(split, 0).parent, cache, 0.05)
    wait_for(lambda: list(cache.glob("building-*/images.u8")))
    time.sleep(0.3)  # some rows are written
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not folders(cache, "store")
    assert len(folders(cache, "building")) == 1
    store = open_split(split, config(verify=True))  # the lock of the killed process does not block
    np.testing.assert_array_equal(store.images, [noise(row) for row in range(COUNT)])


def test_a_failed_build_leaves_no_folder(
    split: Split, config: Config, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)  # the last step before the rename
        with pytest.raises(KeyboardInterrupt):
            open_split(split, config())
    assert not folders(cache, "store")
    assert not folders(cache, "building")
    open_split(split, config())


def test_processes_that_open_a_split_at_once_build_it_once(split: Split, cache: Path) -> None:
    processes = [start(OPEN, path_of(split, 0).parent, cache, 0.02) for _ in range(3)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({out for out, _ in outputs}) == 1
    logs = "".join(err for _, err in outputs)
    assert logs.count("Decoding the 71 images") == 1
    assert "Another process is decoding the same images; waiting for it" in logs
    assert len(folders(cache, "store")) == 1
    assert not folders(cache, "building")


def test_a_full_disk_is_reported_without_a_traceback(split: Split, cache: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    process = start(limit + OPEN, path_of(split, 0).parent, cache, 0)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"InputError: Decoded images cannot be saved to {cache}: File too large. Free some space, or choose " in err
    assert "Traceback" not in err
    assert not folders(cache, "store")
    assert not folders(cache, "building")


@dataclass(frozen=True)
class DyingFiles(Files):
    """Files whose worker process dies at one image."""

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        if row == 40:
            os._exit(137)
        return super().read(row, size)

    def pool(self, workers: int) -> Executor:
        return Drawings("train", 1, 0, 1.0, "none").pool(workers)


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    paths = write_split(tmp_path / "data").paths
    assert paths is not None
    with pytest.raises(InputError, match="A worker process died before its images were done") as caught:
        build.fill(DyingFiles(paths, None, False), tmp_path / "images.u8", 2, False)
    assert "data.workers=1" in str(caught.value)
    assert "__main__" in str(caught.value)


def child_processes(parent: int) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            yield int(status.parent.name)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_workers_exit_when_their_parent_is_killed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = start(DRAW, cache)
    wait_for(lambda: any(path.stat().st_blocks for path in cache.glob("building-*/images.u8")), 60)
    workers = list(child_processes(process.pid))
    assert len(workers) >= 2
    process.kill()
    process.wait()  # communicate() would wait for the workers, which have the same standard output
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_a_build_does_not_load_all_images_into_memory(tmp_path: Path) -> None:
    row_bytes = 400 * 400 * 3

    @dataclass(frozen=True)
    class GreyFiles(Files):
        def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
            return np.full((400, 400, 3), row, np.uint8), False

    tracemalloc.start()
    try:
        build.fill(GreyFiles(tuple(Path(str(row)) for row in range(200)), None, False), tmp_path / "x", 2, False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size == 200 * row_bytes
    assert peak < 10 * row_bytes


def test_processes_are_started_only_for_many_drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_pool(reader: Drawings, workers: int) -> Executor:
        raise AssertionError(f"{workers} processes")

    monkeypatch.setattr(drawing, "draw", lambda *args, **options: np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(Drawings, "pool", start_pool)
    build.fill(Drawings("test", 511, 0, 1.0, "none"), tmp_path / "x", 8, False)
    with pytest.raises(AssertionError, match="3 processes"):
        build.fill(Drawings("train", 800, 0, 1.0, "none"), tmp_path / "x", 8, False)


def test_images_are_drawn_in_a_worker_of_joblib() -> None:
    process = start(JOBLIB)
    out, err = process.communicate(timeout=300)
    assert out.strip() == "(16, 16, 3)", err
