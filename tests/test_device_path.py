"""What a GPU needs of the training loop, seen on the CPU: no waiting for it, and a network that compiles in place."""

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

# What makes the host wait for a GPU: numbers that are read, and results whose size depends on numbers.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal", "bincount")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts them while ``on``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on, self.found = False, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        picked = args[1] if name in ("index", "index_put_") else ()
        if self.on and (name in WAITS or any(i is not None and i.dtype == torch.bool for i in picked)):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Epochs(L.Callback):
    """Counts from the first step of an epoch to its last."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.waits.on = True

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.waits.on = False


@pytest.mark.parametrize("progress", ["false", "true"])
def test_an_epoch_reads_nothing_from_the_device_but_for_what_is_shown(
    progress: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Waits()
    drawn: Callable[..., Any] = vars(augment.Pipeline)["draw"]

    def draw(*args: Any) -> Any:
        before, waits.on = waits.on, False  # what is drawn lies on the CPU wherever the images are
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
    words = [
        *SMALL_DATA,
        *SMALL_NET,
        "batch_size=2",
        "epochs=2",
        f"trainer.progress={progress}",
        "run_dir=out",
    ]  # 20 steps an epoch
    with waits:
        train.run(configure("train", TrainConfig, *words), False)
    # The bar reads the first step's loss and each epoch's last; torch's own checks are none of these.
    assert waits.found.total() <= (0 if progress == "false" else 3), waits.found
    assert read_record(Path("out")).status == "ok"


def test_curves_are_written_every_second_and_lose_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
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
        trainer.optimizers[0].param_groups[0]["lr"] = -1.0  # the schedule goes on before the batch is over
        curves.on_train_batch_end(trainer, Module(), None, None, steps)  # type: ignore[arg-type]
    curves.on_exception(trainer, Module(), KeyboardInterrupt())  # type: ignore[arg-type]
    assert [step for _, step in written] == [1, 3, 5, 7, 9]
    assert [at for at, _ in written] == [4, 4, 8, 8, 11]  # after 1.2 s, 2.4 s, and at the end
    assert saved == [4, 8, 11]


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler, and g++ is not here")
def test_a_compiled_network_trains_alike_and_its_checkpoint_knows_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgotten, scored = [], []
    reset: Any = vars(torch.compiler)["reset"]
    score: Any = vars(fit)["score_all"]
    monkeypatch.setattr(torch.compiler, "reset", lambda: forgotten.append(reset()))

    def score_all(*args: Any) -> Any:
        scored.append(torch._dynamo.eval_frame._stance.stance)
        return score(*args)

    monkeypatch.setattr(fit, "score_all", score_all)
    for run, compiled in (("plain", "false"), ("compiled", "true")):
        words = [*SMALL_DATA, *SMALL_NET, "epochs=1", "batch_size=40", "trainer.precision=32-true"]
        words += [f"trainer.compile={compiled}", f"run_dir={run}"]
        train.run(configure("train", TrainConfig, *words), False)
    assert len(forgotten) == 1  # else later jobs of a sweep would train eagerly
    assert scored == ["default", "force_eager"]
    plain, compiled = (read_checkpoint(f"{run}/checkpoints/last.ckpt")["state_dict"] for run in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    losses = [read_record(Path(run)).history[0]["train_loss"] for run in ("plain", "compiled")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    load_model("compiled/checkpoints/last.ckpt")
    assert read_record(Path("compiled")).identity != read_record(Path("plain")).identity


def test_a_finished_run_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sweep in one process, each job would otherwise keep its images and its network on a GPU."""
    alive: list[weakref.ref[Any]] = []
    scoring: list[Any] = []
    made: Any = vars(Pixels)["__init__"]
    score: Any = vars(fit)["score_all"]

    def make(self: Pixels, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        alive.append(weakref.ref(self))

    def score_all(config: Any, data: Any, model: Any, hardware: Any) -> Any:
        alive.append(weakref.ref(model))
        scoring.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])
        return score(config, data, model, hardware)

    monkeypatch.setattr(Pixels, "__init__", make)
    monkeypatch.setattr(fit, "score_all", score_all)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for seed in (0, 1):
        words = [*SMALL_DATA, *SMALL_NET, "epochs=1", f"seed={seed}"]
        train.run(configure("train", TrainConfig, *words), False)
    gc.collect()
    assert len(alive) == 2 * 3
    assert [reference() for reference in alive] == [None] * 6
    assert scoring == [before, before]  # a signal while scoring does what it does elsewhere


def test_a_deterministic_run_is_one_from_its_first_step_to_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    score: Any = vars(fit)["score_all"]
    step: Any = vars(Classifier)["training_step"]

    def training_step(self: Classifier, *args: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self, *args)

    def score_all(*args: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return score(*args)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    monkeypatch.setattr(fit, "score_all", score_all)
    for deterministic in (True, False):
        words = [*SMALL_DATA, *SMALL_NET, "epochs=1", "batch_size=40", f"trainer.deterministic={deterministic}"]
        train.run(configure("train", TrainConfig, *words), False)
        assert seen == [deterministic] * 2
        seen.clear()


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"trainer.compile=true: needs the C\+\+ compiler"):
        train.run(configure("train", TrainConfig, *SMALL_DATA, *SMALL_NET, "trainer.compile=true"), False)
