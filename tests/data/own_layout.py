"""A data layout that a user registers in a module outside the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepfake_cls.data import FileSource, source
from deepfake_cls.data.listing import read_csv
from deepfake_cls.data.manifest import Split


@source("paths")
class Paths(FileSource):
    """``images.csv`` with the columns ``path`` and ``class``."""

    def list_images(self, root: Path) -> tuple[tuple[str, ...], list[Split]]:
        header, rows = read_csv(root / "images.csv", ("path", "class"))
        paths, names = ([cells[header.index(column)] for _, cells in rows] for column in ("path", "class"))
        classes = tuple(sorted({*names}))
        labels = np.array([classes.index(name) for name in names])
        return classes, [Split("train", tuple(paths), labels, tuple(root / path for path in paths))]
