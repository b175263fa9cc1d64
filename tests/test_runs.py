"""``deepfake-cls runs``: list runs, delete what is not needed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from deepfake_cls import runs
from deepfake_cls.config import KnnConfig, TrainConfig
from deepfake_cls.config_runs import RunsConfig
from deepfake_cls.errors import InputError
from deepfake_cls.run_folders import claim, lock_of
from deepfake_cls.settings import settings
from tests.conftest import call, configure
from tests.report.fake_runs import TINY, config_of, random_correct, write

RUNS = Path("runs")


def unfinished(name: str = "cd" * 32, config: KnnConfig | None = None) -> Path:
    """A run that was killed."""
    with pytest.raises(KeyboardInterrupt), claim("knn", name, config or KnnConfig(), sweep=False) as run:
        raise KeyboardInterrupt
    return run.path


@pytest.fixture
def finished() -> Path:
    """A finished run with checkpoints."""
    path = write(RUNS, [*TINY, "lr=0.001", "augment.cutmix=null"], 1, random_correct(0.8, 0), time=1e9)
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "last.ckpt").write_bytes(bytes(5_000_000))
    return path


@pytest.fixture
def failed() -> Path:
    """A failed run."""
    return write(RUNS, [*TINY, "data=unibuc", "data.root=photos/mine"], error="it diverged")


def listed(config: RunsConfig | None = None) -> None:
    runs.run(config or RunsConfig(), False)


def test_the_table_shows_what_there_is(finished: Path, failed: Path) -> None:
    unfinished(config=KnnConfig(shift=3))
    running = unfinished("ef" * 32)
    with lock_of(running):
        done = call("deepfake_cls", "runs")
    rows = {cells[0]: cells[1:] for line in done.stdout.splitlines() if (cells := line.split())}
    row = rows[finished.name[:8]]
    assert row[:7] == ["cnn", "ok", "synthetic", "scale=tiny", "lr=0.001", "augment.cutmix=null", "seed=1"]
    assert row[-2:] == ["5.0", "MB"]
    assert rows[failed.name[:8]][:4] == ["cnn", "failed", "mine", "scale=tiny"]
    assert rows["cdcdcdcd"][:4] == ["knn", "unfinished", "synthetic", "shift=3"]
    assert rows["efefefef"][:2] == ["knn", "running"]
    assert done.stdout.splitlines()[2].split()[0] == finished.name[:8]  # the oldest
    assert "4 runs (1 ok, 1 failed, 1 unfinished, 1 running), 5.0 MB" in done.stdout


@pytest.mark.parametrize("columns", [80, 160])
def test_the_table_fits_the_terminal(columns: int, finished: Path) -> None:
    output = in_terminal("", columns)
    assert max(map(len, output.splitlines())) <= columns
    assert finished.name[:8] in output
    assert ("of 200)" in output) == (columns == 160)  # the interval needs room


def test_an_empty_folder_says_how_to_make_a_run() -> None:
    done = call("deepfake_cls.runs")
    assert done.stdout == "runs=runs: no run there. Start with: deepfake-cls knn\n"
    assert not RUNS.exists()


def test_runs_with_names_of_their_own_show_their_folder(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed()
    assert "folder" not in capsys.readouterr().out
    finished.rename(RUNS / "mine")
    listed()
    assert "runs/mine" in capsys.readouterr().out


def test_other_json_files_are_no_runs_and_damaged_records_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("a/run.json", "{}"), ("b/run.json", '{"identity": "x"}'), ("c/result.json", "{")):
        (RUNS / name).parent.mkdir(parents=True)
        (RUNS / name).write_text(text)
    old = RUNS / "knn" / "abababababab"
    old.mkdir(parents=True)
    (old / "run.json").write_text(json.dumps({"identity": "ab" * 32}))  # as older versions wrote it
    listed()
    output = capsys.readouterr().out
    assert "2 runs (1 unreadable, 1 unfinished)" in output
    assert re.search("abababab +knn +unfinished", output)


def test_nothing_goes_without_consent(finished: Path, failed: Path) -> None:
    done = call("deepfake_cls.runs", "prune=failed", check=False)
    assert (done.returncode, done.stdout.split()[0]) == (1, str(failed))
    assert done.stderr == "error: prune=failed: nothing was deleted; without a terminal, confirm with yes=true.\n"
    assert "Nothing was deleted." in in_terminal("n\n", 80, "prune=failed")
    assert failed.is_dir()
    assert "Deleted 1 of 1 folder" in in_terminal("y\n", 80, "prune=failed")
    assert not failed.exists()
    assert finished.is_dir()


def in_terminal(answer: str, columns: int, *arguments: str) -> str:
    """The output of the command in a terminal, in which the user types the answer."""
    outer, inner = pty.openpty()
    os.write(outer, answer.encode())
    command = [sys.executable, "-m", "deepfake_cls.runs", *arguments]
    env = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env)
    os.close(inner)
    output = b""
    try:
        while part := os.read(outer, 4096):
            output += part
    except OSError:  # the end of a terminal on Linux
        pass
    os.close(outer)
    assert process.wait(60) == 0, output.decode()
    return re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r\n", "\n")


def test_checkpoints_of_finished_runs_go_and_the_results_stay(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = unfinished()
    (other / "checkpoints").mkdir()
    listed(RunsConfig(prune="checkpoints", yes=True))
    output = capsys.readouterr().out
    assert f"{finished / 'checkpoints'}  5.0 MB\n" in output
    assert "until it is trained again with force=true" in output
    assert not (finished / "checkpoints").exists()
    assert (finished / "predictions.npz").is_file()
    assert (other / "checkpoints").is_dir()
    listed(RunsConfig(prune="checkpoints", yes=True))
    assert "there is nothing to delete" in capsys.readouterr().out


def test_a_running_run_stays(capsys: pytest.CaptureFixture[str], failed: Path) -> None:
    stopped, running = unfinished(), unfinished("ef" * 32)
    with lock_of(running), lock_of(failed):  # the failed run has just been started again
        listed(RunsConfig(prune="unfinished", yes=True))
        listed(RunsConfig(prune="failed", yes=True))
    assert (stopped.exists(), running.exists(), failed.exists()) == (False, True, True)
    assert f"{failed}: a process works on this run; not deleted.\nDeleted 0 of 1 folder" in capsys.readouterr().out


def test_links_and_folders_with_other_runs_stay(finished: Path, failed: Path, tmp_path: Path) -> None:
    inner = failed / "inner"
    finished.rename(inner)
    outside = tmp_path / "outside"
    (outside / "checkpoints").mkdir(parents=True)
    (outside / "checkpoints" / "kept").touch()
    Path("runs/linked").symlink_to(outside)
    for folder in (outside, outside / "below"):
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps({"identity": "ab" * 32}))
    listed(RunsConfig(prune="failed", yes=True))
    listed(RunsConfig(prune="unfinished", yes=True))
    assert (inner / "result.json").is_file()
    assert (outside / "below").is_dir()
    (inner / "checkpoints" / "last.ckpt").unlink()
    (inner / "checkpoints").rmdir()
    (inner / "checkpoints").symlink_to(outside / "checkpoints")
    listed(RunsConfig(prune="checkpoints", yes=True))
    assert (outside / "checkpoints" / "kept").is_file()


def test_a_run_that_has_finished_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    started = unfinished()

    def finish(question: str) -> bool:
        (started / "result.json").write_text("{}")
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("deepfake_cls.terminal._confirmed", finish)
    listed(RunsConfig(prune="unfinished"))
    assert (started / "result.json").is_file()


def test_refused() -> None:
    with pytest.raises(InputError, match="call it without -m"):
        runs.run(RunsConfig(), True)
    with pytest.raises(InputError, match="prune=all: expected none, failed, unfinished or checkpoints"):
        configure("runs", RunsConfig, "prune=all")


def test_settings_are_the_overrides_that_a_user_would_type() -> None:
    assert settings("cnn", asdict(configure("train", TrainConfig))) == {}
    assert settings("knn", asdict(KnnConfig())) == {}
    for overrides in (
        ["scale=reference", "lr=0.001"],
        ["model.args.skips=false", "augment.flip.p=0.25"],
        ["scale=tiny", "width=32", "seed=3", "recipe.label_smoothing=0"],
        ["data.strength=0.5", "trainer.deterministic=true"],
    ):
        found = settings("cnn", config_of("cnn", *overrides))
        assert sorted(f"{key}={value}" for key, value in found.items()) == sorted(overrides)


@pytest.mark.parametrize(("folder", "message"), [("nope", "does not exist"), ("file", "is a file")])
def test_a_folder_that_is_none_is_refused(folder: str, message: str) -> None:
    Path("file").touch()
    with pytest.raises(InputError, match=f"^runs={folder} {message}.$"):
        listed(RunsConfig(runs=folder))
