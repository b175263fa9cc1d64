"""Print the result of a run and the next command."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deepfake_cls.config import CommandConfig
from deepfake_cls.records import Record
from deepfake_cls.stats.intervals import wilson

OMITTED_KEYS = ("name", "cache", "workers", "verify")  # by data_arguments


def correct_of(record: Record) -> tuple[int, int]:
    """Numbers of correct and of all predictions in a record's confusion matrix."""
    return sum(row[i] for i, row in enumerate(record.confusion)), sum(map(sum, record.confusion))


def accuracy_text(record: Record) -> str:
    """``93.1 % (91.5 to 94.4; 1164 of 1250)``: accuracy with its 95 % Wilson interval and its n."""
    correct, count = correct_of(record)
    low, high = wilson(correct, count)
    return f"{100 * correct / count:.1f} % ({100 * low:.1f} to {100 * high:.1f}; {correct:,} of {count:,})"


def time_text(seconds: float) -> str:
    """``12.3 s``, ``4.5 min``."""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def argument(key: str, value: object) -> str:
    """``key=value``, quoted for the shell and for Hydra's parser."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{escaped}"'
    return shlex.quote(f"{key}={text}")


def data_arguments(data: Any) -> str:
    """The overrides that select the same data: ``data=folder data.root=PATH`` and values other than the defaults."""
    overrides = [f"data={data.name}"]
    for entry in fields(data):
        value = getattr(data, entry.name)
        if entry.name not in OMITTED_KEYS and value != entry.default:
            overrides.append(argument(f"data.{entry.name}", str(value).lower() if isinstance(value, bool) else value))
    return " ".join(overrides)


def plugin_arguments(plugins: list[str]) -> list[str]:
    """The override that names the same plugins; none without plugins."""
    return [shlex.quote(f"plugins=[{','.join(plugins)}]")] if plugins else []


def predict_command(checkpoint: str | Path, config: CommandConfig, *overrides: str) -> str:
    """The command that labels images of the same data with a checkpoint."""
    arguments = [argument("checkpoint", checkpoint), data_arguments(config.data), *plugin_arguments(config.plugins)]
    return " ".join(["python -m deepfake_cls.predict", *arguments, *overrides])


def print_run(record: Record, folder: Path, next_command: str) -> None:
    """Print the results of a run and the next command, which can be pasted as it is."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("accuracy, 95 % interval", accuracy_text(record))
    for name, value in record.metrics.items():
        if name.endswith(("_best", "macro_f1", "nll", "ece")) or name == "train_acc":
            percent = name.endswith(("_best", "_acc"))
            table.add_row(name, f"{100 * value:.1f} %" if percent else f"{value:.3f}")
    for k, metrics in record.by_k.items():
        table.add_row(f"accuracy at k = {k}", f"{100 * metrics['val_acc']:.1f} %")
    for name, recall, row in zip(record.data["classes"], record.recall, record.confusion, strict=True):
        share = "–" if recall is None else f"{100 * recall:.1f} %"
        table.add_row(f"recall, {name}", f"{share} of {sum(row):,}")
    table.add_row("time", ", ".join(f"{name} {time_text(value)}" for name, value in record.seconds.items()))
    table.add_row("hardware", f"{record.device}, {record.precision}, {record.threads} threads")
    if record.skipped:
        table.add_row("skipped", f"{len(record.skipped)} files, listed in result.json")
    table.add_row("folder", str(folder))
    # Wide enough that a folder or command is not wrapped if the output is a file.
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False)
    console.print(table)
    print(f"next: {next_command}", flush=True)
