"""On a CPU with AVX-512, the tests of models and training run again limited to AVX2."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
# The tests that other kernels or another precision can break.
PATHS = ["models", "training", "test_hardware.py", "test_train.py", "test_knn.py", "test_using_a_model.py"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10", "AMX")),
    reason="this CPU has no more than AVX2, or the environment limits torch to it",
)
def test_models_and_training_pass_limited_to_avx2() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *(f"tests/{path}" for path in PATHS)],
        cwd=ROOT,
        env={**os.environ, **AVX2},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    limited = subprocess.run([sys.executable, "-c", code], env={**os.environ, **AVX2}, capture_output=True, text=True)
    assert limited.stdout.strip() == "AVX2"
