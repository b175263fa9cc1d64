"""Sweeps of experiments on the command line: after a kill and a restart, the tables are the same."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepfake_cls.records import read_record
from tests.conftest import SMALL_NET, call

OVERRIDES = [*SMALL_NET, "data=unibuc", "data.root=competition", "epochs=1"]
SWEEP = ["deepfake_cls.train", *OVERRIDES, "experiment=table6_alpha", "seed=range(1)"]

pytestmark = pytest.mark.usefixtures("unibuc_like")


def tables(runs: str, output: str) -> bytes:
    call("deepfake_cls.report", *OVERRIDES, f"runs={runs}", f"output={output}")
    return Path(output, "tables.csv").read_bytes()


@pytest.mark.slow
def test_a_killed_and_restarted_sweep_gives_the_same_tables() -> None:
    command = [sys.executable, "-m", *SWEEP, "run_dir=killed"]
    sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while len(list(Path("killed").glob("*/result.json"))) < 1 and time.monotonic() < limit:
        time.sleep(0.02)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    finished = len(list(Path("killed").glob("*/result.json")))
    assert 1 <= finished < 3
    restarted = call(*SWEEP, "run_dir=killed")
    assert restarted.stdout.count("already done") == finished
    assert call(*SWEEP, "run_dir=complete").stdout.count("already done") == 0
    records = [read_record(folder) for folder in Path("killed").glob("[!.]*")]
    assert sorted(record.config["channels"] for record in records) == ["RGB", "RGBA", "RGBA"]
    csv = tables("killed", "a")
    assert csv == tables("complete", "b")
    for record in records:
        assert record.identity[:12].encode() in csv
    page = Path("a/index.html").read_text()
    assert "Table 6: Alpha channel" in page
    assert "Discrepancies in the paper" in page


def test_two_experiments_or_one_of_another_command_are_refused() -> None:
    both = call("deepfake_cls.train", "experiment=table4_lr,table5_dropout", check=False)
    assert both.returncode == 1
    assert both.stderr.strip() == (
        "error: experiment=table4_lr,table5_dropout: one at a time; call the command once for each."
    )
    foreign = call("deepfake_cls.knn", "experiment=table4_lr", check=False)
    assert foreign.stderr.strip() == "error: experiment=table4_lr: belongs to deepfake-cls train."
