"""Hardware of a run: device, precision and threads, which are recorded and part of the run key."""

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
from deepfake_cls.errors import InputError, reason
from deepfake_cls.schema import check


@dataclass(frozen=True)
class Hardware:
    """Device, precision and threads of a run.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``32-true`` or ``bf16-mixed``, Lightning's names.
        threads: CPU threads of torch.
        name: Name of the CPU or GPU, for the record.
        processes: Number of processes, and so of devices, that share the job.
    """

    device: str
    precision: str
    threads: int
    name: str
    processes: int = 1

    def describe(self) -> str:
        """One line for the terminal."""
        count = f"{self.processes} × " if self.processes > 1 else ""
        return f"{count}{self.name}, {self.precision}, {self.threads} thread{'s' * (self.threads != 1)}"


def cpu_has_bf16() -> bool:
    """Whether torch multiplies bf16 in hardware on this CPU (AVX512-BF16 or AMX).

    Other CPUs emulate bf16: with AVX2 a bf16 matrix product took 500 times as long as in fp32 (``experiments/LOG.md``).
    """
    return _cpu_has(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), ("BF16", "FP16", "AMX", "AVX10"))


def has_int8(device: str) -> bool:
    """Whether torch sums int8 products in hardware, and so exactly.

    CPUs with AVX512-VNNI or AMX do, and CUDA devices of compute capability 7.5 or higher. If oneDNN is limited to AVX2
    on such a CPU, it sums pairs of products in 16 bits, which saturates, and the results are wrong.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (7, 5)
    return _cpu_has(("_is_vnni_supported", "_is_amx_tile_supported"), ("VNNI", "BF16", "FP16", "AMX", "AVX10"))


def _cpu_has(probes: tuple[str, ...], onednn: tuple[str, ...]) -> bool:
    """Whether the CPU has an instruction set that torch may use.

    Args:
        probes: Functions of ``torch.cpu``, one for each instruction set; one true result is enough. They are not
            public; without them the instructions count as absent.
        onednn: Parts of the names of the oneDNN limits (``ONEDNN_MAX_CPU_ISA``) that include the set.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT")).upper()
    allowed = limit.startswith(("AVX512", "AVX10")) and any(part in limit for part in onednn)  # not AVX2_VNNI
    if limit not in ("DEFAULT", "ALL", "") and not allowed:
        return False
    # The probes ignore ATEN_CPU_CAPABILITY, which may limit torch to other instructions.
    if not torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10", "AMX")):
        return False
    return any(callable(probe := getattr(torch.cpu, name, None)) and probe() for name in probes)


def cuda_problem() -> str | None:
    """Why no CUDA device can be used; None if one can.

    ``torch.cuda.is_available()`` is also true for a GPU that this torch has no kernels for, and for one that another
    process uses exclusively; only an operation on the GPU shows that.
    """
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here"
    try:
        if float(torch.ones(2, device="cuda").sum()) == 2.0:
            return None
        return "the CUDA device adds 1 and 1 wrongly"
    except RuntimeError as error:
        return f"the CUDA device cannot run an operation ({reason(error)})"


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its queued work, so that a clock measures that work."""
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
    """Let malloc keep freed memory, instead of returning it to the kernel after every batch.

    Each training step frees and allocates its activations, and the kernel zeroes returned pages. With kept memory, two
    parallel one-thread processes trained at 140 instead of 126 images/s each (width 8) and scored at 359 instead of 236
    (``experiments/LOG.md``). Only glibc has these settings; elsewhere this is a no-op.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no mmap, whose memory is always returned
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD in bytes: the largest int


def prepare_compiler(hardware: Hardware) -> None:
    """Set the cache of torch.compile; refuse ``trainer.compile=true`` where it cannot work or is untested.

    The cache key of torch's generated code lacks the instruction set: code for AVX-512 that is used in a shell limited
    to AVX2 corrupts the heap (torch 2.15). So such a shell gets a cache of its own.

    Raises:
        InputError: If a compiler or Python's header files are missing, or the job has several devices.
    """
    if hardware.processes > 1:
        raise InputError("trainer.compile=true: is for one device; omit it under torchrun.")
    if hardware.device == "cuda":  # Triton compiles C code that includes Python's headers
        names, language = [os.environ.get("CC") or "gcc", "clang", "cc"], "C"
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.is_file():
            raise InputError(
                f"trainer.compile=true: needs Python's header files, and {header} is missing; install them (on Debian:"
                " python3-dev), or omit trainer.compile."
            )
    else:
        names, language = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")], "C++"
    if not any(shutil.which(name) for name in names):
        raise InputError(
            f"trainer.compile=true: needs the {language} compiler {names[0]}; install it, or omit trainer.compile."
        )
    limit = os.environ.get("ATEN_CPU_CAPABILITY")
    default = str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")
    # torch sets the variable to this default when it is imported.
    if limit and os.environ.get("TORCHINDUCTOR_CACHE_DIR", default) == default:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{default}_{limit}"


def choose(config: TrainerConfig) -> Hardware:
    """Resolve ``auto``, and set torch's threads and global switches for this job.

    Each job sets every switch, so that none remains from an earlier job.

    Raises:
        InputError: If a device or precision is unknown or cannot be used on this machine.
    """
    check(config, "trainer.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # Deterministic products need this, and cuBLAS reads it at its first product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = _device(config.device)
    precision = config.precision
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else cpu_has_bf16()
        precision = "bf16-mixed" if fast else "32-true"
    # No TF32 in place of float32; bf16 is the faster precision.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if torch.are_deterministic_algorithms_enabled() != config.deterministic:  # setting it imports torch's compiler
        torch.use_deterministic_algorithms(config.deterministic)
    if device == "cpu":
        keep_memory()
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return Hardware(device, precision, torch.get_num_threads(), name, distributed.world_size())


def _device(device: str) -> str:
    """Resolve ``auto`` to ``cpu`` or ``cuda``."""
    if device == "cpu":
        return "cpu"
    if distributed.world_size() > 1 and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if distributed.local_size() > count:
            raise InputError(f"--nproc_per_node={distributed.local_size()}: torch sees {count} CUDA device(s) here.")
        torch.cuda.set_device(distributed.local_rank())
    problem = cuda_problem()
    if problem is None:
        return "cuda"
    if device == "cuda":
        raise InputError(f"trainer.device=cuda: {problem}; use trainer.device=auto or cpu.")
    if distributed.world_size() > 1 and torch.cuda.is_available():  # the other processes may use their GPUs
        raise InputError(f"trainer.device=auto: {problem}; under torchrun use trainer.device=cpu, or fewer processes.")
    if torch.cuda.is_available():  # there is a GPU, so the user may not expect the CPU
        print(f"trainer.device=auto: using the CPU, because {problem}.", file=sys.stderr, flush=True)
    return "cpu"
