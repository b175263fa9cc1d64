"""What training on a GPU needs, tested on the CPU: the CPU does not wait, and the network compiles in place."""

from __future__ import annotations

import gc
import shutil
import signal
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deepfake_cls import train
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import TrainConfig
from deepfake_cls.data.batches import Pixels
from deepfake_cls.errors import InputError
from deepfake_cls.records import read_record
from deepfake_cls.training import augment, callbacks, fit
from deepfake_cls.training.module import Classifier
from tests.conftest import SMALL_DATA, SMALL_NET, configure

SMALL = [*SMALL_DATA, *SMALL_NET, "data.image_size=16"]
# Operations that make the CPU wait for a GPU: they read values, or the size of their result depends on values.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal", "bincount")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts such operations while ``on``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on, self.counts = False, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put_") else ()
        if self.on and (name in WAITS or any(i is not None and i.dtype == torch.bool for i in indices)):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Epochs(L.Callback):
    """Turns counting on from the first step of an epoch to its last."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.waits.on = True

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.waits.on = False


@pytest.mark.parametrize("progress", ["false", "true"])
def test_an_epoch_reads_only_what_the_progress_bar_shows(progress: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits()
    drawn: Callable[..., Any] = vars(augment.Pipeline)["draw"]

    def draw(*args: Any) -> Any:
        before, waits.on = waits.on, False  # random numbers are on the CPU, on every device
        try:
            return drawn(*args)
        finally:
            waits.on = before

    def build(*args: Any) -> Any:
        trainer = built(*args)
        trainer.callbacks.append(Epochs(waits))
        return trainer

    built = vars(fit)["build_trainer"]
    monkeypatch.setattr(augment.Pipeline, "draw", draw)
    monkeypatch.setattr(fit, "build_trainer", build)
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 1e6)  # no second passes
    overrides = [*SMALL, "batch_size=2", "epochs=2", f"trainer.progress={progress}", "run_dir=out"]  # 20 steps an epoch
    with waits:
        train.run(configure("train", TrainConfig, *overrides), False)
    # The bar reads the loss of the first step and of the last step of each epoch.
    assert waits.counts.total() <= (0 if progress == "false" else 3), waits.counts
    assert read_record(Path("out")).status == "ok"


def test_curves_are_written_once_a_second_and_lose_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, int]] = []
    saved: list[int] = []
    steps = 0
    now = [0.0]

    class Logger:
        def save(self) -> None:
            saved.append(steps)

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            assert set(metrics) == {"train/loss", "train/lr"}
            assert metrics["train/loss"] == step + 1
            assert metrics["train/lr"] == 0.5 + step
            written.append((steps, step))

    class Trainer:
        logger = Logger()
        global_step = 0
        optimizers = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5),)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(callbacks, "Classifier", object)
    curves, trainer = callbacks.Curves(every=2), Trainer()
    for steps in range(1, 12):
        now[0] += 0.3
        trainer.global_step = steps

        class Module:
            last_loss = torch.tensor(float(steps))

        trainer.optimizers[0].param_groups[0]["lr"] = 0.5 + steps - 1
        curves.on_train_batch_start(trainer, Module(), None, steps)  # type: ignore[arg-type]
        trainer.optimizers[0].param_groups[0][
            "lr"
        ] = -1.0  # the schedule steps before the hook for the end of the batch
        curves.on_train_batch_end(trainer, Module(), None, None, steps)  # type: ignore[arg-type]
    curves.on_exception(trainer, Module(), KeyboardInterrupt())  # type: ignore[arg-type]
    assert [step for _, step in written] == [1, 3, 5, 7, 9]
    assert [at for at, _ in written] == [4, 4, 8, 8, 11]  # after 1.2 s, 2.4 s, and at the end
    assert saved == [4, 8, 11]


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: g++")
def test_a_compiled_network_has_the_same_loss_and_the_same_names_in_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resets, stances = [], []
    reset: Any = vars(torch.compiler)["reset"]
    score: Any = vars(fit)["score_all"]
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(reset()))

    def score_all(*args: Any) -> Any:
        stances.append(torch._dynamo.eval_frame._stance.stance)
        return score(*args)

    monkeypatch.setattr(fit, "score_all", score_all)
    for run, compiled in (("plain", "false"), ("compiled", "true")):
        overrides = [*SMALL, "epochs=1", "batch_size=40", "trainer.precision=32-true"]
        overrides += [f"trainer.compile={compiled}", f"run_dir={run}"]
        train.run(configure("train", TrainConfig, *overrides), False)
    assert len(resets) == 1  # otherwise later jobs of a sweep would train eagerly
    assert stances == ["default", "force_eager"]
    plain, compiled = (read_checkpoint(f"{run}/checkpoints/last.ckpt")["state_dict"] for run in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    losses = [read_record(Path(run)).history[0]["train_loss"] for run in ("plain", "compiled")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    load_model("compiled/checkpoints/last.ckpt")
    assert read_record(Path("compiled")).identity != read_record(Path("plain")).identity


def test_a_finished_run_frees_its_memory_and_restores_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise each job of a sweep in one process would keep its images and its network on a GPU.
    alive: list[weakref.ref[Any]] = []
    handlers: list[Any] = []
    init: Any = vars(Pixels)["__init__"]
    score: Any = vars(fit)["score_all"]

    def make(self: Pixels, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        alive.append(weakref.ref(self))

    def score_all(config: Any, data: Any, model: Any, hardware: Any) -> Any:
        alive.append(weakref.ref(model))
        handlers.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
        return score(config, data, model, hardware)

    monkeypatch.setattr(Pixels, "__init__", make)
    monkeypatch.setattr(fit, "score_all", score_all)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for seed in (0, 1):
        train.run(configure("train", TrainConfig, *SMALL, "epochs=1", f"seed={seed}"), False)
    gc.collect()
    assert len(alive) == 2 * 3
    assert [reference() for reference in alive] == [None] * 6
    assert handlers == [before, before]  # during scoring


def test_a_deterministic_run_is_deterministic_in_training_and_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    deterministic_modes: list[bool] = []
    score: Any = vars(fit)["score_all"]
    step: Any = vars(Classifier)["training_step"]

    def training_step(self: Classifier, *args: Any) -> Any:
        deterministic_modes.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *args)

    def score_all(*args: Any) -> Any:
        deterministic_modes.append(torch.are_deterministic_algorithms_enabled())
        return score(*args)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    monkeypatch.setattr(fit, "score_all", score_all)
    for deterministic in (True, False):
        overrides = [*SMALL, "epochs=1", "batch_size=40", f"trainer.deterministic={deterministic}"]
        train.run(configure("train", TrainConfig, *overrides), False)
        assert deterministic_modes == [deterministic] * 2
        deterministic_modes.clear()


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"trainer.compile=true: needs the C\+\+ compiler"):
        train.run(configure("train", TrainConfig, *SMALL, "trainer.compile=true"), False)
