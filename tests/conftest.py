"""Fixtures and helpers for all tests: a folder per test, configurations, small data, the competition's data."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from deepfake_cls import train
from deepfake_cls.config import conf_dir
from deepfake_cls.overrides import to_hydra
from deepfake_cls.report import table
from deepfake_cls.stats import metric
from deepfake_cls.validation import validate

# Tests see no GPU, so that they do the same on every machine; make test-gpu runs those that need one. The variable is
# set before torch looks for GPUs, and inherited by each process that a test starts.
WITH_GPU = os.environ.get("DEEPFAKE_CLS_TEST_CUDA") == "1"
if not WITH_GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

ROOT = Path(__file__).parents[1]
Schema = TypeVar("Schema")

SMALL_DATA = ["data.train_size=40", "data.validation_size=20", "data.test_size=10", "data.workers=1"]
SMALL_NET = [
    "scale=tiny",
    "width=8",
    "epochs=2",
    "batch_size=16",
    "trainer.threads=1",
    "trainer.progress=false",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="skip a test as soon as it trains or starts a process")


@pytest.fixture(autouse=True)
def skip_in_fast_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --fast, skip a test as soon as it trains or starts a process."""

    def skip(*args: Any, **options: Any) -> None:
        pytest.skip("trains or starts a process")

    if request.config.getoption("fast"):
        monkeypatch.setattr(train, "run", skip)
        monkeypatch.setattr(subprocess, "Popen", skip)
        monkeypatch.setattr(BaseProcess, "start", skip)


@pytest.fixture(scope="session")
def cache_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of this test session, shared by all tests and by the workers of pytest-xdist."""
    session = tmp_path_factory.getbasetemp()
    return (session.parent if hasattr(request.config, "workerinput") else session) / "cache"


@pytest.fixture(autouse=True)
def run_in_tmp_path(cache_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in its tmp_path, with a cache other than the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.chdir(tmp_path)


def configure(name: str, schema: type[Schema], *overrides: str) -> Schema:
    """A typed configuration, composed as on the command line."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return validate(compose(name, overrides=to_hydra(overrides)), schema)


def call(*arguments: str, check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m ARGUMENTS`` in the current folder; with ``check``, its exit status has to be 0."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(env or {})},
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(autouse=True)
def skip_cuda(request: pytest.FixtureRequest) -> None:
    """Skip the tests that need a GPU, except under make test-gpu."""
    if request.node.get_closest_marker("cuda") is None:
        return
    if not WITH_GPU:
        pytest.skip("needs a GPU: make test-gpu")
    import torch

    assert torch.cuda.is_available(), "make test-gpu needs a GPU, and torch finds none"


@contextmanager
def stopped_after(
    step: int, number: signal.Signals = signal.SIGTERM, message: str = "The same command resumes from it"
) -> Iterator[None]:
    """Send a signal after this number of training steps, and expect a stop with a checkpoint and a message."""
    from deepfake_cls.errors import Interrupted
    from deepfake_cls.training.callbacks import StopCleanly

    inner = StopCleanly.on_train_batch_end

    def stop(self: StopCleanly, trainer: Any, *args: Any) -> None:
        if trainer.global_step == step:
            self._receive(number, None)
        inner(self, trainer, *args)

    with (
        patch.object(StopCleanly, "on_train_batch_end", stop),
        pytest.raises(Interrupted, match=message),
    ):
        yield


@pytest.fixture
def unibuc_like(tmp_path: Path) -> Path:
    """A small data set in the competition's layout: 3 classes of coloured noise, easy to learn, 16×16 PNG files."""
    root = tmp_path / "competition"
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("validation", 12), ("test", 7)):
        (root / split).mkdir(parents=True)
        rows: list[list[Any]] = []
        for index in range(count):
            label = index % 3
            pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            pixels[..., label] += 120
            name = f"{split[:2]}{(index * 11) % count:03d}"
            Image.fromarray(pixels).save(root / split / f"{name}.png")
            rows.append([name] if split == "test" else [name, label])
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image_id"] if split == "test" else ["image_id", "label"], *rows])
    return root


@pytest.fixture(scope="session")
def unibuc() -> Path:
    """The competition's own data; without it the test is skipped."""
    folder = Path(os.environ.get("DEEPFAKE_CLS_UNIBUC", ROOT.parent / "shared" / "unibuc"))
    if not (folder / "train.csv").is_file():
        pytest.skip(f"the competition's data is not at {folder}; set DEEPFAKE_CLS_UNIBUC to its folder")
    return folder.resolve()


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the metrics and tables that a test registers after it."""
    import deepfake_cls.report.tables  # noqa: F401 (parts that are registered on import stay)

    monkeypatch.setattr(metric, "_parts", {**metric._parts})
    monkeypatch.setattr(table, "_parts", {**table._parts})
