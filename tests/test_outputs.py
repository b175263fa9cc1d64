"""Outputs that cannot be written: a full disk, a path below a file, a file system that is read-only."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from deepfake_cls import knn, predict, train
from deepfake_cls.config import KnnConfig, PredictConfig, TrainConfig
from deepfake_cls.errors import OutputError
from deepfake_cls.files import write_atomically
from deepfake_cls.records import read_record
from deepfake_cls.run_folders import claim
from tests.conftest import SMALL_DATA, SMALL_NET, call, configure, stopped_after
from tests.test_train import assert_equal, outcome

SMALL = [*SMALL_DATA, *SMALL_NET, "data.image_size=16"]
SMALL_KNN = [*SMALL_DATA, "data.image_size=16", "trainer.progress=false", "k=[3]"]
ID = "ab" * 32
FULL = os.strerror(errno.ENOSPC)


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *SMALL, *overrides), False)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Refuse to write files of more than ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoints_and_the_same_command_resumes() -> None:
    fit("run_dir=whole", "logger=csv")
    with stopped_after(4):
        fit("run_dir=parts", "logger=csv")
    files = {file: file.read_bytes() for file in sorted(Path("parts/checkpoints").iterdir())}
    message = (
        "parts/checkpoints/(best|last).ckpt cannot be written: File too large; free some space, or choose another"
        " folder with run_dir=PATH. Then give the same command again; it resumes from parts/checkpoints/last.ckpt.$"
    )
    with largest_file(1_000_000), pytest.raises(OutputError, match=message):
        fit("run_dir=parts", "logger=csv")
    assert {file: file.read_bytes() for file in sorted(Path("parts/checkpoints").iterdir())} == files
    assert "cannot be written" in str(read_record(Path("parts")).error)
    fit("run_dir=parts", "logger=csv")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


def test_a_run_removes_the_unfinished_files_of_a_killed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    config = KnnConfig(run_dir="out")
    with claim("knn", ID, config, sweep=False) as run:
        write_atomically(run.last, b"complete")
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", lambda *_: None)  # the process is killed before this call
            write_atomically(run.last, b"incomplete")
    assert len(list(run.last.parent.iterdir())) == 2
    with claim("knn", ID, config, sweep=False):
        assert [file.read_bytes() for file in run.last.parent.iterdir()] == [b"complete"]


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, FULL)


def full_for_lightning(*_: Any, **__: Any) -> None:
    try:
        full()
    except OSError as error:
        raise ValueError("you tried to log 1.5 which is currently not supported") from error


@pytest.mark.parametrize(("method", "fails"), [("log_metrics", full_for_lightning), ("save", full)])
def test_a_logger_on_a_full_disk_names_the_run(method: str, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorBoardLogger, method, fails)
    with pytest.raises(OutputError, match=f"^out cannot be written: {FULL}; free some space.*same command again.$"):
        fit("run_dir=out")
    assert read_record(Path("out")).status == "failed"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_logger_that_cannot_start_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    with pytest.raises(OutputError, match=f"^out cannot be written: {FULL}; free some space"):
        fit("run_dir=out")


def test_a_disk_that_is_full_at_the_start_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    knn.run(configure("knn", KnnConfig, *SMALL_KNN, "run_dir=other"), False)  # its images are in the cache then
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=f"^out/run.json cannot be written: {FULL}; free some space, or choose"):
        knn.run(configure("knn", KnnConfig, *SMALL_KNN, "run_dir=out"), False)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc, where no file can be created")
def test_a_folder_in_which_no_file_can_be_created_is_one_error() -> None:
    with pytest.raises(OutputError, match="^/proc/foo cannot be written: its lock file cannot be created; choose"):
        knn.run(configure("knn", KnnConfig, *SMALL_KNN, "run_dir=/proc/foo"), False)


def test_a_failure_that_cannot_be_recorded_is_the_error_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), claim("knn", ID, KnnConfig(run_dir="out"), sweep=False):
        monkeypatch.setattr("os.fsync", full)
        print(1 // 0)
    assert [file.name for file in Path("out").iterdir()] == ["run.json"]


@pytest.mark.parametrize(("override", "path"), [("run_dir=file/run", "file/run"), ("seed=1", "runs/knn/[0-9a-f]{12}")])
def test_a_run_below_a_file_is_refused(override: str, path: str) -> None:
    for name in ("file", "runs"):
        Path(name).write_text("content")
    message = f"^{path} cannot be written: (file|runs) is a file; choose another folder with run_dir=PATH.$"
    with pytest.raises(OutputError, match=message):
        knn.run(configure("knn", KnnConfig, *SMALL_KNN, override), False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["knn", "-m", "k=[3],[5]"],
            "runs/.sweep cannot be written: runs is a file; start the sweep in another folder.",
        ),
        pytest.param(
            ["report", "table=2", "output=runs/x"],
            "runs/x/tables.md cannot be written: runs is a file; choose another",
            marks=pytest.mark.slow,  # the report needs three seconds to start
        ),
    ],
)
def test_an_output_below_a_file_is_one_line_and_status_1(arguments: list[str], message: str) -> None:
    Path("runs").write_text("content")
    done = call(f"deepfake_cls.{arguments[0]}", *arguments[1:], check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_predict_refuses_an_output_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    Path("file").write_text("content")
    with pytest.raises(
        OutputError, match="^file/a.csv cannot be written: file is a file; choose another output=FILE.$"
    ):
        predict.run(configure("predict", PredictConfig, "checkpoint=none", "output=file/a.csv"), False)
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(OutputError, match="^a.csv cannot be written: Read-only file system; choose another output="):
        predict.run(configure("predict", PredictConfig, "checkpoint=none", "output=a.csv"), False)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("command", ["{0} | cat", "{0} > file; cat file"])
def test_standard_output_may_be_a_pipe_or_a_file(path: str, command: str) -> None:
    code = f"""
from pathlib import Path
from deepfake_cls.files import write_atomically
print("before")
write_atomically(Path("{path}"), b"content\\n")
print("after")
"""
    printing = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    done = subprocess.run(command.format(printing), shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "before\ncontent\nafter\n"
