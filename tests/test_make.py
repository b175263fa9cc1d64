"""The target of the Makefile that is too long to run: its commands, at small size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_reference_scale_runs_every_arm(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4)):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{index}.png")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "installed").touch()  # newer than these two, so nothing is installed
    variables = [f"BIN={Path(sys.executable).parent}", "STAMP=installed", "DATA=images", "SEEDS=1"]
    command = ["make", "-f", str(ROOT / "Makefile"), "reference", *variables]
    command.append("EXTRA=width=4 epochs=1 trainer.progress=false trainer.threads=1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 runs one after another, about 1890 MB in runs/" in done.stdout
    records = [json.loads(file.read_text()) for file in (tmp_path / "runs" / "cnn").glob("*/result.json")]
    assert [record["seed"] for record in records] == [0] * 7
    assert {record["config"]["lr"] for record in records} == {1e-4, 3e-4, 1e-3}  # those of the paper
    tables = (tmp_path / "reports" / "reference" / "tables.md").read_text()
    assert "Runs at scale reference (width 4, 1 epoch)" in tables
    assert tables.count("(n = 1)") > 9
    assert "baseline" in tables
