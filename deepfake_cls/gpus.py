"""The GPUs of this machine that the jobs of a sweep share, one job on each; torch is not imported."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def has_driver() -> bool:
    """Whether this machine has NVIDIA's driver, and so possibly a GPU."""
    return any(Path(file).exists() for file in ("/dev/nvidiactl", "/dev/dxg")) or bool(shutil.which("nvidia-smi"))


def warn_of_hidden_gpus(device: str) -> None:
    """Warn in a job on Ray that Ray hides GPUs from jobs that request none."""
    if device == "auto" and has_driver() and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        print(
            "warning: this machine has a GPU, but Ray hides it from jobs that request none;"
            " add +hydra.launcher.ray.remote.num_gpus=1 to use it.",
            file=sys.stderr,
            flush=True,
        )


def visible_gpus(device: str) -> list[str]:
    """The GPUs that jobs with this ``trainer.device`` use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if device == "cpu" or not has_driver():
        return []
    count = usable_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names[:count] or [str(index) for index in range(count)]


@functools.cache
def usable_gpus(visible: str | None) -> int:
    """Number of GPUs that torch can use with this ``CUDA_VISIBLE_DEVICES``.

    They are counted in another process, so that this one uses no GPU memory.
    """
    code = "from deepfake_cls import hardware as h\nprint(0 if h.cuda_problem() else h.torch.cuda.device_count())"
    environment = dict(os.environ) | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return int(completed.stdout) if completed.returncode == 0 else 0


def jobs_at_a_time(device: str) -> int:
    """Number of jobs that joblib runs in parallel: one for each GPU; without a GPU −1, one for each core."""
    return len(visible_gpus(device)) or -1


@contextlib.contextmanager
def free_gpu(gpus: list[str]) -> Iterator[str | None]:
    """Lock a GPU that no other job of this user's sweeps uses; wait until one is free. Without GPUs yield None."""
    if not gpus:
        yield None
        return
    folder = Path(tempfile.gettempdir()) / f"deepfake_cls-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while True:
        for gpu in gpus:
            try:
                lock = FileLock(folder / f"gpu-{gpu}.lock").acquire(timeout=0)
            except Timeout:
                continue
            with lock:
                yield gpu
            return
        if not waiting:
            print("Waiting for a GPU: other jobs use all of them.", flush=True)
            waiting = True
        time.sleep(0.5)
