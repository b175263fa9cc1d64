"""A built wheel contains the configuration and runs outside the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL_DATA


@pytest.mark.slow
def test_a_wheel_contains_its_configuration_and_runs(tmp_path: Path) -> None:
    # Without isolation, the build needs no network. The wheel is only unpacked: its dependencies are installed already.
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=300)
    (wheel,) = tmp_path.glob("deepfake_cls-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    shipped = {f"deepfake_cls/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    templates = (ROOT / "deepfake_cls").glob("*/templates/*")
    shipped |= {str(file.relative_to(ROOT)) for file in templates}
    assert shipped <= names
    assert not [name for name in names if name.startswith(("conf/", "tests/"))]

    empty = tmp_path / "empty"
    empty.mkdir()
    overrides = [*SMALL_DATA, "k=[1,3]", "trainer.progress=false"]
    script = (
        "import sys, runpy, pathlib; import deepfake_cls\n"
        f"assert pathlib.Path(deepfake_cls.__file__).is_relative_to({str(tmp_path / 'site')!r})\n"
        f"sys.argv = ['knn', *{overrides!r}]\n"
        "runpy.run_module('deepfake_cls.knn', run_name='__main__')\n"
    )
    # PYTHONPATH: the wheel comes before the clone's editable install.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=empty, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(empty.glob("runs/knn/*/result.json"))) == 1
