"""Import contracts of pyproject.toml, and the length of functions."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

LONGEST = 50  # lines of a function, its docstring included
BREAKS = {
    "stats/metrics.py": "import torch",
    "models/resnet.py": "import lightning",
    "data/decode.py": "from deepfake_cls.models import resnet",
    "inference.py": "import lightning",
    "training/fit.py": "from deepfake_cls.report import study",
    "records.py": "from deepfake_cls import run_folders",
    "report/render.py": "from deepfake_cls.report import page",
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
def test_a_forbidden_import_breaks_a_contract(file: str, copied: Path) -> None:
    path = copied / "deepfake_cls" / file
    path.write_text(path.read_text() + f"\n{BREAKS[file]}\n")
    done = lint(copied)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout


def test_functions_are_short() -> None:
    lengths = {
        f"{file.relative_to(ROOT)}: {node.name}": node.end_lineno - node.lineno + 1
        for file in sorted((ROOT / "deepfake_cls").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
