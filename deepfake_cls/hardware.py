"""Device, precision and threads: chosen once for the machine, printed, recorded, part of a run's identity."""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from deepfake_cls import distributed
from deepfake_cls.config import TrainerConfig
from deepfake_cls.errors import InputError
from deepfake_cls.schema import check


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
    """Whether torch multiplies bf16 in hardware on this CPU (AVX512-BF16 or AMX).

    Elsewhere bf16 is emulated: on a CPU with AVX2 a bf16 matrix product took 500 times as long as an fp32 one
    (``experiments/LOG.md``).
    """
    return _cpu_has(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), ("BF16", "FP16", "AMX", "AVX10"))


def has_int8(device: str) -> bool:
    """Whether torch sums int8 products in hardware, and so exactly.

    That is on a CPU with AVX512-VNNI or AMX, and on CUDA devices of compute capability 7.5 or higher. Where oneDNN is
    limited to AVX2 on such a CPU, it sums pairs of products in 16 bits, which saturates: its results are wrong.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (7, 5)
    return _cpu_has(("_is_vnni_supported", "_is_amx_tile_supported"), ("VNNI", "BF16", "FP16", "AMX", "AVX10"))


def _cpu_has(probes: tuple[str, ...], onednn: tuple[str, ...]) -> bool:
    """Whether the CPU has an instruction set that torch may use.

    Args:
        probes: Functions of ``torch.cpu``, one for each instruction set; any is enough. They are not public, so a
            torch without them counts as a CPU without the instructions.
        onednn: Parts of the names of the oneDNN limits (``ONEDNN_MAX_CPU_ISA``) that include it.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
    allowed = limit.startswith(("AVX512", "AVX10")) and any(part in limit for part in onednn)  # not AVX2_VNNI
    if limit not in ("DEFAULT", "ALL", "") and not allowed:
        return False
    # The probes ask the CPU; the capability is what torch uses of it (ATEN_CPU_CAPABILITY may limit that).
    if not torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10", "AMX")):
        return False
    return any(callable(probe := getattr(torch.cpu, name, None)) and probe() for name in probes)


def cuda_problem() -> str | None:
    """Why no CUDA device can be used, or None where one can.

    ``torch.cuda.is_available()`` is also true for a card that this torch has no kernels for and for a card that
    another process holds exclusively; only an operation on the card shows that.
    """
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here"
    try:
        if float(torch.ones(2, device="cuda").sum()) == 2.0:
            return None
        return "the CUDA device adds 1 and 1 wrongly"
    except RuntimeError as error:
        return f"the CUDA device cannot run an operation ({str(error).strip().splitlines()[0]})"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its queued work, so that a clock read next measures the work itself."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def prepare_compiler(hardware: Hardware) -> None:
    """Refuse ``trainer.compile=true`` where torch.compile cannot work, or has never been tried; else set its cache.

    The key of torch's cache of generated code lacks the instruction set, on which that code depends: code for AVX-512
    that is compiled in a shell limited to AVX2 corrupts the heap (torch 2.15). So such a shell has a cache of its own.

    Raises:
        InputError: If a compiler or Python's header files are missing, or the job has many devices.
    """
    if hardware.processes > 1:
        raise InputError("trainer.compile=true: is for one device; leave it out under torchrun.")
    if hardware.device == "cuda":  # Triton builds a launcher for its kernels, in C against Python's headers
        names, language = [os.environ.get("CC") or "gcc", "clang", "cc"], "C"
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.is_file():
            raise InputError(
                f"trainer.compile=true: needs Python's header files, and {header} is missing; install them (on Debian:"
                " python3-dev), or leave compile out."
            )
    else:
        names, language = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")], "C++"
    if not any(shutil.which(name) for name in names):
        raise InputError(
            f"trainer.compile=true: needs the {language} compiler {names[0]}; install it, or leave compile out."
        )
    limit = os.environ.get("ATEN_CPU_CAPABILITY")
    default = str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")
    # Torch itself sets the variable to its default when it is imported.
    if limit and os.environ.get("TORCHINDUCTOR_CACHE_DIR", default) == default:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{default}_{limit}"


def choose(config: TrainerConfig) -> Hardware:
    """Resolve ``auto``, and set torch's threads and its global switches for this job.

    Every switch is set in every job, so that none outlives the job that asked for it.

    Raises:
        InputError: If a device or precision is unknown or cannot be used here.
    """
    check(config, "trainer.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # cuBLAS reads this with its first product, and deterministic products need it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = _device(config.device)
    precision = config.precision
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else cpu_has_bf16()
        precision = "bf16-mixed" if fast else "32-true"
    # float32 means float32: no TF32. What gains from fewer bits runs in bf16 anyway.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:  # to set it imports torch's compiler
        torch.use_deterministic_algorithms(config.deterministic)
    if device == "cpu":
        keep_memory()
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return Hardware(device, precision, torch.get_num_threads(), name, distributed.world_size())


def _device(asked: str) -> str:
    """``cpu`` or ``cuda``."""
    if asked == "cpu":
        return "cpu"
    if distributed.world_size() > 1 and torch.cuda.is_available():
        found = torch.cuda.device_count()
        if distributed.local_size() > found:
            raise InputError(f"--nproc_per_node={distributed.local_size()}: torch sees {found} CUDA device(s) here.")
        torch.cuda.set_device(distributed.local_rank())
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if asked == "cuda":
        raise InputError(f"trainer.device=cuda: {problem}; use trainer.device=auto or cpu.")
    if distributed.world_size() > 1 and torch.cuda.is_available():  # the other processes may have taken their cards
        raise InputError(f"trainer.device=auto: {problem}; under torchrun use trainer.device=cpu, or fewer processes.")
    if torch.cuda.is_available():  # a card is there, so a run on the CPU would surprise
        print(f"trainer.device=auto: using the CPU, because {problem}.", file=sys.stderr, flush=True)
    return "cpu"
