"""Start-up: seconds from the start of a process, on a tiny data set that is decoded already."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measure import watched

REACHED = "the first training step"
REACHED_RECORDS = "the records are read"
# The entry point as it is, but that its first training step ends the process.
FIRST_STEP = f"""
import os, runpy, sys
from deepfake_cls.training.module import Classifier

def stop(self, batch, batch_idx):
    print({REACHED!r}, flush=True)
    os._exit(0)

Classifier.training_step = stop
runpy.run_module("deepfake_cls.train", run_name="__main__", alter_sys=True)
"""
# The same for the report, which begins when it has its records.
RECORDS_READ = f"""
import os, runpy, sys
from deepfake_cls.report import collect as module
read = module.collect

def stop(*arguments):
    if read(*arguments):
        print({REACHED_RECORDS!r}, flush=True)
    os._exit(0)

module.collect = stop
runpy.run_module("deepfake_cls.report", run_name="__main__", alter_sys=True)
"""
IMPORT = "import lightning, os; os._exit(0)"
TINY = [f"data.{name}" for name in ("train_size=40", "validation_size=20", "test_size=10", "workers=1")]


def commands(folder: Path) -> dict[str, list[str]]:
    """What is timed, by name; to run in ``folder``, after :func:`prepare`."""
    data = [*TINY, f'data.cache="{folder / "cache"}"', "trainer.progress=false", "force=true"]
    module = [sys.executable, "-m"]
    return {
        "import lightning": [sys.executable, "-c", IMPORT],
        "train": [sys.executable, "-c", FIRST_STEP, *data, "run_dir=started"],
        "knn": [*module, "deepfake_cls.knn", *data, "run_dir=neighbours"],
        "report --help": [*module, "deepfake_cls.report", "--help"],
        "report": [sys.executable, "-c", RECORDS_READ, "runs=two"],
        "page": [*module, "deepfake_cls.report", "runs=two"],
    }


def prepare(folder: Path) -> None:
    """Draw the data and train the two runs that the report is of."""
    words = [*TINY, f'data.cache="{folder / "cache"}"', "trainer.progress=false", "scale=tiny", "epochs=1"]
    run(folder, [sys.executable, "-m", "deepfake_cls.train", "-m", *words, "batch_size=16", "seed=0,1", "run_dir=two"])


def run(folder: Path, command: list[str]) -> float:
    """Seconds that a command takes.

    Raises:
        RuntimeError: It failed, or ended before it had got where it should.
    """
    status, output, _, seconds = watched(command, folder)
    reached = {FIRST_STEP: REACHED, RECORDS_READ: REACHED_RECORDS}
    if status != 0 or any(code in command and line not in output for code, line in reached.items()):
        raise RuntimeError(f"{' '.join(command)} failed:\n{output[-4000:]}")
    return seconds
