"""Who may import whom: the contracts in pyproject.toml, and that breaking one fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BREAKS = {
    "stats/metrics.py": "import torch",
    "models/resnet.py": "import lightning",
    "data/decode.py": "from deepfake_cls.models import resnet",
    "inference.py": "import lightning",
    "training/fit.py": "from deepfake_cls.report import study",
    "records.py": "from deepfake_cls import runs",
    "report/render.py": "from deepfake_cls.report import study",
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "deepfake_cls", tmp_path / "deepfake_cls", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", BREAKS)
def test_an_import_in_the_wrong_direction_is_seen(file: str, copied: Path) -> None:
    path = copied / "deepfake_cls" / file
    path.write_text(path.read_text() + f"\n{BREAKS[file]}\n")
    done = lint(copied)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
