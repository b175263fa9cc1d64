"""Speed, measured side by side: this project and what is usually written in its place.

Claim: training, input, evaluation, neighbours, start-up and memory as in the table's column of targets. Sides take
turns, several times, each time in a process of its own; figures are medians, with least and most. At most a quarter of
an hour on two quiet cores.

    python -m benchmarks.speed                # embedded data; random pixels for the neighbours
    python -m benchmarks.speed --data PATH    # images of data=unibuc or data=folder
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.plan import QUICK, Plan
from benchmarks.suite import Suite
from benchmarks.table import Row, markdown, terminal
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import cpu_has_bf16
from deepfake_cls.records import git_state, versions, write_atomically

RESULTS = Path(__file__).parent / "results"


def measure(plan: Plan, root: str | None, console: Console) -> tuple[Suite, list[Row], float]:
    """Make all comparisons: what they left, their rows, and the seconds they took."""
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="deepfake_cls_speed_") as folder,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        suite = Suite(plan, root, Path(folder), lambda text: progress.console.print(text, highlight=False))
        sections = suite.sections()
        task = progress.add_task("", total=len(sections))
        for name, section in sections.items():
            progress.update(task, description=name)
            rows += section()
            progress.advance(task)
    return suite, rows, time.perf_counter() - started


def report(suite: Suite, rows: list[Row], seconds: float) -> dict[str, Any]:
    """All there is to say, as plain values."""
    found = versions()
    for package in ("scikit-learn", "faiss-cpu"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    data = "embedded" if suite.source.root is None else "given"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "device": suite.machine["device"],
        "instructions": instructions(),
        "threads": suite.machine["threads"],
        "precision": suite.machine["precision"],
        "versions": found,
        "git": git_state(),
        "data": data,
        "plan": asdict(suite.plan),
        "limits": suite.machine,
        "rows": [row.plain() for row in rows],
        "raw": {
            name: {side: [without_labels(result) for result in results] for side, results in sides.items()}
            for name, sides in suite.raw.items()
        },
    }


def without_labels(result: dict[str, Any]) -> dict[str, Any]:
    """What a job returned, but for the labels it found: they are many, and have been compared."""
    return {name: value for name, value in result.items() if name != "labels"}


def heading(found: dict[str, Any]) -> str:
    """What the table holds for."""
    names = ("torch", "lightning", "scikit-learn", "faiss-cpu")
    listed = ", ".join(f"{name} {found['versions'][name]}" for name in names)
    sha = (found["git"]["sha"] or "no commit")[:7] + ("*" if found["git"]["dirty"] else "")
    machine = f"{found['device']} ({found['instructions']}), {found['threads']} threads, {found['precision']}"
    return (
        f"{machine}; {listed}; images: {found['data']};"
        f" {found['date'][:10]}, {sha}. Medians, with least and most; share of the limit: of the measured rate of"
        " matrix products. Peers compute in fp32 and decode PNG files in every epoch, as they do unless told otherwise;"
        " ours were decoded once before, which is not counted.\n"
    )


def instructions() -> str:
    """What torch uses of the CPU, such as ``AVX512 bf16``."""
    return torch.backends.cpu.get_cpu_capability() + (" bf16" if cpu_has_bf16() else "")


def file_name(data: str) -> str:
    """What the results are called, so that those of unlike CPUs stand side by side: ``speed_avx512_bf16``, ...

    Args:
        data: ``given`` or ``embedded``.
    """
    return f"speed_{instructions().lower().replace(' ', '_')}" + ("_embedded" if data == "embedded" else "")


def main() -> None:
    """Measure, show, and write the figures as JSON and as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="PATH", help="folder of images; without it the embedded data")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=RESULTS, help="default: benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    options = parser.parse_args()
    console = Console()
    try:
        suite, rows, seconds = measure(QUICK if options.quick else Plan(), options.data, console)
    except InputError as error:
        sys.exit(f"error: {error}")
    found = report(suite, rows, seconds)
    name = "quick" if options.quick else file_name(found["data"])
    write_atomically(options.output / f"{name}.json", json.dumps(found, indent=1).encode())
    write_atomically(options.output / f"{name}.md", f"{heading(found)}\n{markdown(rows)}".encode())
    console.print(terminal(rows))
    console.print(f"{seconds:.0f} s; {options.output / name}.md and .json", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
