"""What several test files share: configurations through Hydra, small data, the competition's data."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from deepfake_cls.config import conf_dir
from deepfake_cls.overrides import to_hydra
from deepfake_cls.report import table
from deepfake_cls.stats import metric
from deepfake_cls.validation import validate

# The suite sees no GPU, and so is the same on every machine; make test-gpu runs the tests that want one. This is set
# before torch is first asked for a GPU, and every process that a test starts inherits it.
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


@pytest.fixture(autouse=True)
def own_place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in a folder of its own, with a cache that all tests share and no user ever sees."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)


def configure(name: str, schema: type[Schema], *overrides: str) -> Schema:
    """A typed configuration, composed as on the command line."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return validate(compose(name, overrides=to_hydra(overrides)), schema)


def call(*words: str, check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``python -m deepfake_cls.<words>`` in a process of its own, in the current folder."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(env or {})},
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(autouse=True)
def gpu_where_wanted(request: pytest.FixtureRequest) -> None:
    """Skip the tests for GPUs unless they are asked for, and there is one."""
    if request.node.get_closest_marker("cuda") is None:
        return
    if not WITH_GPU:
        pytest.skip("wants a GPU: make test-gpu")
    import torch

    assert torch.cuda.is_available(), "make test-gpu wants a GPU, and torch sees none"


@contextmanager
def stopped_after(
    step: int, number: signal.Signals = signal.SIGTERM, message: str = "The same command resumes from it"
) -> Iterator[None]:
    """A signal that comes after so many steps of a training, which then has to stop with a checkpoint and a message."""
    from deepfake_cls.errors import Interrupted
    from deepfake_cls.training.callbacks import StopCleanly

    inner = StopCleanly.on_train_batch_end

    def stop(self: StopCleanly, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step:
            self._receive(number, None)
        inner(self, trainer, *rest)

    with (
        patch.object(StopCleanly, "on_train_batch_end", stop),
        pytest.raises(Interrupted, match=message),
    ):
        yield


@pytest.fixture
def unibuc_like(tmp_path: Path) -> Path:
    """A competition in small: 3 classes of coloured noise that a network learns at once, 16×16 PNG files."""
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
    """The competition's own data, where it is at hand."""
    folder = Path(os.environ.get("DEEPFAKE_CLS_UNIBUC", ROOT.parent / "shared" / "unibuc"))
    if not (folder / "train.csv").is_file():
        pytest.skip(f"the competition's data is not at {folder}; set DEEPFAKE_CLS_UNIBUC to its folder")
    return folder.resolve()


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics and tables that a test registers are gone after it."""
    import deepfake_cls.report.tables  # noqa: F401 (what registers itself on import has to stay)

    monkeypatch.setattr(metric, "_parts", {**metric._parts})
    monkeypatch.setattr(table, "_parts", {**table._parts})
