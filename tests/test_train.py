from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from deepfake_cls import evaluate, train
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import EvaluateConfig, TrainConfig
from deepfake_cls.data.store import open_split
from deepfake_cls.errors import InputError, Interrupted
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.stats.metrics import score
from deepfake_cls.training import fit as fit_module
from deepfake_cls.training.callbacks import LastCheckpoint, StopCleanly
from tests.conftest import SMALL_DATA, SMALL_NET, call, configure, stopped_after


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET, *overrides), False)


def outcome(folder: Path) -> dict[str, Any]:
    """All that has to be equal where two runs are said to be equal."""
    record = read_record(folder)
    last, best = (read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    return {
        "last": last["state_dict"],
        "best": best["state_dict"],
        "optimiser": last["optimizer_states"][0]["state"],
        "probs": read_predictions(folder / "predictions.npz")[2],
        "metrics": record.metrics,
        "confusion": record.confusion,
        "history": [{k: v for k, v in row.items() if k not in ("seconds", "train_loss")} for row in record.history],
    }


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Equality bit for bit, through dicts and lists."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), where
    else:
        assert a == b, where


def test_a_run_leaves_all_that_is_promised() -> None:
    fit("run_dir=out", "seed=3")
    record = read_record(Path("out"))
    assert (record.kind, record.status, record.seed, record.threads) == ("cnn", "ok", 3, 1)
    assert record.data["sizes"] == {"train": 40, "validation": 20}
    assert len(record.data["classes"]) == 5
    ids, labels, probs = read_predictions(Path("out/predictions.npz"))
    assert (len(ids), labels.shape, probs.shape) == (20, (20,), (20, 5))
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-5)
    again = score(labels, probs)
    assert again.confusion == record.confusion
    assert again.recall == record.recall
    assert {f"val_{k}": v for k, v in again.metrics.items()}.items() <= record.metrics.items()
    assert record.metrics["val_acc"] == pytest.approx(record.history[-1]["val_acc"])
    assert record.metrics["val_acc_best"] == max(row["val_acc"] for row in record.history)
    assert 0 <= record.metrics["train_acc"] <= 1
    assert set(record.seconds) == {"total", "setup", "fit", "per_epoch", "first_step", "evaluate"}
    assert record.config["lr"] == 4e-3
    assert list(Path("out").glob("events.out.tfevents.*"))


def test_one_stop_that_comes_twice_is_one_and_a_second_one_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    last = LastCheckpoint(Path("checkpoints/last.ckpt"))
    stop = StopCleanly(last)
    stop._receive(signal.SIGTERM, None)
    clock[0] += 0.4  # the same one again, through the parent of the job
    stop._receive(signal.SIGTERM, None)
    assert (stop.received, last.wanted) == (signal.SIGTERM, True)
    clock[0] += 0.2
    with pytest.raises(KeyboardInterrupt):
        stop._receive(signal.SIGTERM, None)


def test_checkpoint_alone_rebuilds_the_model() -> None:
    fit("run_dir=out", "channels=RGB", "epochs=1")
    model = load_model("out/checkpoints/last.ckpt")
    assert model.classes == read_record(Path("out")).data["classes"]
    assert model.channels == "RGB"
    assert model.size == (100, 100)
    raw = torch.load("out/checkpoints/last.ckpt", weights_only=True)
    assert raw["hyper_parameters"]["identity"] == read_record(Path("out")).identity
    assert not model.network.training


def test_done_is_skipped_and_force_repeats_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    fit("run_dir=out")
    first, written = outcome(Path("out")), Path("out/result.json").stat().st_mtime_ns
    fit("run_dir=out")
    assert "already done; force=true repeats it" in capsys.readouterr().out
    assert Path("out/result.json").stat().st_mtime_ns == written
    fit("run_dir=out", "force=true")
    assert Path("out/result.json").stat().st_mtime_ns > written
    assert_equal(outcome(Path("out")), first)


# 3 batches an epoch, 2 epochs: steps 1 and 2 lie in an epoch, 3 is its last batch, 4 and 5 lie in the next.
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(step: int) -> None:
    fit("run_dir=whole")
    with stopped_after(step):
        fit("run_dir=parts")
    assert not Path("parts/result.json").exists()
    fit("run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


@pytest.mark.parametrize("step", [2, 4, 5])
def test_killed_without_warning_and_resumed_equals_uninterrupted(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fit("run_dir=whole")

    def die(self: StopCleanly, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step:
            raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(StopCleanly, "on_train_batch_end", die)
        with pytest.raises(MemoryError):
            fit("run_dir=parts")
    failed = read_record(Path("parts"))
    assert (failed.status, failed.error) == ("failed", "MemoryError: out of memory")
    fit("run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


def test_killed_while_scoring_resumes_with_the_trained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("run_dir=whole")
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "write_outputs", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            fit("run_dir=parts")
    fit("run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


def test_sigterm_stops_a_real_process_with_a_checkpoint() -> None:
    words = ["deepfake_cls.train", *SMALL_DATA, *SMALL_NET, "epochs=400", "run_dir=out"]
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    limit = time.monotonic() + 300
    while not Path("out/checkpoints/last.ckpt").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "kept in out/checkpoints/last.ckpt" in output
    assert not Path("out/result.json").exists()
    assert read_checkpoint("out/checkpoints/last.ckpt")["loops"]


def test_training_never_opens_the_test_split(unibuc_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    inner = open_split

    def spy(split: Any, *rest: Any, **more: Any) -> Any:
        opened.append(split.name)
        return inner(split, *rest, **more)

    monkeypatch.setattr("deepfake_cls.data.images.open_split", spy)
    for file in (unibuc_like / "test").iterdir():
        file.write_bytes(b"not an image: whoever decodes this fails")
    train.run(
        configure(
            "train",
            TrainConfig,
            *SMALL_NET,
            "data=unibuc",
            f"data.root={unibuc_like}",
            "epochs=1",
            "run_dir=out",
        ),
        False,
    )
    assert opened == ["train", "validation"]


def test_checkpoint_of_another_run_is_refused_with_what_differs() -> None:
    fit("run_dir=one", "epochs=1")
    with pytest.raises(InputError, match=r"belongs to another run.*lr=0.004 there, 0.5 here"):
        fit("run_dir=two", "epochs=1", "lr=0.5", "checkpoint=one/checkpoints/last.ckpt")
    with pytest.raises(InputError, match="no such file"):
        fit("run_dir=three", "epochs=1", "checkpoint=nowhere.ckpt")
    Path("bad.ckpt").write_bytes(b"bad")
    with pytest.raises(InputError, match="weights_only=True"):
        fit("run_dir=four", "epochs=1", "checkpoint=bad.ckpt")
    Path("one/result.json").unlink()
    Path("one/checkpoints/last.ckpt").write_bytes(b"torn")
    with pytest.raises(InputError, match="this run's own: force=true starts the run again"):
        fit("run_dir=one", "epochs=1")


def test_checkpoint_resumes_in_another_folder_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    best_is_first = ["augment.cutmix=null", "lr=0.3"]  # so that the best epoch lies before the stop
    fit("run_dir=whole", *best_is_first)
    history = read_record(Path("whole")).history
    assert history[0]["val_acc"] >= history[1]["val_acc"]

    def stop(self: StopCleanly, trainer: Any, *rest: Any) -> None:
        self.received = signal.SIGINT if trainer.global_step == 4 else None
        inner(self, trainer, *rest)

    inner = StopCleanly.on_train_batch_end
    with monkeypatch.context() as patch:
        patch.setattr(StopCleanly, "on_train_batch_end", stop)
        with pytest.raises(Interrupted):
            fit("run_dir=parts", *best_is_first)
    fit("run_dir=moved", "checkpoint=parts/checkpoints/last.ckpt", *best_is_first)
    assert_equal(outcome(Path("moved")), outcome(Path("whole")))


def test_a_folder_with_something_else_is_refused() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    for force in ("false", "true"):
        with pytest.raises(InputError, match="holds something that is no run"):
            fit("run_dir=mine", f"force={force}")
    assert Path("mine/thesis.tex").read_text() == "years of work"
    fit("run_dir=out", "epochs=1")
    with pytest.raises(InputError, match="holds another run"):
        fit("run_dir=out", "epochs=1", "lr=0.1", "force=true")


@pytest.mark.parametrize(
    "override",
    [
        "lr=0",
        "epochs=0",
        "batch_size=1",
        "dropout=1",
        "channels=CMYK",
        "augment.rotation.fill_alpha=blue",
        "augment.cutmix.p=2",
        "recipe.warmup=1",
    ],
)
def test_impossible_values_are_refused_by_name(override: str) -> None:
    key, value = override.split("=")
    with pytest.raises(InputError, match=rf"{key}={value}.*: expected"):
        fit(override)
    assert not Path("runs").exists()


def test_seed_dropout_and_channels_change_the_run() -> None:
    base = configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET)
    from deepfake_cls.hardware import choose
    from deepfake_cls.runs import key_here

    hardware = choose(base.trainer)

    def identity(*overrides: str, data: str = "f") -> str:
        return key_here("cnn", configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET, *overrides), data, hardware)

    for override in ("seed=1", "dropout=0.1", "channels=RGB", "augment.rotation.degrees=0", "data.strength=0.5"):
        assert identity(override) != identity(), override
    for override in ("run_dir=x", "force=true", "data.cache=x", "data.workers=2", "trainer.progress=true"):
        assert identity(override) == identity(), override
    assert identity(data="g") != identity()


def test_flip_tta_is_scored_beside_and_changes_no_run() -> None:
    fit("run_dir=plain", "arm=rgb", "tta=none")
    fit("run_dir=both", "arm=rgb", "tta=flip")
    plain, both = (read_record(Path(name)) for name in ("plain", "both"))
    assert plain.identity == both.identity
    assert "val_acc_flip" not in plain.metrics
    assert {k: v for k, v in both.metrics.items() if k != "val_acc_flip"} == plain.metrics
    words = [*SMALL_DATA, "checkpoint=both/checkpoints/last.ckpt", "tta=flip", "run_dir=tta", "batch_size=64"]
    evaluate.run(configure("evaluate", EvaluateConfig, *words, "trainer.threads=1", "trainer.progress=false"), False)
    _, _, expected = read_predictions(Path("tta/predictions.npz"))
    _, labels, flipped = read_predictions(Path("both/predictions.npz"), "probs_flip")
    np.testing.assert_allclose(flipped, expected, atol=1e-6)
    assert both.metrics["val_acc_flip"] == pytest.approx(float((expected.argmax(axis=1) == labels).mean()))
    with pytest.raises(InputError, match="holds no probs_flip"):
        read_predictions(Path("plain/predictions.npz"), "probs_flip")


def test_the_curve_may_be_taken_on_fewer_images_than_the_result() -> None:
    fit("run_dir=all")
    fit("run_dir=few", "trainer.curve_images=8")
    everything, few = (read_record(Path(name)) for name in ("all", "few"))
    assert everything.metrics["val_acc"] == few.metrics["val_acc"]  # training and the result are the same
    assert everything.history[-1]["val_acc"] == pytest.approx(everything.metrics["val_acc"])
    assert all(8 * row["val_acc"] == pytest.approx(round(8 * row["val_acc"])) for row in few.history)
    assert [row["train_loss"] for row in few.history] == [row["train_loss"] for row in everything.history]
    assert [row["val_loss"] for row in few.history] != [row["val_loss"] for row in everything.history]
    assert everything.identity != few.identity


def test_a_network_without_skips_can_be_trained_and_used() -> None:
    fit("run_dir=plain", "model.args.skips=false")
    model = load_model("plain/checkpoints/last.ckpt")
    assert not [name for name in model.network.state_dict() if ".skip." in name]


@pytest.mark.slow
def test_a_sweep_runs_each_job_once_and_survives_a_bad_one() -> None:
    words = ["deepfake_cls.train", *SMALL_DATA, *SMALL_NET, "epochs=1", "-m"]
    first = call(*words, "lr=1e-4,3e-4,1e-3")
    folders = sorted(Path("runs/cnn").glob("*/result.json"))
    assert len(folders) == 3
    assert sorted(json.loads(f.read_text())["config"]["lr"] for f in folders) == [1e-4, 3e-4, 1e-3]
    assert first.stdout.count("next: ") == 3
    second = call(*words, "lr=1e-4,3e-4,1e-3")
    assert second.stdout.count("already done") == 3
    assert sorted(Path("runs/cnn").glob("*/result.json")) == folders

    third = call(*words, "dropout=0.1,7,0.2", "run_dir=parent", check=False)
    assert third.returncode == 1
    assert third.stderr.count("dropout=7.0: expected 0 or more, below 1") == 2  # when it happens, and at the end
    assert len(list(Path("parent").glob("*/result.json"))) == 2


def test_tensorboard_shows_all_that_is_promised() -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit("run_dir=out", "seed=2")
    events = EventAccumulator("out", size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    classes = read_record(Path("out")).data["classes"]
    scalars = {"train/loss", "val/loss", "val/accuracy", "train/lr", "final/val_acc", "final/train_acc"}
    assert scalars | {f"recall/{name}" for name in classes} <= set(tags["scalars"])
    assert {"augmented batch", "confusion"} <= set(tags["images"])
    assert len(events.Images("confusion")) == 2  # one an epoch
    assert events.Images("augmented batch")[0].height > 200
    summary = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert all(key.encode() in summary for key in ("lr", "dropout", "augment.cutmix.p", "channels"))


def test_a_finished_result_survives_what_fails_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("run_dir=out", "epochs=1")
    before = outcome(Path("out"))

    def closed(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("deepfake_cls.summary.print_run", closed)
    with pytest.raises(BrokenPipeError):
        fit("run_dir=out", "epochs=1")
    assert_equal(outcome(Path("out")), before)


def test_force_and_checkpoint_together_are_refused_before_anything_is_lost() -> None:
    fit("run_dir=out", "epochs=1")
    with pytest.raises(InputError, match="give one of them"):
        fit("run_dir=out", "epochs=1", "force=true", "checkpoint=out/checkpoints/last.ckpt")
    assert read_checkpoint("out/checkpoints/last.ckpt")


def test_one_batch_an_epoch_stops_too_and_ten_steps_are_no_special_case() -> None:
    one_batch = ["batch_size=64", "epochs=10"]  # 10 steps: the warm-up is one step exactly
    with stopped_after(3, signal.SIGINT, "Stopped after epoch 3 of 10"):
        fit("run_dir=parts", *one_batch)
    fit("run_dir=parts", *one_batch)
    fit("run_dir=whole", *one_batch)
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(InputError, match=r"diverged.*Lower the learning rate \(lr=1e\+30\)"):
        fit("run_dir=out", "lr=1e30")
    assert "diverged" in str(read_record(Path("out")).error)


def test_one_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / "data" / split / "solo").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / split / "solo" / "a.png")
    words = [*SMALL_NET, "data=folder", f"data.root={tmp_path / 'data'}"]
    with pytest.raises(InputError, match=r"too few classes \(solo\)"):
        train.run(configure("train", TrainConfig, *words), False)


def test_an_impossible_folder_is_one_line_and_status_1() -> None:
    done = call("deepfake_cls.train", *SMALL_DATA, *SMALL_NET, "run_dir=/proc/none/x", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: /proc/none")
    assert "Traceback" not in done.stderr


def test_a_checkpoint_takes_a_tenth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    last = LastCheckpoint(tmp_path / "last.ckpt")
    written = []

    class Trainer:
        current_epoch, max_epochs = 0, 30

    def write(self: Any, trainer: Trainer, module: object) -> None:
        written.append(trainer.current_epoch)
        now[0] += 1.0

    monkeypatch.setattr(ModelCheckpoint, "on_validation_end", write)
    trainer: Any = Trainer()
    for trainer.current_epoch in range(30):
        now[0] += 1.0
        last.wanted = trainer.current_epoch == 13
        last.on_validation_end(trainer, object())  # type: ignore[arg-type]
        assert last.kept == written[-1]
    assert written == [0, 9, 13, 22, 29]  # after 9 epochs of a second each, when asked for, and at the end


def test_a_stop_after_an_epoch_that_was_not_kept_waits_for_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("epochs=4", "run_dir=whole")
    saved, started = LastCheckpoint.on_validation_end, StopCleanly.on_train_epoch_start

    def slow(self: LastCheckpoint, trainer: Any, module: Any) -> None:
        saved(self, trainer, module)
        self._took = 1e9  # so the next epochs are not kept

    def stop(self: StopCleanly, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            self.received = signal.SIGTERM  # between two epochs, and too late to ask for a checkpoint
        started(self, trainer, module)

    with monkeypatch.context() as patched:
        patched.setattr(LastCheckpoint, "on_validation_end", slow)
        patched.setattr(StopCleanly, "on_train_epoch_start", stop)
        with pytest.raises(Interrupted, match="epoch 3 of 4, step 1 of 3"):
            fit("epochs=4", "run_dir=parts")
    fit("epochs=4", "run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))
