"""The GPUs of this machine that jobs of a sweep share, one job on each; torch is not imported here."""

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
    """Whether this machine has NVIDIA's driver, and so perhaps a GPU."""
    return any(Path(file).exists() for file in ("/dev/nvidiactl", "/dev/dxg")) or bool(shutil.which("nvidia-smi"))


def warn_of_hidden_gpus(device: str) -> None:
    """Warn, in a job on Ray, that Ray hides the machine's GPUs from jobs that ask for none."""
    if device == "auto" and has_driver() and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        print(
            "warning: this machine has a GPU, and Ray hides it from jobs that ask for none;"
            " add +hydra.launcher.ray.remote.num_gpus=1 to use it.",
            file=sys.stderr,
            flush=True,
        )


def visible_gpus(device: str) -> list[str]:
    """The GPUs that jobs with this ``trainer.device`` use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if device == "cpu" or not has_driver():
        return []
    count = usable_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] or [str(index) for index in range(count)]


@functools.cache
def usable_gpus(visible: str | None) -> int:
    """How many GPUs torch can use. Another process asks torch, so that this one uses no memory of a GPU.

    Args:
        visible: ``CUDA_VISIBLE_DEVICES``, on which the answer depends.
    """
    code = "from deepfake_cls import hardware as h\nprint(0 if h.cuda_problem() else h.torch.cuda.device_count())"
    environment = dict(os.environ) | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return int(done.stdout) if done.returncode == 0 else 0


def jobs_at_a_time(device: str) -> int:
    """How many jobs joblib runs side by side: one for each GPU that they use, else −1, which is one for each core."""
    return len(visible_gpus(device)) or -1


@contextlib.contextmanager
def free_gpu(gpus: list[str]) -> Iterator[str | None]:
    """Take a GPU that no other job of this user's sweeps has, waiting until there is one.

    Args:
        gpus: From :func:`visible_gpus`; empty gives None.
    """
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
            print("Waiting for a GPU: other jobs have them all.", flush=True)
            waiting = True
        time.sleep(0.5)
