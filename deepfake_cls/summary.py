"""Print the result of a run and the commands to continue with."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deepfake_cls.escaping import printable
from deepfake_cls.notation import plural
from deepfake_cls.records import Record
from deepfake_cls.stats.intervals import wilson
from deepfake_cls.stats.metrics import record_name


def correct_of(record: Record) -> tuple[int, int]:
    """Numbers of correct and of all predictions in a record's confusion matrix."""
    return sum(row[i] for i, row in enumerate(record.confusion)), sum(map(sum, record.confusion))


def interval_of(record: Record, correct: float) -> tuple[float, float]:
    """95 % Wilson interval, fractions, of so many correct predictions of a record; over groups where it has them."""
    count = correct_of(record)[1]
    effective = effective_of(record)
    return wilson(correct * (effective / count), effective)


def effective_of(record: Record) -> float:
    """Number of independent images that the record's images are worth: fewer than these where they have groups."""
    split = record.config.get("split", "validation")  # only evaluate has this key
    return record.metrics.get(record_name("effective_n", split), float(correct_of(record)[1]))


def groups_text(record: Record) -> str:
    """`` in 135 groups`` of the record's scored images; empty without groups."""
    count = record.data.get("groups", {}).get(record.config.get("split", "validation"))
    return "" if count is None else f" in {plural(count, 'group')}"


def accuracy_text(record: Record) -> str:
    """``93.1 % (91.5 to 94.4; 1164 of 1250)``: accuracy with its 95 % interval and its n, see :func:`interval_of`."""
    return _share_text(record, correct_of(record)[0])


def _share_text(record: Record, correct: int) -> str:
    count = correct_of(record)[1]
    low, high = interval_of(record, correct)
    shares = f"{100 * correct / count:.1f} % ({100 * low:.1f} to {100 * high:.1f}"
    return f"{shares}; {correct:,} of {count:,}{groups_text(record)})"


def time_text(seconds: float) -> str:
    """``12.3 s``, ``4.5 min``."""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def number_text(value: float, digits: int) -> str:
    """``−1.20``: with a minus sign, but not before a number that is rounded to 0."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−" if float(text) else "")


def importance_text(row: Mapping[str, Any], classes: Sequence[str]) -> str:
    """``alone 78.3 %, drop 1.2 points, hardest pair a / b 70.1 %`` of a row of ``Record.importance``.

    The row of all groups together has no drop: ``together 91.0 %, hardest pair a / b 80.0 %``.
    """
    accuracy = f"{100 * row['acc']:.1f} %"
    alone = (
        f"alone {accuracy}, drop {number_text(100 * row['drop'], 1)} points"
        if "drop" in row
        else f"together {accuracy}"
    )
    if not row["pairs"]:
        return alone
    first, second, smallest = min(row["pairs"], key=lambda pair: pair[2])
    return f"{alone}, hardest pair {classes[int(first)]} / {classes[int(second)]} {100 * smallest:.1f} %"


def print_run(record: Record, folder: Path, commands: Mapping[str, str]) -> None:
    """Print the results of a run, and commands with what they are for, such as ``next``; a sweep's jobs have none."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    split = record.config.get("split", "validation")  # only evaluate has this key
    table.add_row(f"{split} accuracy, 95 % interval", accuracy_text(record))
    fused = f"{record_name('acc', split)}_fused"
    if fused in record.metrics:
        count = correct_of(record)[1]
        table.add_row("accuracy fused, 95 % interval", _share_text(record, round(record.metrics[fused] * count)))
    if "val_acc_flip" in record.metrics:
        table.add_row("accuracy with flip TTA", f"{100 * record.metrics['val_acc_flip']:.1f} %")
    for name, value in record.metrics.items():
        if (
            name.endswith(
                ("_best", "_recomputed", "macro_f1", "nll", "ece", "_synthetic", "_fused", "_weight", "_temperature")
            )
            or name == "train_acc"
        ) and name != fused:
            percent = name.endswith(("_best", "_recomputed", "_acc", "acc_fused"))
            table.add_row(name, f"{100 * value:.1f} %" if percent else number_text(value, 3))
    for k, metrics in record.by_k.items():
        table.add_row(f"accuracy at k = {k}", f"{100 * metrics['val_acc']:.1f} %")
    for name, recall, row in zip(record.data["classes"], record.recall, record.confusion, strict=True):
        share = "–" if recall is None else f"{100 * recall:.1f} %"
        table.add_row(f"recall, {printable(name)}", f"{share} of {sum(row):,}")
    table.add_row("time", ", ".join(f"{name} {time_text(value)}" for name, value in record.seconds.items()))
    table.add_row(
        "hardware", f"{record.device}, {record.precision}, {record.threads} thread{'s' * (record.threads != 1)}"
    )
    if record.skipped:
        table.add_row("skipped", f"{len(record.skipped)} files, listed in result.json")
    table.add_row("folder", str(folder))
    if record.importance:
        names = [printable(name) for name in record.data["classes"]]
        for each in record.importance:
            table.add_row(f"importance, {each['group']}", importance_text(each, names))
    # Wide enough that a folder or command is not wrapped if the output is a file.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
    console.print(table)
    for purpose, command in commands.items():
        print(f"{purpose}: {command}")
    sys.stdout.flush()
