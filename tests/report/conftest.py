from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deepfake_cls.report import experiment, study
from deepfake_cls.report.study import Study
from tests.report import fake_runs


@pytest.fixture(scope="package", autouse=True)
def cached_configurations() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "compose", fake_runs.cached_compose)
        patch.setattr(study, "validate", fake_runs.cached_validate)
        yield


@pytest.fixture(scope="package")
def all_runs(tmp_path_factory: pytest.TempPathFactory, cached_configurations: None) -> Path:
    """Three seeds of every arm at scale tiny, on embedded data; read-only."""
    root = tmp_path_factory.mktemp("all")
    fake_runs.write_all(root)
    return root


@pytest.fixture
def full_study(all_runs: Path) -> Study:
    return fake_runs.study_of(all_runs)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which takes most of a page's time."""
    monkeypatch.setattr("deepfake_cls.templates.data_uri", lambda figure: "data:,")


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation images are not available, and need not be rendered."""
    monkeypatch.setattr("deepfake_cls.report.plots.validation_images", lambda record: None)
