"""Speed of this project and of the usual alternatives: training, input, evaluation, KNN and start-up.

Sides alternate, each repetition runs in a new process, and values are medians with minimum and maximum. It takes at
most 15 minutes on two idle cores.

    python -m benchmarks.speed                # embedded data; random pixels for KNN
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
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.suite import QUICK, Plan, Suite
from benchmarks.table import Row, markdown
from deepfake_cls.errors import InputError
from deepfake_cls.files import write_atomically
from deepfake_cls.hardware import cpu_has_bf16
from deepfake_cls.records import git_state, versions

RESULTS = Path(__file__).parent / "results"


def result_of(suite: Suite, rows: list[Row], seconds: float) -> dict[str, Any]:
    """The JSON result."""
    packages = versions()
    for package in ("scikit-learn", "faiss-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[package] = importlib.metadata.version(package)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "device": suite.machine["device"],
        "instructions": instructions(),
        "threads": suite.machine["threads"],
        "precision": suite.machine["precision"],
        "versions": packages,
        "git": git_state(),
        "data": "embedded" if suite.source.root is None else "given",
        "plan": asdict(suite.plan),
        "limits": suite.machine,
        "rows": [row.as_json() for row in rows],
        "raw": {
            name: {
                side: [{key: value for key, value in result.items() if key != "labels"} for result in results]
                for side, results in sides.items()
            }
            for name, sides in suite.raw.items()
        },
    }


def instructions() -> str:
    """The CPU's instruction set that torch uses, such as ``AVX512 bf16``."""
    return torch.backends.cpu.get_cpu_capability() + (" bf16" if cpu_has_bf16() else "")


def file_name(data: str) -> str:
    """Name of the results, one per instruction set and kind of data (``given`` or ``embedded``)."""
    return f"speed_{instructions().lower().replace(' ', '_')}" + ("_embedded" if data == "embedded" else "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all speed benchmarks share."""
    parser.add_argument("--data", metavar="PATH", help="folder of images; default: the embedded data")
    parser.add_argument("--output", metavar="FOLDER", type=Path, default=RESULTS, help="default: benchmarks/results")
    parser.add_argument("--quick", action="store_true", help="check that it runs: tiny sizes, one process")


def save(suite: Suite, rows: list[Row], seconds: float, path: Path, console: Console) -> None:
    """Write ``path.json`` and ``path.md``, and print the table."""
    result = result_of(suite, rows, seconds)
    text = markdown(result)
    write_atomically(path.with_suffix(".json"), json.dumps(result, indent=1).encode())
    write_atomically(path.with_suffix(".md"), text.encode())
    console.print(Markdown(text))
    console.print(f"{seconds:.0f} s; {path}.md and .json", highlight=False, soft_wrap=True)


def main() -> None:
    """Measure, print, and write the results as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    options = parser.parse_args()
    console = Console()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="deepfake_cls_speed_") as folder:
        plan = QUICK if options.quick else Plan()
        suite = Suite(plan, options.data, Path(folder), partial(console.print, highlight=False))
        try:
            rows = list(suite.rows())
        except InputError as error:
            sys.exit(f"error: {error}")
    name = "quick" if options.quick else file_name("embedded" if options.data is None else "given")
    save(suite, rows, time.perf_counter() - started, options.output / name, console)


if __name__ == "__main__":
    main()
