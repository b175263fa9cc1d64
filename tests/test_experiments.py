"""Experiments through the real command line: killed anywhere, they end with the same tables."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepfake_cls.records import read_record
from tests.conftest import SMALL_NET, call

WORDS = [*SMALL_NET, "data=unibuc", "data.root=competition", "epochs=1"]
SWEEP = ["deepfake_cls.train", *WORDS, "experiment=table6_alpha", "seed=range(1)"]

pytestmark = pytest.mark.usefixtures("unibuc_like")


def tables(runs: str, output: str) -> bytes:
    call("deepfake_cls.report", *WORDS, f"runs={runs}", f"output={output}")
    return Path(output, "tables.csv").read_bytes()


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_started_again_ends_with_the_same_tables() -> None:
    command = [sys.executable, "-m", *SWEEP, "run_dir=killed"]
    sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while len(list(Path("killed").glob("*/result.json"))) < 1 and time.monotonic() < limit:
        time.sleep(0.02)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    finished = len(list(Path("killed").glob("*/result.json")))
    assert 1 <= finished < 3
    again = call(*SWEEP, "run_dir=killed")
    assert again.stdout.count("already done") == finished
    assert call(*SWEEP, "run_dir=whole").stdout.count("already done") == 0
    records = [read_record(folder) for folder in Path("killed").glob("[!.]*")]
    assert sorted(record.config["channels"] for record in records) == ["RGB", "RGBA", "RGBA"]
    first = tables("killed", "a")
    assert first == tables("whole", "b")
    for record in records:
        assert record.identity[:12].encode() in first
    page = Path("a/index.html").read_text()
    assert "Table 6: Alpha channel" in page
    assert "What does not add up" in page


def test_two_experiments_or_a_foreign_one_are_refused_in_one_line() -> None:
    both = call("deepfake_cls.train", "experiment=table4_lr,table5_dropout", check=False)
    assert both.returncode == 1
    assert both.stderr.strip() == (
        "error: experiment=table4_lr,table5_dropout: one at a time; call the command once for each."
    )
    foreign = call("deepfake_cls.knn", "experiment=table4_lr", check=False)
    assert foreign.stderr.strip() == "error: experiment=table4_lr: belongs to python -m deepfake_cls.train."
