"""Training from the command line to the record: results, stops and resumes, refusals, sweeps."""

from __future__ import annotations

import json
import os
import shutil
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
from deepfake_cls.hardware import choose
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.run_key import run_key
from deepfake_cls.stats.metrics import score
from deepfake_cls.training import results
from deepfake_cls.training.callbacks import LastCheckpoint, StopCleanly
from tests.conftest import SMALL_DATA, SMALL_NET, call, configure, stopped_after

SMALL = [*SMALL_DATA, *SMALL_NET, "data.image_size=16"]
FINISHED = ["seed=3", "channels=RGB"]  # the run of the fixture ``finished``


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *SMALL, *overrides), False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of two epochs with three batches each; do not change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        fit(f"run_dir={folder}", *FINISHED)
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run: the folder ``out`` of the test."""
    return Path(shutil.copytree(finished, tmp_path / "out")).relative_to(tmp_path)


def outcome(folder: Path) -> dict[str, Any]:
    """All results of a run that have to be equal where two runs are equal."""
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
    """Assert equality bit for bit, through dicts and lists."""
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


# A finished run


def test_record_and_predictions_of_a_run(finished: Path) -> None:
    record = read_record(finished)
    assert (record.kind, record.status, record.seed, record.threads) == ("cnn", "ok", 3, 1)
    assert record.data["sizes"] == {"train": 40, "validation": 20}
    assert len(record.data["classes"]) == 5
    ids, labels, probs = read_predictions(finished / "predictions.npz")
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


def test_checkpoint_alone_rebuilds_the_model(finished: Path) -> None:
    model = load_model(finished / "checkpoints/last.ckpt")
    assert model.classes == read_record(finished).data["classes"]
    assert model.channels == "RGB"
    assert model.size == (16, 16)
    raw = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)
    assert raw["hyper_parameters"]["identity"] == read_record(finished).identity
    assert not model.network.training


def test_tensorboard_has_curves_images_and_hyperparameters(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    classes = read_record(finished).data["classes"]
    scalars = {"train/loss", "val/loss", "val/accuracy", "train/lr", "final/val_acc", "final/train_acc"}
    assert scalars | {f"recall/{name}" for name in classes} <= set(tags["scalars"])
    assert {"augmented batch", "confusion"} <= set(tags["images"])
    assert len(events.Images("confusion")) == 2  # one for each epoch
    assert events.Images("augmented batch")[0].height == 2 * 16 + 3 * 2  # two rows of images, in a frame of 2 pixels
    summary = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert all(key.encode() in summary for key in ("lr", "dropout", "augment.cutmix.p", "channels"))


def test_a_finished_run_is_skipped_and_force_repeats_it_bit_for_bit(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, written = outcome(out), (out / "result.json").stat().st_mtime_ns
    fit("run_dir=out", *FINISHED)
    assert "already done; force=true repeats it" in capsys.readouterr().out
    assert (out / "result.json").stat().st_mtime_ns == written
    fit("run_dir=out", "force=true", *FINISHED)
    assert (out / "result.json").stat().st_mtime_ns > written
    assert_equal(outcome(out), first)


def test_an_error_after_the_result_does_not_change_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outcome(out)

    def closed(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("deepfake_cls.summary.print_run", closed)
    with pytest.raises(BrokenPipeError):
        fit("run_dir=out", *FINISHED)
    assert_equal(outcome(out), before)


# Stop and resume


def test_a_signal_that_arrives_twice_counts_once_and_a_second_signal_stops_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    last = LastCheckpoint(Path("checkpoints/last.ckpt"))
    stop = StopCleanly(last)
    stop._receive(signal.SIGTERM, None)
    clock[0] += 0.4  # the same signal, passed on by the job's parent
    stop._receive(signal.SIGTERM, None)
    assert (stop.received, last.requested) == (signal.SIGTERM, True)
    clock[0] += 0.2
    with pytest.raises(KeyboardInterrupt):
        stop._receive(signal.SIGTERM, None)


# Steps 1 and 2 are within the first epoch, 3 is its last batch, 4 and 5 are within the second epoch.
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(step: int, finished: Path) -> None:
    with stopped_after(step):
        fit("run_dir=parts", *FINISHED)
    assert not Path("parts/result.json").exists()
    fit("run_dir=parts", *FINISHED)
    assert_equal(outcome(Path("parts")), outcome(finished))


@pytest.mark.parametrize("step", [2, 4, 5])
def test_killed_without_warning_and_resumed_equals_uninterrupted(
    step: int, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: StopCleanly, trainer: Any, *_: Any) -> None:
        if trainer.global_step == step:
            raise MemoryError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(StopCleanly, "on_train_batch_end", die)
        with pytest.raises(MemoryError):
            fit("run_dir=parts", *FINISHED)
    failed = read_record(Path("parts"))
    assert (failed.status, failed.error) == ("failed", "MemoryError: out of memory")
    fit("run_dir=parts", *FINISHED)
    assert_equal(outcome(Path("parts")), outcome(finished))


def test_killed_while_scoring_resumes_with_the_trained_weights(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(results, "write_outputs", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            fit("run_dir=parts", *FINISHED)
    fit("run_dir=parts", *FINISHED)
    assert_equal(outcome(Path("parts")), outcome(finished))


def test_sigterm_stops_a_process_with_a_checkpoint() -> None:
    arguments = ["deepfake_cls.train", *SMALL, "epochs=2000", "logger=csv", "run_dir=out"]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    limit = time.monotonic() + 300
    while not Path("out/checkpoints/last.ckpt").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "checkpoint: out/checkpoints/last.ckpt" in output
    assert not Path("out/result.json").exists()
    assert read_checkpoint("out/checkpoints/last.ckpt")["loops"]


def test_a_run_resumes_in_another_folder_with_its_best_epoch() -> None:
    best_is_first = ["augment.cutmix=null", "lr=0.3", "logger=csv"]
    fit("run_dir=whole", *best_is_first)
    history = read_record(Path("whole")).history
    assert history[0]["val_acc"] >= history[1]["val_acc"]
    with stopped_after(4, signal.SIGINT):
        fit("run_dir=parts", *best_is_first)
    fit("run_dir=moved", "checkpoint=parts/checkpoints/last.ckpt", *best_is_first)
    assert_equal(outcome(Path("moved")), outcome(Path("whole")))


def test_a_checkpoint_without_newer_hyperparameters_resumes(finished: Path) -> None:
    with stopped_after(4):
        fit("run_dir=parts", *FINISHED)
    old = read_checkpoint("parts/checkpoints/last.ckpt")
    del old["hyper_parameters"]["resize"]
    torch.save(old, "parts/checkpoints/last.ckpt")
    fit("run_dir=parts", *FINISHED)
    assert_equal(outcome(Path("parts")), outcome(finished))


def test_epochs_of_one_batch_and_a_warmup_of_one_step() -> None:
    one_batch = ["batch_size=64", "epochs=10", "logger=csv"]  # a tenth of 10 steps is the warm-up
    with stopped_after(3, signal.SIGINT, "Stopped after epoch 3 of 10"):
        fit("run_dir=parts", *one_batch)
    fit("run_dir=parts", *one_batch)
    fit("run_dir=whole", *one_batch)
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


def test_saving_checkpoints_takes_a_tenth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    last = LastCheckpoint(tmp_path / "last.ckpt")
    saved = []

    class Trainer:
        current_epoch, max_epochs = 0, 30

    def save(self: Any, trainer: Trainer, module: object) -> None:
        saved.append(trainer.current_epoch)
        now[0] += 1.0

    monkeypatch.setattr(ModelCheckpoint, "on_validation_end", save)
    trainer: Any = Trainer()
    for trainer.current_epoch in range(30):
        now[0] += 1.0
        last.requested = trainer.current_epoch == 13
        last.on_validation_end(trainer, object())  # type: ignore[arg-type]
        assert last.saved_epoch == saved[-1]
    assert saved == [0, 9, 13, 22, 29]  # after 9 epochs of a second each, on request, and at the end


def test_a_stop_after_an_epoch_that_was_not_saved_waits_for_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("epochs=4", "logger=csv", "run_dir=whole")
    on_validation_end, on_train_epoch_start = LastCheckpoint.on_validation_end, StopCleanly.on_train_epoch_start

    def slow(self: LastCheckpoint, trainer: Any, module: Any) -> None:
        on_validation_end(self, trainer, module)
        self._duration = 1e9  # so that the next epochs are not saved

    def stop(self: StopCleanly, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            self.received = signal.SIGTERM  # between two epochs, and too late to request a checkpoint
        on_train_epoch_start(self, trainer, module)

    with monkeypatch.context() as patched:
        patched.setattr(LastCheckpoint, "on_validation_end", slow)
        patched.setattr(StopCleanly, "on_train_epoch_start", stop)
        with pytest.raises(Interrupted, match="epoch 3 of 4, step 1 of 3"):
            fit("epochs=4", "logger=csv", "run_dir=parts")
    fit("epochs=4", "logger=csv", "run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


# Refusals


def test_a_checkpoint_of_another_run_is_refused_with_the_differences(out: Path) -> None:
    with pytest.raises(InputError, match=r"belongs to another run.*lr=0.004 there, 0.5 here"):
        fit("run_dir=two", "lr=0.5", "checkpoint=out/checkpoints/last.ckpt", *FINISHED)
    with pytest.raises(InputError, match="no such file"):
        fit("run_dir=three", "checkpoint=nowhere.ckpt")
    Path("bad.ckpt").write_bytes(b"bad")
    with pytest.raises(InputError, match="checkpoint=bad.ckpt: is not a checkpoint of this project"):
        fit("run_dir=four", "checkpoint=bad.ckpt")


def test_a_run_with_a_damaged_last_checkpoint_resumes_from_its_best_one(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, last, best = outcome(out), out / "checkpoints/last.ckpt", out / "checkpoints/best.ckpt"
    (out / "result.json").unlink()
    last.write_bytes(last.read_bytes()[:-100])
    message = (
        f"checkpoint={last}: is damaged .*It is this run's last checkpoint: resume from its best epoch with"
        f" checkpoint={best}, or start again with force=true"
    )
    with pytest.raises(InputError, match=message):
        fit("run_dir=out", *FINISHED)
    fit("run_dir=out", f"checkpoint={best}", *FINISHED)
    assert_equal(outcome(out), before)


def test_a_checkpoint_without_the_state_of_the_training_is_refused(out: Path) -> None:
    checkpoint = read_checkpoint(out / "checkpoints" / "last.ckpt")
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, "weights.ckpt")
    with pytest.raises(InputError, match="weights.ckpt: lacks optimizer_states, so a training cannot resume from it"):
        fit("run_dir=other", *FINISHED, "checkpoint=weights.ckpt")


@pytest.mark.usefixtures("out")
def test_a_folder_with_other_content_is_refused() -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    for force in ("false", "true"):
        with pytest.raises(InputError, match="contains files, but no run"):
            fit("run_dir=mine", f"force={force}")
    assert Path("mine/thesis.tex").read_text() == "years of work"
    with pytest.raises(InputError, match="contains another run"):
        fit("run_dir=out", "lr=0.1", "force=true", *FINISHED)


@pytest.mark.usefixtures("out")
def test_force_with_checkpoint_is_refused_before_anything_is_deleted() -> None:
    with pytest.raises(InputError, match="give one of them"):
        fit("run_dir=out", "force=true", "checkpoint=out/checkpoints/last.ckpt", *FINISHED)
    assert read_checkpoint("out/checkpoints/last.ckpt")


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


def test_a_diverging_training_is_an_error() -> None:
    with pytest.raises(InputError, match=r"diverged.*Lower the learning rate \(lr=1e\+30\)"):
        fit("run_dir=out", "lr=1e30")
    assert "diverged" in str(read_record(Path("out")).error)


def test_one_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / "data" / split / "solo").mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / split / "solo" / "a.png")
    overrides = [*SMALL_NET, "data=folder", f"data.root={tmp_path / 'data'}"]
    with pytest.raises(InputError, match=r"too few classes \(solo\)"):
        train.run(configure("train", TrainConfig, *overrides), False)


def test_folders_of_classes_are_trained_on_and_the_splits_and_channels_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("dalle", "real"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for row in range(20):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / label / f"{row}.png")
    done = call("deepfake_cls.train", *SMALL_NET, "epochs=1", "data=folder", "data.root=mine", "run_dir=out")
    for text in (
        "mine has a folder for each class and none for splits: its 40 images are the split train.",
        "There is no split validation: 4 of 40 images of train are used for it",
        "The images have no alpha channel: channels=RGBA adds a constant one. channels=RGB omits it.",
    ):
        assert (done.stdout + done.stderr).count(text) == 1
    assert read_record(Path("out")).data["classes"] == ["dalle", "real"]


def test_an_impossible_folder_is_one_line_and_status_1() -> None:
    process = call("deepfake_cls.train", *SMALL, "run_dir=/proc/none/x", check=False)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(
        "error: /proc/none/x cannot be written: No such file or directory;"
    )
    assert "Traceback" not in process.stderr


# What changes a run, and what does not


def test_training_never_opens_the_test_split(unibuc_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def spy(split: Any, *args: Any, **options: Any) -> Any:
        opened.append(split.name)
        return open_split(split, *args, **options)

    monkeypatch.setattr("deepfake_cls.data.images.open_split", spy)
    for file in (unibuc_like / "test").iterdir():
        file.write_bytes(b"not an image")
    overrides = [*SMALL_NET, "data=unibuc", f"data.root={unibuc_like}", "epochs=1", "run_dir=out"]
    train.run(configure("train", TrainConfig, *overrides), False)
    assert opened == ["train", "validation"]


def test_keys_that_change_the_run_key() -> None:
    hardware = choose(configure("train", TrainConfig, *SMALL).trainer)

    def key(*overrides: str, data: str = "f") -> str:
        return run_key("cnn", configure("train", TrainConfig, *SMALL, *overrides), data, hardware)

    default = key()
    for override in ("seed=1", "dropout=0.1", "channels=RGB", "augment.rotation.degrees=0", "data.strength=0.5"):
        assert key(override) != default, override
    same = ("run_dir=x", "force=true", "data.cache=x", "data.workers=2", "trainer.progress=true")
    for override in same:
        assert key(override) == default, override
    assert key(data="g") != default


def test_flip_tta_adds_a_score_and_changes_no_run(out: Path) -> None:
    fit("run_dir=plain", "tta=none", *FINISHED)
    plain, both = (read_record(Path(name)) for name in ("plain", "out"))
    assert plain.identity == both.identity
    assert "val_acc_flip" not in plain.metrics
    assert {k: v for k, v in both.metrics.items() if k != "val_acc_flip"} == plain.metrics
    overrides = [*SMALL_DATA, "data.image_size=16", "checkpoint=out/checkpoints/last.ckpt", "tta=flip", "run_dir=tta"]
    overrides += ["batch_size=64", "trainer.threads=1", "trainer.progress=false"]
    evaluate.run(configure("evaluate", EvaluateConfig, *overrides), False)
    _, _, expected = read_predictions(Path("tta/predictions.npz"))
    _, labels, flipped = read_predictions(out / "predictions.npz", "probs_flip")
    np.testing.assert_allclose(flipped, expected, atol=1e-6)
    assert both.metrics["val_acc_flip"] == pytest.approx(float((expected.argmax(axis=1) == labels).mean()))
    with pytest.raises(InputError, match="contains no probs_flip"):
        read_predictions(Path("plain/predictions.npz"), "probs_flip")


def test_curve_images_limits_the_curve_and_not_the_result(finished: Path) -> None:
    fit("run_dir=few", "trainer.curve_images=8", *FINISHED)
    everything, few = read_record(finished), read_record(Path("few"))
    assert everything.metrics["val_acc"] == few.metrics["val_acc"]
    assert everything.history[-1]["val_acc"] == pytest.approx(everything.metrics["val_acc"])
    assert all(8 * row["val_acc"] == pytest.approx(round(8 * row["val_acc"])) for row in few.history)
    assert [row["train_loss"] for row in few.history] == [row["train_loss"] for row in everything.history]
    assert [row["val_loss"] for row in few.history] != [row["val_loss"] for row in everything.history]
    assert everything.identity != few.identity


def test_a_network_without_skips_is_trained_and_rebuilt() -> None:
    fit("run_dir=plain", "model.args.skips=false", "epochs=1")
    model = load_model("plain/checkpoints/last.ckpt")
    assert not [name for name in model.network.state_dict() if ".skip." in name]


@pytest.mark.slow
def test_a_sweep_runs_each_job_once_and_continues_after_a_failed_one() -> None:
    arguments = ["deepfake_cls.train", *SMALL, "epochs=1", "-m"]
    first = call(*arguments, "lr=1e-4,1e-3")
    folders = sorted(Path("runs/cnn").glob("*/result.json"))
    assert len(folders) == 2
    assert sorted(json.loads(f.read_text())["config"]["lr"] for f in folders) == [1e-4, 1e-3]
    assert first.stdout.count("next: ") == 1  # of the sweep
    assert "label images: " not in first.stdout
    assert first.stdout.splitlines()[-1].startswith("next: ")
    second = call(*arguments, "lr=1e-4,1e-3")
    assert second.stdout.count("already done") == 2
    assert sorted(Path("runs/cnn").glob("*/result.json")) == folders

    third = call(*arguments, "dropout=7,0.2", "run_dir=parent", check=False)
    assert third.returncode == 1
    assert third.stderr.count("dropout=7: expected 0 or more, below 1") == 2  # when it fails, and at the end
    assert len(list(Path("parent").glob("*/result.json"))) == 1
