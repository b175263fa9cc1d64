"""Builds that are killed, that race, that run out of space or lose a worker: tried with real processes."""

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

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data import build, drawing
from deepfake_cls.data.manifest import Split
from deepfake_cls.data.readers import Files
from deepfake_cls.data.store import open_split
from deepfake_cls.data.synthetic import Drawings
from deepfake_cls.errors import InputError
from tests.data.sample_files import COUNT, folders, noise, path_of, write_split

Config = Callable[..., ImageFilesConfig]

# Opens the 71 images in a process of its own; `slow` seconds for each.
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
data, cache, slow = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
decode = readers.decode
readers.decode = lambda *args, **options: (time.sleep(slow), decode(*args, **options))[1]
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


def start(script: str, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", before + script, *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_killed_build_leaves_nothing_that_looks_finished(split: Split, config: Config, cache: Path) -> None:
    process = start(OPEN, path_of(split, 0).parent, cache, 0.05)
    wait_for(lambda: list(cache.glob("building-*/images.u8")))
    time.sleep(0.3)  # some rows are written
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not folders(cache, "store")
    assert len(folders(cache, "building")) == 1
    store = open_split(split, config(verify=True))  # and the lock of the dead process does not hold it up
    np.testing.assert_array_equal(store.images, [noise(row) for row in range(COUNT)])


def test_a_failed_build_leaves_nothing(
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


def test_two_processes_at_once_build_once(split: Split, cache: Path) -> None:
    processes = [start(OPEN, path_of(split, 0).parent, cache, 0.02) for _ in range(3)]
    ends = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({out for out, _ in ends}) == 1
    logs = "".join(err for _, err in ends)
    assert logs.count("Decoding the 71 images") == 1
    assert "Another process is decoding the same images; waiting for it" in logs
    assert len(folders(cache, "store")) == 1
    assert not folders(cache, "building")


def test_a_full_disk_is_one_clear_error(split: Split, cache: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    process = start(OPEN, path_of(split, 0).parent, cache, 0, before=limit)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"InputError: Decoded images cannot be kept in {cache}: File too large. Make room, or give " in err
    assert "Traceback" not in err
    assert not folders(cache, "store")
    assert not folders(cache, "building")


@dataclass(frozen=True)
class _Dying(Files):
    """A reader whose worker processes die at one image."""

    def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
        if row == 40:
            os._exit(137)
        return super().read(row, size)

    def pool(self, workers: int) -> Executor:
        return Drawings("train", 1, 0, 1.0, "none").pool(workers)


def test_a_worker_that_dies_is_one_clear_error(tmp_path: Path) -> None:
    paths = write_split(tmp_path / "data").paths
    assert paths is not None
    with pytest.raises(InputError, match="A worker process died before its images were done") as caught:
        build.fill(_Dying(paths, None, False), tmp_path / "images.u8", 2, False)
    assert "data.workers=1" in str(caught.value)
    assert "__main__" in str(caught.value)


def _children(parent: int) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            yield int(status.parent.name)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "draw.py").write_text(DRAW)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "draw.py", tmp_path / "cache"], env=environment, start_new_session=True
    )
    images = tmp_path / "cache"
    wait_for(lambda: any(path.stat().st_blocks for path in images.glob("building-*/images.u8")), 60)
    workers = list(_children(process.pid))
    assert len(workers) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_the_parent_holds_no_second_copy(tmp_path: Path) -> None:
    row_bytes = 400 * 400 * 3

    @dataclass(frozen=True)
    class Plain(Files):
        def read(self, row: int, size: tuple[int, int] | None) -> tuple[NDArray[np.uint8], bool]:
            return np.full((400, 400, 3), row, np.uint8), False

    tracemalloc.start()
    try:
        build.fill(Plain(tuple(Path(str(row)) for row in range(200)), None, False), tmp_path / "x", 2, False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size == 200 * row_bytes
    assert peak < 10 * row_bytes


def test_processes_are_started_for_many_drawings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start_pool(reader: Drawings, workers: int) -> Executor:
        raise AssertionError(f"{workers} processes")

    monkeypatch.setattr(drawing, "draw", lambda *args, **options: np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(Drawings, "pool", start_pool)
    build.fill(Drawings("test", 511, 0, 1.0, "none"), tmp_path / "x", 8, False)
    with pytest.raises(AssertionError, match="3 processes"):
        build.fill(Drawings("train", 800, 0, 1.0, "none"), tmp_path / "x", 8, False)


def test_workers_import_no_framework() -> None:
    script = (
        "import sys, deepfake_cls.data.store, deepfake_cls.data.drawing; "
        "print({'torch', 'lightning', 'hydra', 'rich'} & set(sys.modules))"
    )
    out, _ = start(script).communicate(timeout=300)
    assert out.strip() == "set()"


def test_images_are_drawn_inside_a_worker_of_joblib_too() -> None:
    program = (
        "import multiprocessing\n"
        "from joblib.externals import loky  # as in its workers, where its own method is the default\n"
        "from deepfake_cls.data.synthetic import Drawings\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('loky', force=True)\n"
        "    reader = Drawings('train', 1, 0, 1.0, 'none', 16)\n"
        "    with reader.pool(1) as pool:\n"
        "        print(pool.submit(reader.read, 0, None).result()[0].shape)\n"
    )
    Path("program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "(16, 16, 3)", done.stderr
