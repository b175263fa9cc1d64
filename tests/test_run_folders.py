from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from deepfake_cls import run_folders
from deepfake_cls.config import FolderConfig, KnnConfig, ModelConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import Hardware
from deepfake_cls.records import Record, read_record, write_record
from deepfake_cls.run_folders import claim
from deepfake_cls.run_key import defaults_of, hashed_config, run_key
from tests.conftest import call

ID = "ab" * 32


def test_the_second_of_two_processes_waits_and_finds_the_run_done(monkeypatch: pytest.MonkeyPatch) -> None:
    config, order, printed = KnnConfig(), list[str](), list[str]()
    monkeypatch.setattr(run_folders, "print", lambda text, flush: printed.append(text), raising=False)

    def first() -> None:
        with claim("knn", ID, config, sweep=False) as run:
            order.append("first in")
            while not printed:  # until the second one waits
                time.sleep(0.01)
            write_record(run.path, Record("knn", "ok", ID, asdict(config)))
            order.append("first out")

    thread = threading.Thread(target=first)
    thread.start()
    while not order:
        time.sleep(0.01)
    with claim("knn", ID, config, sweep=False) as run:
        order.append("second in")
        assert run.done is not None
    thread.join()
    assert order == ["first in", "first out", "second in"]
    assert "another process works on this run" in printed[0]


def test_a_failed_run_is_recorded_and_repeated() -> None:
    config = KnnConfig(run_dir="out", seed=7)
    with pytest.raises(ZeroDivisionError), claim("knn", ID, config, sweep=False):
        print(1 // 0)
    record = read_record(Path("out"))
    assert (record.status, record.seed) == ("failed", 7)
    assert record.error is not None
    assert record.error.startswith("ZeroDivisionError")
    with claim("knn", ID, config, sweep=False) as run:
        assert run.done is None
        assert not (run.path / "result.json").exists()


def test_an_error_after_the_result_does_not_replace_it() -> None:
    config = KnnConfig(run_dir="out")
    with pytest.raises(BrokenPipeError), claim("knn", ID, config, sweep=False) as run:
        write_record(run.path, Record("knn", "ok", ID, asdict(config)))
        raise BrokenPipeError
    assert read_record(Path("out")).status == "ok"


def test_a_keyboard_interrupt_is_not_recorded_as_a_failure() -> None:
    with pytest.raises(KeyboardInterrupt), claim("knn", ID, KnnConfig(run_dir="out"), sweep=False):
        raise KeyboardInterrupt
    assert not Path("out/result.json").exists()


def test_run_folders_of_a_sweep_are_below_run_dir() -> None:
    config = KnnConfig(run_dir="parent")
    for identity in (ID, "cd" * 32):
        with claim("knn", identity, config, sweep=True) as run:
            assert run.path == Path("parent") / identity[:12]


def test_a_file_as_run_dir_is_refused() -> None:
    Path("out").write_text("a file")
    with (
        pytest.raises(InputError, match="run_dir=out: is a file"),
        claim("knn", ID, KnnConfig(run_dir="out"), sweep=False),
    ):
        pass


def test_the_minor_version_of_torch_is_part_of_the_run_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(version: str) -> str:
        monkeypatch.setattr("torch.__version__", version)
        return run_key("cnn", TrainConfig(), "f", Hardware("cpu", "32-true", 2, "x"))

    assert key("2.15.0+cu132") == key("2.15.1")
    assert len({key("2.15.0"), key("2.16.0"), key("3.15.0")}) == 3


def test_hardware_is_part_of_the_run_key() -> None:
    config = TrainConfig()
    one = run_key("cnn", config, "f", Hardware("cpu", "32-true", 2, "x"))
    assert one == run_key("cnn", config, "f", Hardware("cpu", "32-true", 2, "another name"))
    for other in (("cuda", "32-true", 2), ("cpu", "bf16-mixed", 2), ("cpu", "32-true", 1)):
        assert run_key("cnn", config, "f", Hardware(*other, "x")) != one
    # The name of a GPU counts, the threads of the CPU do not.
    card = run_key("cnn", config, "f", Hardware("cuda", "32-true", 2, "T4"))
    assert card == run_key("cnn", config, "f", Hardware("cuda", "32-true", 8, "T4"))
    assert card != run_key("cnn", config, "f", Hardware("cuda", "32-true", 2, "H100"))
    # KNN is exact on any hardware.
    keys = {run_key("knn", KnnConfig(), "f", Hardware("cpu", "32-true", threads, "x")) for threads in (1, 2)}
    assert len(keys) == 1


def test_a_refused_run_leaves_no_folder() -> None:
    call("deepfake_cls.knn", "features=deep", check=False)
    assert not Path("runs").exists()


def test_a_required_key_has_no_default() -> None:
    @dataclass(kw_only=True)
    class Listed(FolderConfig):
        listing: str

    defaults = defaults_of(Listed)
    assert "listing" not in defaults
    assert defaults == asdict(FolderConfig())
    assert defaults_of(TrainConfig) == asdict(TrainConfig())


def test_arguments_of_a_plugins_network_are_part_of_the_key() -> None:
    configs = [asdict(TrainConfig(model=ModelConfig("own", args))) for args in ({}, {"kernel": 3}, {"kernel": 5})]
    hashed = [hashed_config("cnn", config)["model"]["args"] for config in configs]
    assert hashed == [{}, {"kernel": 3.0}, {"kernel": 5.0}]
    default = asdict(TrainConfig(model=ModelConfig("resnet", {"skips": True})))
    assert hashed_config("cnn", default)["model"]["args"] == {}
