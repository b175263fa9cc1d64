"""On a real NVIDIA GPU: ``make test-gpu``."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from deepfake_cls import evaluate, hardware, knn, train
from deepfake_cls.config import EvaluateConfig, KnnConfig, TrainConfig
from deepfake_cls.hardware import has_int8
from deepfake_cls.models.knn import nearest
from deepfake_cls.records import read_predictions, read_record
from tests.conftest import SMALL_NET, call, configure, stopped_after
from tests.test_train import assert_equal, outcome

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("unibuc_like")]

OVERRIDES = [*SMALL_NET, "data=unibuc", "data.root=competition", "channels=RGB", "trainer.device=cuda"]


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *OVERRIDES, *overrides), False)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_network_trained_on_the_gpu_has_equal_scores_on_the_cpu(precision: str) -> None:
    if precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")
    fit("epochs=12", "augment.cutmix=null", f"trainer.precision={precision}", "run_dir=out")
    record = read_record(Path("out"))
    assert (record.device, record.precision) == (torch.cuda.get_device_name(), precision)
    assert record.metrics["val_acc"] > 0.8
    for device in ("cuda", "cpu"):
        overrides = [
            "checkpoint=out/checkpoints/last.ckpt",
            "data=unibuc",
            "data.root=competition",
            f"run_dir={device}",
        ]
        overrides += [f"trainer.device={device}", "trainer.precision=32-true", "trainer.progress=false"]
        evaluate.run(configure("evaluate", EvaluateConfig, *overrides), False)
    probs = [read_predictions(Path(folder) / "predictions.npz")[2] for folder in ("out", "cuda", "cpu")]
    assert np.allclose(probs[1], probs[2], atol=1e-4)  # float32, not TF32
    assert np.allclose(probs[0], probs[2], atol=1e-4 if precision == "32-true" else 0.05)


def test_deterministic_runs_are_equal_also_when_resumed() -> None:
    fit("run_dir=free")  # so that cuBLAS is already initialised
    fit("run_dir=whole", "trainer.deterministic=true")
    fit("run_dir=again", "trainer.deterministic=true")
    assert_equal(outcome(Path("again")), outcome(Path("whole")))
    with stopped_after(1):
        fit("run_dir=parts", "trainer.deterministic=true")
    fit("run_dir=parts", "trainer.deterministic=true")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


@pytest.mark.parametrize("columns", [7, 3_000, 131_072])
def test_neighbours_equal_those_of_the_cpu(columns: int) -> None:
    rng = np.random.default_rng(0)
    queries, references = (rng.integers(0, 256, (count, columns), dtype=np.uint8) for count in (33, 1_100))
    expected = nearest(queries, references, 9)
    for int8 in {False, has_int8("cuda")}:
        for on_gpu, on_cpu in zip(nearest(queries, references, 9, device="cuda", int8=int8), expected, strict=True):
            assert np.array_equal(on_gpu, on_cpu)


def test_knn_runs_on_the_gpu() -> None:
    overrides = ["data=unibuc", "data.root=competition", "trainer.progress=false"]
    for device in ("cuda", "cpu"):
        knn.run(configure("knn", KnnConfig, *overrides, f"trainer.device={device}", f"run_dir={device}"), False)
    assert read_record(Path("cuda")).by_k == read_record(Path("cpu")).by_k


def test_jobs_through_joblib_take_turns_on_the_gpu() -> None:
    process = call("deepfake_cls.train", *OVERRIDES, "epochs=1", "-m", "launcher=joblib", "seed=0,1,2")
    assert process.stdout.count("validation accuracy, 95 % interval") == 3, process.stdout + process.stderr


def test_a_batch_that_does_not_fit_is_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cuda_problem", lambda: None)  # skip the check for free memory
    gc.collect()
    torch.cuda.empty_cache()  # memory in the cache would be used first
    memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**20 / memory))
    try:
        with pytest.raises(torch.OutOfMemoryError):
            fit("run_dir=out")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert read_record(Path("out")).status == "failed"
