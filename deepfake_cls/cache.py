"""List the cached images, and delete what is not needed: ``python -m deepfake_cls.cache``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deepfake_cls.cli import ONCE, main
from deepfake_cls.config_runs import CacheConfig
from deepfake_cls.errors import InputError

if TYPE_CHECKING:
    from deepfake_cls.data.entries import Entry


def run(config: CacheConfig, sweep: bool) -> None:
    """Print a table of the entries; with ``prune``, delete some.

    Raises:
        InputError: With ``-m``, or if the deletion is not confirmed.
    """
    if sweep:
        raise InputError(ONCE["cache"])
    from deepfake_cls.data.entries import cache_folder, entries, removable, remove
    from deepfake_cls.terminal import delete, size_of

    folder = cache_folder(config.data.cache)
    found = entries(folder)
    if not found:
        print(f"{folder}: no cached images there. The first command that reads images makes them, such as:")
        print("deepfake-cls knn")
    elif config.prune == "none":
        print_entries(found, folder)
    else:
        going = [(entry.path, size_of(entry.path)) for entry in removable(found, config.prune)]
        delete(going, remove, f"prune={config.prune}", config.yes, "They are made again when they are needed.")


def print_entries(found: Sequence[Entry], folder: Path) -> None:
    """Print a row for each entry, last used at the end, and the total."""
    from deepfake_cls.terminal import age_text, print_table, size_of, size_text

    now, total, rows = time.time(), 0, []
    for entry in found:
        size = size_of(entry.path)
        total += size
        data = " ".join(str(entry.data[key]) for key in ("name", "root") if key in entry.data) or "unknown"
        images = f"{entry.shape[0]:,}" if entry.shape else ""
        pixels = "×".join(map(str, entry.shape[1:])) or ("any size" if entry.shape and entry.path.is_dir() else "")
        row = [data, str(entry.data.get("split", "")), images, pixels, size_text(size)]
        rows.append([*row, age_text(now - entry.used), entry.status])
    columns = ["data", "split", "images", "pixels", "size", "last used", "status"]
    print_table(columns, rows, whole=columns[1:], paths="data")
    print(f"{len(found)} {'entry' if len(found) == 1 else 'entries'}, {size_text(total)}, in {folder}")


if __name__ == "__main__":
    main("cache", CacheConfig, run)
