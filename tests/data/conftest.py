"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deepfake_cls.config import ImageFilesConfig
from deepfake_cls.data.manifest import Split
from tests.data.sample_files import Config, images, table, write_split


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return write_split(tmp_path / "data")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def config(cache: Path) -> Config:
    """Make a configuration whose decoded images are saved to ``cache``."""

    def make(**options: Any) -> ImageFilesConfig:
        return ImageFilesConfig(**{"name": "folder", "cache": str(cache), "workers": 2, **options})

    return make


@pytest.fixture
def unibuc(tmp_path: Path) -> Path:
    """Two classes; train a b c d, validation e f, test g h; the rows are not in the order of the files."""
    for split, names in {"train": "abcd", "validation": "ef", "test": "gh"}.items():
        images(tmp_path / split, *(f"{name}.png" for name in names))
    table(tmp_path / "train.csv", "c,1", "a,0", "b,0", "d,1")
    table(tmp_path / "validation.csv", "f,1", "e,0")
    table(tmp_path / "test.csv", "h", "g", header="image_id")
    return tmp_path
