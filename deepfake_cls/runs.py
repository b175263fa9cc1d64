"""List runs, and delete what is not needed: ``python -m deepfake_cls.runs``."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepfake_cls.cli import ONCE, main
from deepfake_cls.config_runs import RunsConfig
from deepfake_cls.errors import InputError
from deepfake_cls.notation import override

if TYPE_CHECKING:
    from deepfake_cls.inventory import Found

WIDE = 120  # columns of a terminal in which the interval of the accuracy has room


def run(config: RunsConfig, sweep: bool) -> None:
    """Print a table of the runs; with ``prune``, delete some.

    Raises:
        InputError: With ``-m``, if the folder does not exist, or if the deletion is not confirmed.
    """
    if sweep:
        raise InputError(ONCE["runs"])
    from deepfake_cls.inventory import runs_below

    folder = Path(config.runs)
    if not folder.is_dir() and (folder.exists() or config.runs != "runs"):  # the first run makes the default folder
        raise InputError(f"{override('runs', config.runs)} {'is a file' if folder.exists() else 'does not exist'}.")
    runs = runs_below(folder)
    if not runs:
        print(f"runs={folder}: no run there. Start with: deepfake-cls knn")
    elif config.prune == "none":
        print_runs(runs)
    else:
        prune(runs, config.prune, config.yes)


def print_runs(runs: Sequence[Found]) -> None:
    """Print a row for each run, newest last, and the totals."""
    from deepfake_cls.inventory import short_ids
    from deepfake_cls.settings import settings_text
    from deepfake_cls.terminal import age_text, print_table, size_of, size_text

    now, total, rows = time.time(), 0, []
    for short, run in zip(short_ids(runs), runs, strict=True):
        size = size_of(run.path)
        total += size
        settings = settings_text(run.kind, run.config) if run.kind and run.config else ""
        own_name = "" if run.path.name == run.identity[:12] else str(run.path)
        values = [short, run.kind, run.status, _data(run), settings, _accuracy(run)]
        rows.append([*values, age_text(now - run.time), size_text(size), own_name])
    columns = ["id", "kind", "status", "data", "settings", "accuracy", "age", "size", "folder"]
    if not any(row[-1] for row in rows):  # each is in KIND/ID
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print_table(columns, rows, whole=["id", "kind", "status", "age", "size"], omit=["size", "age"])
    counts = [
        f"{sum(run.status == status for run in runs)} {status}" for status in dict.fromkeys(r.status for r in runs)
    ]
    print(f"{len(runs)} runs ({', '.join(counts)}), {size_text(total)}")


def _data(run: Found) -> str:
    data = run.config.get("data", {})
    return Path(data["root"]).name if data.get("root") else str(data.get("name", ""))


def _accuracy(run: Found) -> str:
    from deepfake_cls.summary import accuracy_text, correct_of

    if run.record is None or not run.record.confusion:
        return ""
    wide = not sys.stdout.isatty() or shutil.get_terminal_size().columns >= WIDE
    if wide:
        return accuracy_text(run.record)
    correct, count = correct_of(run.record)
    return f"{100 * correct / count:.1f} %"


def prune(runs: Sequence[Found], what: str, yes: bool) -> None:
    """Show what goes, ask, and delete it."""
    from deepfake_cls.inventory import removable, remove
    from deepfake_cls.terminal import delete, size_of

    going = removable(runs, what)
    remark = "Without its checkpoints, a run cannot predict or evaluate until it is trained again with force=true."
    delete(
        [(path, size_of(path)) for path in going],
        lambda path: remove(going[path], path),
        f"prune={what}",
        yes,
        remark if what == "checkpoints" else "",
    )


if __name__ == "__main__":
    main("runs", RunsConfig, run)
