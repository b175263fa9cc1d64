"""The table at the end of a sweep, and the command that it prints."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deepfake_cls import knn
from deepfake_cls.config import KnnConfig
from deepfake_cls.sweep import Job, print_sweep, report_command
from tests.conftest import SMALL_DATA, call, configure
from tests.report.fake_runs import random_correct, write

SMALL = [*SMALL_DATA, "trainer.progress=false"]


def cells(table: str) -> list[list[str]]:
    """The rows of a table that begin with a digit."""
    return [line.split() for line in table.splitlines() if line.strip()[:1].isdigit()]


def test_a_sweep_ends_with_a_table_of_what_varied_against_accuracy() -> None:
    knn.run(configure("knn", KnnConfig, *SMALL, "k=[1]"), False)
    (finished,) = Path("runs/knn").glob("[!.]*")
    done = call("deepfake_cls.knn", "-m", *SMALL, "k=[1],[90],[3]", check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    table, _, command = done.stdout.rpartition("── 3 jobs, with 95 % intervals over images")[2].partition("next: ")
    assert table.split("─")[0].split() == ["job", "k", "validation", "accuracy", "folder"]
    first, second, third = cells(table)
    assert first[:2] + first[-1:] == ["1", "[1]", str(finished)]  # it was already done
    assert second == ["2", "[90]", "failed", "–"]
    assert third[:2] == ["3", "[3]"]
    assert all(" ".join(row[3:-1]).endswith("of 20)") for row in (first, third))
    command = (
        command.strip().replace("deepfake-cls", f"{sys.executable} -m deepfake_cls", 1) + " --cfg job"
    )  # composes and makes no page
    printed = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "train_size: 40" in printed.stdout


def test_seeds_of_a_configuration_are_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = []
    for number, (lr, seed) in enumerate([("1e-3", 0), ("1e-3", 1), ("3e-3", 0), ("3e-3", 1)]):
        share = 0.5 + 0.1 * seed
        run = write(tmp_path, ["scale=tiny", f"lr={lr}"], seed, random_correct(share, number, 1000), error=None)
        jobs.append(Job(number, [f"lr={lr}", f"seed={seed}", "channels=RGB"], run=str(run)))
    jobs[3] = Job(3, jobs[3].overrides, failure="it diverged", run=jobs[3].run)
    print_sweep("train", jobs)
    by_job, _, by_seed = capsys.readouterr().out.rpartition("── 4 jobs")[2].partition("Over seeds, mean ± standard")
    assert [row[:3] for row in cells(by_job)] == [[str(job.number + 1), *job.values.values()][:3] for job in jobs]
    assert cells(by_job)[-1][3] == "failed"
    ((lr, mean, _, sd, _, seeds, images),) = cells(by_seed)
    assert (lr, seeds, images) == ("1e-3", "2", "1,000")
    assert float(mean) == pytest.approx(55, abs=3)
    assert float(sd) == pytest.approx(7, abs=4)


def test_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep("knn", [Job(0, ["k=1"], "no"), Job(1, ["k=2"], "no")])
    assert capsys.readouterr().out == ""
    print_sweep("knn", [Job(0, ["k=1"], run="x")])
    assert capsys.readouterr().out == "next: deepfake-cls report\n"


def test_the_printed_command_has_the_overrides_that_all_jobs_share() -> None:
    shared = ["data=folder", "data.root='my data'", "data.cache=x", "channels=RGB", "trainer.threads=1", "run_dir=out"]
    jobs = [Job(number, [*shared, f"lr={number}", f"seed={number}"]) for number in range(2)]
    command = shlex.split(report_command("train", jobs))
    data = ["runs=out", "data=folder", "data.root='my data'", "data.cache=x"]
    assert command[2:] == [*data, "channels=RGB"]
    assert shlex.split(report_command("knn", jobs))[2:] == data


@pytest.mark.parametrize("key", ["data", "data.root"])
def test_the_printed_command_names_no_data_if_the_data_varied(key: str) -> None:
    jobs = [Job(number, ["epochs=2", "data.resize=true", f"{key}={value}"]) for number, value in enumerate("ab")]
    assert report_command("train", jobs) == "deepfake-cls report epochs=2"
