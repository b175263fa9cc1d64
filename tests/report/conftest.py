from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deepfake_cls.report import study
from deepfake_cls.report.study import Study
from tests.report import lab


@pytest.fixture(scope="package", autouse=True)
def composed_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "compose", lab.compose_once)
        yield


@pytest.fixture(scope="package")
def all_runs(tmp_path_factory: pytest.TempPathFactory, composed_once: None) -> Path:
    """Three seeds of every arm at scale tiny, on embedded data; to be read only."""
    root = tmp_path_factory.mktemp("all")
    lab.write_all(root)
    return root


@pytest.fixture
def full(all_runs: Path) -> Study:
    return lab.study_of(all_runs)
