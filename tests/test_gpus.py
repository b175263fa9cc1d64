"""GPUs shared by the jobs of a sweep, on a machine without GPUs."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import pytest

from deepfake_cls import gpus
from deepfake_cls.gpus import free_gpu, jobs_at_a_time, usable_gpus, visible_gpus


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "has_driver", lambda: True)
    monkeypatch.setattr(gpus, "usable_gpus", lambda visible: 2)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_one_job_for_each_gpu_or_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus("auto") == visible_gpus("cuda") == ["0", "1"]
    assert [jobs_at_a_time(device) for device in ("auto", "cuda", "cpu")] == [2, 2, -1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-ab")
    assert visible_gpus("auto") == ["5", "GPU-ab"]
    monkeypatch.setattr(gpus, "usable_gpus", lambda visible: 0)
    assert jobs_at_a_time("auto") == -1
    monkeypatch.setattr(gpus, "has_driver", lambda: False)
    monkeypatch.setattr(gpus, "usable_gpus", lambda visible: pytest.fail("torch is not needed without a driver"))
    assert jobs_at_a_time("auto") == -1


@pytest.mark.usefixtures("two_gpus")
def test_joblib_starts_as_many_jobs_as_there_are_gpus() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from deepfake_cls.config import conf_dir

    OmegaConf.register_new_resolver("jobs_at_a_time", jobs_at_a_time, replace=True)
    for overrides, expected in (([], 2), (["trainer.device=cpu"], -1), (["hydra.launcher.n_jobs=3"], 3)):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("train", overrides=["launcher=joblib", *overrides], return_hydra_config=True)
        assert config.hydra.launcher.n_jobs == expected


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_has_one_job_and_further_jobs_wait(capsys: pytest.CaptureFixture[str]) -> None:
    with free_gpu([]) as gpu:
        assert gpu is None
    third: list[str | None] = []

    def take() -> None:
        with free_gpu(["0", "1"]) as gpu:
            third.append(gpu)

    with free_gpu(["0", "1"]) as first:
        with free_gpu(["0", "1"]) as second:
            assert (first, second) == ("0", "1")
            waiting = threading.Thread(target=take)
            waiting.start()
            while "Waiting for a GPU" not in capsys.readouterr().out:
                time.sleep(0.01)
            assert third == []
        waiting.join()
    assert third == ["1"]


def test_a_gpu_hidden_by_ray_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for driver, device, warned in ((True, "auto", True), (True, "cpu", False), (False, "auto", False)):
        monkeypatch.setattr(gpus, "has_driver", lambda driver=driver: driver)
        gpus.warn_of_hidden_gpus(device)
        assert ("num_gpus=1" in capsys.readouterr().err) is warned


def test_hidden_gpus_are_not_counted() -> None:
    usable_gpus.cache_clear()
    assert usable_gpus("") == 0
