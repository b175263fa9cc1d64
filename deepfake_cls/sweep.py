"""The end of a sweep: a table of what varied against accuracy, and the command that makes the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deepfake_cls.commands import command
from deepfake_cls.errors import InputError
from deepfake_cls.records import Record, read_record

# Keys that select no run of a report: where and how the jobs ran.
OMITTED = ("hydra", "launcher", "experiment", "trainer", "logger", "force", "seed", "run_dir", "checkpoint", "tta")


@dataclass(frozen=True)
class Job:
    """A job of a sweep that has ended.

    Attributes:
        number: Its number in the sweep, from 0.
        overrides: Its overrides, ``key=value``.
        failure: One line; None after success.
        run: The folder of its run, also of one that was already done; None if the job failed before.
    """

    number: int
    overrides: list[str]
    failure: str | None = None
    run: str | None = None

    @property
    def values(self) -> dict[str, str]:
        """The overrides by key."""
        return dict(text.partition("=")[::2] for text in self.overrides)


def print_sweep(entry: str, jobs: Sequence[Job]) -> None:
    """Compare the jobs of a sweep, in this order, and print the next command; print nothing if none has a run."""
    if not any(job.run for job in jobs) or sys.stdout is None:  # None after a closed pipe
        return
    if len(jobs) > 1:
        _print_tables(entry, jobs)
    print(f"next: {report_command(entry, jobs)}", flush=True)


def _print_tables(entry: str, jobs: Sequence[Job]) -> None:
    from deepfake_cls.terminal import print_table

    keys = varied(jobs)
    rows = [[str(job.number + 1), *(_value(job, key) for key in keys), _accuracy(job), job.run or "–"] for job in jobs]
    print(f"\n── {len(jobs)} jobs, with 95 % intervals over images")
    accuracy = "accuracy" if entry == "evaluate" else "validation accuracy"
    print_table(["job", *keys, accuracy, "folder"], rows, whole=["job", "folder"])
    if seeds := over_seeds(jobs, keys):
        others = [key for key in keys if key != "seed"]
        print("Over seeds, mean ± standard deviation")
        print_table([*others, accuracy, "seeds", "images each"], seeds)


def varied(jobs: Sequence[Job]) -> list[str]:
    """The keys whose value is not the same in all jobs, in the order of the overrides."""
    values = [job.values for job in jobs]
    keys = dict.fromkeys(key for each in values for key in each)
    return [key for key in keys if len({each.get(key) for each in values}) > 1]


def over_seeds(jobs: Sequence[Job], keys: Sequence[str]) -> list[list[str]]:
    """A row for each configuration that has runs of two seeds or more: values, mean ± sd, seeds, images."""
    from deepfake_cls.stats.intervals import summarise
    from deepfake_cls.summary import correct_of

    if "seed" not in keys:
        return []
    shares: dict[tuple[str, ...], dict[str, float]] = {}
    images: dict[tuple[str, ...], int] = {}  # of one seed
    for job in jobs:
        if (record := _record(job)) is not None and job.run is not None:
            correct, count = correct_of(record)
            values = tuple(_value(job, key) for key in keys if key != "seed")
            images[values] = count
            shares.setdefault(values, {})[job.run] = correct / count  # jobs may share a run: KNN has no seed
    summaries = {values: summarise([*by_run.values()]) for values, by_run in shares.items()}
    return [
        [*values, f"{100 * summary.mean:.1f} ± {100 * summary.sd:.1f} %", str(summary.seeds), f"{images[values]:,}"]
        for values, summary in summaries.items()
        if summary.sd is not None
    ]


def report_command(entry: str, jobs: Sequence[Job]) -> str:
    """The command that makes the page, with the overrides that all jobs share."""
    shared = [text for text in jobs[0].overrides if all(text in job.overrides for job in jobs)]
    if {"data", "data.root"} & {*varied(jobs)}:  # the others would be keys of no data, or of another layout
        shared = [text for text in shared if not text.startswith("data")]
    arguments = [f"runs={text.partition('=')[2]}" for text in shared if text.startswith("run_dir=")]
    for text in shared:
        group = text.partition("=")[0].partition(".")[0]
        is_key_of_report = entry == "train" or group in ("data", "plugins")  # report has the keys of train
        if is_key_of_report and group not in OMITTED:
            arguments.append(text)
    return command("report", arguments)


def _value(job: Job, key: str) -> str:
    return job.values.get(key, "–").strip("'\"")


def _accuracy(job: Job) -> str:
    from deepfake_cls.summary import accuracy_text

    record = _record(job)
    return "failed" if record is None else accuracy_text(record)


def _record(job: Job) -> Record | None:
    """The record of a job that succeeded."""
    if job.failure is None and job.run is not None:
        with suppress(InputError):
            return read_record(Path(job.run))
    return None
