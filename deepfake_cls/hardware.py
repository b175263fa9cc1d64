"""Device, precision and threads: chosen once for the machine, printed, recorded, part of a run's identity."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from deepfake_cls import parallel
from deepfake_cls.config import TrainerConfig
from deepfake_cls.errors import InputError


@dataclass(frozen=True)
class Hardware:
    """What arithmetic runs on.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``32-true`` or ``bf16-mixed``, Lightning's names.
        threads: CPU threads of torch.
        name: The device in words, for the record.
        processes: How many such devices share the job.
    """

    device: str
    precision: str
    threads: int
    name: str
    processes: int = 1

    def describe(self) -> str:
        """One line for the terminal."""
        many = f"{self.processes} × " if self.processes > 1 else ""
        return f"{many}{self.name}, {self.precision}, {self.threads} threads"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware.

    Without AVX512-BF16 or AMX torch emulates it: on an AVX2 machine a bf16 matrix product was measured 500 times
    slower than fp32 (``experiments/LOG.md``), so asking for the capability is not optional.
    """
    return _cpu_supports("_is_avx512_bf16_supported") or _cpu_supports("_is_amx_tile_supported")


def has_int8(device: str) -> bool:
    """Whether the device sums int8 products in hardware (CUDA, AVX512-VNNI or AMX)."""
    return device == "cuda" or _cpu_supports("_is_vnni_supported") or _cpu_supports("_is_amx_tile_supported")


def _cpu_supports(probe: str) -> bool:
    # torch has no public name for these; a torch without them gets the choice that is right everywhere.
    found = getattr(torch.cpu, probe, None)
    return bool(found()) if callable(found) else False


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def keep_memory() -> None:
    """Let malloc keep the memory that is freed, instead of giving it back to the kernel after every batch.

    A training step frees and takes its activations again, and each time the kernel hands out pages of zeros. Without
    that, two one-thread processes side by side trained at 140 instead of 126 images/s each (width 8) and scored at 359
    instead of 236 (``experiments/LOG.md``). Only glibc has these settings; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing from mmap, which is always given back
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: in bytes, the largest that an int holds


def require_compiler(hardware: Hardware) -> None:
    """Refuse ``trainer.compile=true`` where it cannot work, or has never been tried.

    Raises:
        InputError: If there is no C++ compiler, or the job has many devices.
    """
    if hardware.processes > 1:
        raise InputError("trainer.compile=true: is for one device; leave it out under torchrun.")
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # what torch takes
    if not shutil.which(name):
        raise InputError(f"trainer.compile=true: needs the C++ compiler {name}; install it, or leave compile out.")


def choose(config: TrainerConfig) -> Hardware:
    """Resolve ``auto`` and set torch's threads.

    Raises:
        InputError: If a device or precision is unknown or absent.
    """
    if config.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"trainer.device={config.device}: expected auto, cpu or cuda.")
    if config.precision not in ("auto", "32-true", "bf16-mixed"):
        raise InputError(f"trainer.precision={config.precision}: expected auto, 32-true or bf16-mixed.")
    if config.threads is not None:
        if config.threads < 1:
            raise InputError(f"trainer.threads={config.threads}: expected 1 or more, or null for torch's choice.")
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InputError("trainer.device=cuda: torch sees no CUDA device here; use trainer.device=auto or cpu.")
    device = config.device if config.device != "auto" else ("cuda" if available else "cpu")
    if device == "cuda" and parallel.size() > 1:
        found = torch.cuda.device_count()
        if parallel.local_size() > found:
            raise InputError(f"--nproc_per_node={parallel.local_size()}: torch sees {found} CUDA device(s) here.")
        torch.cuda.set_device(parallel.local_rank())
    precision = config.precision
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_has_bf16()
        precision = "bf16-mixed" if fast else "32-true"
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    if device == "cpu":
        keep_memory()
    else:
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in fp32
    return Hardware(device, precision, torch.get_num_threads(), name, parallel.size())
