from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepfake_cls import hardware, train
from deepfake_cls.config import TrainConfig, TrainerConfig
from deepfake_cls.errors import InputError
from deepfake_cls.hardware import choose
from deepfake_cls.models.classifier import load_classifier
from deepfake_cls.results.record import read_record
from tests.conftest import SMALL_NET, configure


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("bf16", "amx", "expected"), [(0, 0, "32-true"), (1, 0, "bf16-mixed"), (0, 1, "bf16-mixed")])
def test_bf16_only_where_the_cpu_multiplies_it(
    bf16: int, amx: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(bf16), raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx), raising=False)
    assert choose(TrainerConfig()).precision == expected
    assert choose(TrainerConfig(precision="32-true")).precision == "32-true"


def test_int8_only_where_the_device_sums_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    for supported in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda found=supported: found, raising=False)
        assert hardware.has_int8("cpu") is supported
    assert hardware.has_int8("cuda")


def test_a_torch_without_the_probes_gets_what_is_right_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
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
        (TrainerConfig(device="cuda"), "torch sees no CUDA device here"),
        (TrainerConfig(precision="fp8"), "trainer.precision=fp8: expected auto, 32-true or bf16-mixed"),
        (TrainerConfig(threads=0), "trainer.threads=0: expected 1 or more"),
    ],
)
def test_impossible_hardware_is_refused(config: TrainerConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(config)


def test_bf16_trains_scores_and_leaves_a_checkpoint_of_float32(unibuc_like: Path) -> None:
    # Where bf16 is emulated this is slow, so the images are small; the path is the one of CPUs and GPUs that have it.
    words = [*SMALL_NET, "data=unibuc", f"data.root={unibuc_like}", "epochs=1", "trainer.precision=bf16-mixed"]
    train.run(configure("train", TrainConfig, *words, "run_dir=out"), False)
    record = read_record(Path("out"))
    assert record.precision == "bf16-mixed"
    assert record.metrics["val_acc"] == pytest.approx(record.history[-1]["val_acc"], abs=0.1)
    model = load_classifier("out/checkpoints/last.ckpt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def eight_gpus(*_: object) -> hardware.Hardware:
    return hardware.Hardware("cuda", "bf16-mixed", 1, "some gpu", 8)


def test_a_last_batch_with_nothing_for_some_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "choose", eight_gpus)
    words = ["data.train_size=40", "data.validation_size=20", "data.workers=1", *SMALL_NET]
    with pytest.raises(InputError, match=r"batch_size=18: the last batch of 40 images would have 4, .* 8 devices"):
        train.run(configure("train", TrainConfig, *words, "batch_size=18"), False)


def test_compiling_is_for_one_device() -> None:
    with pytest.raises(InputError, match="trainer.compile=true: is for one device"):
        hardware.require_compiler(eight_gpus())
