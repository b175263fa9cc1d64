from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deepfake_cls import hardware, train
from deepfake_cls.checkpoints import load_model
from deepfake_cls.config import TrainConfig, TrainerConfig
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import Hardware, choose
from deepfake_cls.records import read_record
from tests.conftest import SMALL_NET, configure
from tests.test_distributed import torchrun_variables


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def modern_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AVX-512, bf16 and int8 products, all of which torch may use."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for name in ("_is_avx512_bf16_supported", "_is_vnni_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make torch report one working GPU with a given compute capability."""

    def report(major: int, minor: int) -> None:
        class Properties:
            pass

        properties = Properties()
        vars(properties).update(major=major, minor=minor)
        functions = {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "device_count": lambda: 1,
            "get_device_properties": lambda device=None: properties,
            "get_device_capability": lambda device=None: (major, minor),
            "get_device_name": lambda device=None: f"GPU {major}.{minor}",
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr(torch, "ones", lambda count, device: torch.full((count,), 1.0))
        # torch calls this if it may emulate; a bf16 tensor does not prove bf16 products.
        monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True, raising=False)

    return report


@pytest.mark.usefixtures("modern_cpu")
@pytest.mark.parametrize(("bf16", "amx", "expected"), [(0, 0, "32-true"), (1, 0, "bf16-mixed"), (0, 1, "bf16-mixed")])
def test_bf16_needs_a_cpu_that_multiplies_it(
    bf16: int, amx: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(bf16), raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx), raising=False)
    assert choose(TrainerConfig()).precision == expected
    assert choose(TrainerConfig(precision="32-true")).precision == "32-true"


@pytest.mark.usefixtures("modern_cpu")
def test_int8_needs_a_cpu_that_sums_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for supported in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda supported=supported: supported, raising=False)
        assert hardware.has_int8("cpu") is supported


@pytest.mark.usefixtures("modern_cpu")
def test_limits_of_the_shell_exclude_bf16_and_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (hardware.cpu_has_bf16(), hardware.has_int8("cpu")) == (True, True)
    for limit, expected in {
        "AVX2": (False, False),
        "AVX2_VNNI": (False, False),
        "AVX512_CORE": (False, False),
        "AVX512_CORE_VNNI": (False, True),
        "AVX512_CORE_BF16": (True, True),
        "AVX10_1_512_AMX": (True, True),
        "default": (True, True),
    }.items():
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        assert (hardware.cpu_has_bf16(), hardware.has_int8("cpu")) == expected, limit
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert (hardware.cpu_has_bf16(), hardware.has_int8("cpu")) == (False, False)
    assert choose(TrainerConfig()).precision == "32-true"


@pytest.mark.parametrize(("major", "minor", "expected"), [(7, 5, "32-true"), (8, 0, "bf16-mixed")])
def test_bf16_needs_a_gpu_that_multiplies_it(
    major: int, minor: int, expected: str, gpu: Callable[[int, int], None]
) -> None:
    gpu(major, minor)
    chosen = choose(TrainerConfig())
    assert (chosen.device, chosen.name, chosen.precision) == ("cuda", f"GPU {major}.{minor}", expected)


@pytest.mark.parametrize(("major", "minor", "expected"), [(7, 0, False), (7, 5, True), (9, 0, True)])
def test_int8_needs_a_gpu_that_sums_it(major: int, minor: int, expected: bool, gpu: Callable[[int, int], None]) -> None:
    gpu(major, minor)
    assert hardware.has_int8("cuda") is expected


def test_with_a_broken_gpu_auto_uses_the_cpu_and_cuda_is_refused(
    gpu: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ones(count: int, device: str) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore lines")

    gpu(6, 1)
    monkeypatch.setattr(torch, "ones", ones)
    assert choose(TrainerConfig()).device == "cpu"
    printed = capsys.readouterr().err
    assert printed.startswith("trainer.device=auto: using the CPU, because the CUDA device cannot run")
    assert "no kernel image is available" in printed
    assert printed.count("\n") == 1
    with pytest.raises(InputError, match=r"trainer.device=cuda: the CUDA device cannot run .*no kernel image") as error:
        choose(TrainerConfig(device="cuda"))
    assert "\n" not in str(error.value)
    choose(TrainerConfig(device="cpu"))
    assert capsys.readouterr().err == ""


def test_a_limited_shell_has_its_own_cache_of_compiled_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    cpu = hardware.Hardware("cpu", "32-true", 1, "some CPU")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    hardware.prepare_compiler(cpu)
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    default = str(tmp_path / f"torchinductor_{getpass.getuser()}")
    for before, after in ((default, f"{default}_avx2"), ("mine", "mine")):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before)
        hardware.prepare_compiler(cpu)
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == after


def test_choosing_does_not_import_the_compiler_of_torch() -> None:
    # The import takes more than a second and 80 MB.
    code = "from deepfake_cls.hardware import TrainerConfig, choose\nimport sys\nchoose(TrainerConfig(device='cpu'))\n"
    code += "print([name for name in sys.modules if name.startswith('torch._inductor')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torchrun_does_not_mix_devices(gpu: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(8, 0)
    for key, value in torchrun_variables(0, size=1).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("WORLD_SIZE", "2")  # the other process is on another machine
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert choose(TrainerConfig()).device == "cuda"
    monkeypatch.setattr(hardware, "cuda_problem", lambda: "the CUDA device is full")
    with pytest.raises(InputError, match="trainer.device=auto: the CUDA device is full; under torchrun use"):
        choose(TrainerConfig())
    assert choose(TrainerConfig(device="cpu")).device == "cpu"


def test_each_job_sets_all_switches_of_torch(gpu: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    gpu(8, 0)
    torch.set_float32_matmul_precision("high")
    choose(TrainerConfig(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # cuBLAS reads it at the first product
    # No TF32 in place of float32.
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
    choose(TrainerConfig())
    assert not torch.are_deterministic_algorithms_enabled()


def test_compiling_for_a_gpu_needs_a_c_compiler_and_python_headers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = hardware.Hardware("cuda", "bf16-mixed", 1, "some gpu")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="needs Python's header files, and .*Python.h is missing"):
        hardware.prepare_compiler(card)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++" if name.endswith("++") else None)
    with pytest.raises(InputError, match="needs the C compiler gcc"):
        hardware.prepare_compiler(card)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    hardware.prepare_compiler(card)


def test_without_the_probes_of_torch_the_safe_choice_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_vnni_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    assert choose(TrainerConfig()).precision == "32-true"
    assert not hardware.has_int8("cpu")


def test_threads_are_set_and_recorded() -> None:
    before = torch.get_num_threads()
    try:
        assert choose(TrainerConfig(threads=1)).threads == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainerConfig(device="tpu"), "trainer.device=tpu: expected auto, cpu or cuda"),
        (TrainerConfig(device="mps"), "trainer.device=mps: expected auto, cpu or cuda"),
        (TrainerConfig(device="cuda"), "torch sees no CUDA device here"),
        (TrainerConfig(precision="fp8"), "trainer.precision=fp8: expected auto, 32-true or bf16-mixed"),
        (TrainerConfig(threads=0), "trainer.threads=0: expected 1 or more"),
    ],
)
def test_impossible_hardware_is_refused(config: TrainerConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(config)


def test_bf16_trains_and_saves_a_float32_checkpoint(unibuc_like: Path) -> None:
    # Emulated bf16 is slow, so the images are small; the code path is the same as with bf16 in hardware.
    overrides = [*SMALL_NET, "data=unibuc", f"data.root={unibuc_like}", "epochs=1", "trainer.precision=bf16-mixed"]
    train.run(configure("train", TrainConfig, *overrides, "run_dir=out"), False)
    record = read_record(Path("out"))
    assert record.precision == "bf16-mixed"
    assert record.metrics["val_acc"] == pytest.approx(record.history[-1]["val_acc"], abs=0.1)
    model = load_model("out/checkpoints/last.ckpt")
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}


def eight_gpus(*_: object) -> hardware.Hardware:
    return hardware.Hardware("cuda", "bf16-mixed", 1, "some gpu", 8)


def test_a_last_batch_with_fewer_images_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "choose", eight_gpus)
    overrides = ["data.train_size=40", "data.validation_size=20", "data.workers=1", *SMALL_NET]
    with pytest.raises(InputError, match=r"batch_size=18: the last batch of 40 images would have 4, .* 8 devices"):
        train.run(configure("train", TrainConfig, *overrides, "batch_size=18"), False)


def test_compiling_is_for_one_device() -> None:
    with pytest.raises(InputError, match="trainer.compile=true: is for one device"):
        hardware.prepare_compiler(eight_gpus())


def test_the_number_of_threads_is_described() -> None:
    assert Hardware("cpu", "32-true", 1, "CPU").describe() == "CPU, 32-true, 1 thread"
    assert Hardware("cpu", "32-true", 2, "CPU", processes=2).describe() == "2 × CPU, 32-true, 2 threads"
