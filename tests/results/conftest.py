from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import DictConfig

from deepfake_cls.results import experiments
from deepfake_cls.results.experiments import Laboratory
from tests.results import lab


@pytest.fixture(scope="package", autouse=True)
def composed_once() -> Iterator[None]:
    """What is composed from the same words is the same; to compose all arms takes seconds."""
    known: dict[tuple[str, tuple[str, ...], bool], DictConfig] = {}

    def remembered(entry: str, words: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
        key = (entry, tuple(words), return_hydra_config)
        if key not in known:
            known[key] = compose(entry, list(words), return_hydra_config=return_hydra_config)
        return deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "compose", remembered)
        yield


@pytest.fixture(scope="package")
def all_runs(tmp_path_factory: pytest.TempPathFactory, composed_once: None) -> Path:
    """Three seeds of every arm at scale tiny, on embedded data; to be read only."""
    root = tmp_path_factory.mktemp("all")
    lab.write_all(root)
    return root


@pytest.fixture
def full(all_runs: Path) -> Laboratory:
    return lab.laboratory(all_runs)
