from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from deepfake_cls import runs
from deepfake_cls.config import FolderConfig, KnnConfig, ModelConfig, TrainConfig
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import Hardware
from deepfake_cls.records import Record, read_record, write_record
from deepfake_cls.run_key import defaults_of, hashed_config, run_key
from deepfake_cls.runs import claim
from tests.conftest import call

ID = "ab" * 32


def test_two_that_want_one_run_take_turns_and_the_second_finds_it_done(monkeypatch: pytest.MonkeyPatch) -> None:
    config, order, said = KnnConfig(), list[str](), list[str]()
    monkeypatch.setattr(runs, "print", lambda text, flush: said.append(text), raising=False)

    def first() -> None:
        with claim("knn", ID, config, sweep=False) as run:
            order.append("first in")
            while not said:  # until the second one waits
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
    assert "another process works on this run" in said[0]


def test_a_failure_is_recorded_and_tried_again() -> None:
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


def test_a_stop_by_the_user_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt), claim("knn", ID, KnnConfig(run_dir="out"), sweep=False):
        raise KeyboardInterrupt
    assert not Path("out/result.json").exists()


def test_jobs_of_a_sweep_live_below_the_given_folder() -> None:
    config = KnnConfig(run_dir="parent")
    for identity in (ID, "cd" * 32):
        with claim("knn", identity, config, sweep=True) as run:
            assert run.path == Path("parent") / identity[:12]


def test_a_file_in_the_way_is_refused() -> None:
    Path("out").write_text("a file")
    with (
        pytest.raises(InputError, match="run_dir=out: is a file"),
        claim("knn", ID, KnnConfig(run_dir="out"), sweep=False),
    ):
        pass


def test_the_key_names_what_the_result_was_computed_on() -> None:
    config = TrainConfig()
    one = run_key("cnn", config, "f", Hardware("cpu", "32-true", 2, "x"))
    assert one == run_key("cnn", config, "f", Hardware("cpu", "32-true", 2, "another name"))
    for other in (("cuda", "32-true", 2), ("cpu", "bf16-mixed", 2), ("cpu", "32-true", 1)):
        assert run_key("cnn", config, "f", Hardware(*other, "x")) != one
    # Of a GPU its name counts, and the threads of the CPU beside it do not.
    card = run_key("cnn", config, "f", Hardware("cuda", "32-true", 2, "T4"))
    assert card == run_key("cnn", config, "f", Hardware("cuda", "32-true", 8, "T4"))
    assert card != run_key("cnn", config, "f", Hardware("cuda", "32-true", 2, "H100"))
    # Nearest neighbours are exact on any of them.
    keys = {run_key("knn", KnnConfig(), "f", Hardware("cpu", "32-true", threads, "x")) for threads in (1, 2)}
    assert len(keys) == 1


def test_nothing_is_left_of_a_run_that_never_began() -> None:
    call("deepfake_cls.knn", "features=deep", check=False)
    assert not Path("runs").exists()


def test_a_schema_may_have_keys_without_a_default() -> None:
    @dataclass(kw_only=True)
    class Listed(FolderConfig):
        listing: str

    found = defaults_of(Listed)
    assert "listing" not in found
    assert found == asdict(FolderConfig())
    assert defaults_of(TrainConfig) == asdict(TrainConfig())


def test_arguments_that_no_file_of_the_project_names_are_part_of_the_key() -> None:
    configs = [asdict(TrainConfig(model=ModelConfig("own", args))) for args in ({}, {"kernel": 3}, {"kernel": 5})]
    found = [hashed_config("cnn", config)["model"]["args"] for config in configs]
    assert found == [{}, {"kernel": 3.0}, {"kernel": 5.0}]
    usual = asdict(TrainConfig(model=ModelConfig("resnet", {"skips": True})))
    assert hashed_config("cnn", usual)["model"]["args"] == {}
