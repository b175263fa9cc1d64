"""Sweeps through Hydra's joblib launcher; ``tests/cluster`` has SLURM and Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from deepfake_cls import train
from deepfake_cls.config import TrainConfig
from deepfake_cls.records import read_record
from tests.conftest import SMALL_NET, call, configure
from tests.test_train import assert_equal, outcome

DATA = ["data=unibuc", "data.root=competition"]  # relative to the folder in which the command is called
OVERRIDES = [*SMALL_NET, *DATA, "channels=RGB", "epochs=1"]
SWEEP = ["deepfake_cls.train", *OVERRIDES, "-m", "launcher=joblib", "hydra.launcher.n_jobs=2"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unibuc_like")]


def test_jobs_in_workers_equal_single_runs_and_their_failures_are_listed() -> None:
    done = call(*SWEEP, "lr=4e-3,0,1e30", check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    for message in ("lr=0: expected a number above 0", "Training diverged"):
        assert done.stderr.count(message) == 2  # when it happens, and at the end
    assert "2 job(s) failed:" in done.stderr
    table = [line.split() for line in done.stdout.rpartition("── 3 jobs")[2].splitlines() if line.strip()[:1].isdigit()]
    assert [row[:2] + row[2:3] * (row[2] == "failed") for row in table] == [
        ["1", "0.004"],
        ["2", "0", "failed"],
        ["3", "1e+30", "failed"],
    ]
    assert not list(Path("runs/.sweep").glob("jobs-*"))
    records = {record.config["lr"]: record for record in map(read_record, Path("runs/cnn").glob("[!.]*"))}
    assert {lr: record.status for lr, record in records.items()} == {4e-3: "ok", 1e30: "failed"}
    assert "diverged" in str(records[1e30].error)
    train.run(configure("train", TrainConfig, *OVERRIDES, "lr=4e-3", "run_dir=single"), False)
    assert_equal(outcome(Path("runs/cnn") / records[4e-3].identity[:12]), outcome(Path("single")))


def test_two_parallel_sweeps_make_shared_runs_once() -> None:
    sweeps = [
        subprocess.Popen([sys.executable, "-m", *SWEEP, f"seed={seeds}"], stdout=subprocess.PIPE, text=True)
        for seeds in ("0,1", "1,0")
    ]
    output = "".join(sweep.communicate(timeout=300)[0] for sweep in sweeps)
    assert [sweep.returncode for sweep in sweeps] == [0, 0], output
    assert output.count("already done") == 2
    assert output.count("next: ") == 2  # of each sweep
    assert sorted(read_record(folder).seed for folder in Path("runs/cnn").glob("[!.]*")) == [0, 1]


def test_a_signal_ends_the_sweep_and_its_workers() -> None:
    sweep = subprocess.Popen([sys.executable, "-m", *SWEEP, "epochs=100000", "seed=0,1"], stderr=subprocess.PIPE)
    limit = time.monotonic() + 300
    while len(list(Path("runs/cnn").glob("*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(sweep.pid, signal.SIGTERM)
    assert b"Stopped." in sweep.communicate(timeout=300)[1]
    assert sweep.returncode == 128 + signal.SIGTERM
    locks = list(Path("runs/cnn").glob(".*.lock"))
    assert len(locks) == 2
    for lock in locks:
        FileLock(lock).acquire(timeout=300)  # free once its worker has ended
