"""One training over two processes (gloo, CPU), compared with one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from deepfake_cls import distributed, train
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import TrainConfig
from deepfake_cls.data.batches import ImageBatch
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.errors import Interrupted
from deepfake_cls.inference import predict_all
from deepfake_cls.models.resnet import ResidualNet
from deepfake_cls.randomness import generator
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.stats.metrics import score
from deepfake_cls.training.callbacks import StopCleanly
from deepfake_cls.training.module import Classifier
from tests.builders import batch, classifier
from tests.conftest import SMALL_NET, call, configure
from tests.test_train import assert_equal, outcome

# 21 images in batches of 4: the last batch has one image, and so one process has none. Validation: 16, 16 and 3.
OVERRIDES = ["data.train_size=21", "data.validation_size=35", "data.test_size=5", "data.workers=1", *SMALL_NET]
OVERRIDES += ["data.image_size=16", "batch_size=4", "channels=RGB", "lr=1e-3", "trainer.precision=32-true"]
FORKSERVER = multiprocessing.get_context("forkserver")  # imports the modules once for all processes
FORKSERVER.set_forkserver_preload(["deepfake_cls.training.callbacks", "deepfake_cls.data.datamodule"])


def torchrun_variables(rank: int, size: int = 2, port: int = 0) -> dict[str, str]:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    variables = {key: str(number) for key, number in numbers.items()}
    return {**variables, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}


def _start(rank: int, port: int, function: Callable[..., None], *args: Any) -> None:
    os.environ.update(torchrun_variables(rank, 2, port))
    torch.set_num_threads(1)
    function(*args)


def in_two_processes(function: Callable[..., None], *args: Any) -> list[int | None]:
    """Call a function in two processes; return their exit codes, None for a process that does not end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [FORKSERVER.Process(target=_start, args=(rank, port, function, *args)) for rank in range(2)]
    for process in processes:
        process.start()
    limit = time.monotonic() + 300  # long, because the machine may be busy
    for process in processes:
        process.join(max(limit - time.monotonic(), 0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def loss_of_halves(model: Classifier, loaded: ImageBatch, epoch: int, step: int) -> Tensor:
    """The batch's mean loss with soft labels; each half is normalised on its own, as by a process of two.

    Only the first half updates the running statistics, since the buffers that are compared are those of rank 0.
    """
    augmented = model.augmented(loaded, epoch, step)
    images, count = augmented.images.permute(0, 3, 1, 2), len(augmented)
    assert isinstance(model.network, ResidualNet)
    rng = generator(model.seed, "dropout", epoch, step)
    middle = (count + 1) // 2
    halves = [slice(0, middle), slice(middle, count)] if middle < count else [slice(0, count)]
    kept = torch.rand(count, model.network.fc1.out_features, generator=rng) >= model.network.dropout.p
    logits = []
    for index, half in enumerate(halves):
        mask = kept[half] / (1 - model.network.dropout.p)
        with patch.object(model.network.dropout, "forward", lambda x, mask=mask: x * mask):
            if index == 0:
                logits.append(model.network(images[half]))
            else:
                buffers = {name: buffer.clone() for name, buffer in model.network.named_buffers()}
                logits.append(functional_call(model.network, buffers, (images[half],)))
    target = augmented.targets.float()
    target = 0.9 * target + 0.1 / len(model.classes)
    loss: Tensor = -(target * torch.cat(logits).log_softmax(dim=1)).sum(dim=1).mean()
    return loss


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 64])
def test_shares_are_equal_up_to_one_row_and_cover_the_batch(
    size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, shares = range(count), []
    for rank in range(size):
        for key, value in torchrun_variables(rank, size).items():
            monkeypatch.setenv(key, value)
        shares.append(images[distributed.share(count)])
    assert [image for share in shares for image in share] == list(images)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0]


CASES = [(6, 1.0), (5, 1.0), (5, 0.0), (1, 0.0)]


def _gradients() -> None:
    import torch.distributed as dist

    with distributed.joined("cpu"):
        for count, cutmix in CASES:
            model = classifier(cutmix=cutmix, dropout=0.3).train()
            torch.autograd.backward(model.training_step(batch(count=count), 3))
            for parameter in model.parameters():
                assert parameter.grad is not None
                dist.all_reduce(parameter.grad)
                parameter.grad /= 2  # as DDP does
            file = f"{count}-{cutmix}-{distributed.rank()}.pt"
            torch.save({name: p.grad for name, p in model.named_parameters()}, file)
            dist.barrier()


def test_gradients_equal_those_of_one_process_that_normalises_each_half() -> None:
    assert in_two_processes(_gradients) == [0, 0]
    for count, cutmix in CASES:
        model = classifier(cutmix=cutmix, dropout=0.3).train()
        torch.autograd.backward(loss_of_halves(model, batch(count=count), 0, 3))
        for rank in range(2):
            gradients = torch.load(f"{count}-{cutmix}-{rank}.pt")
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=f"{count} {name}")


@pytest.mark.slow
def test_torchrun_trains_and_scores_like_one_process() -> None:
    command = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "deepfake_cls.train", *OVERRIDES]
    assert call(*command, "run_dir=out").stdout.count("next: ") == 1
    record = read_record(Path("out"))
    assert (record.status, record.processes) == ("ok", 2)
    assert len(list(Path("out").glob("events.out.tfevents.*"))) == 2  # one for the curves, one for the HParams tab

    config = configure("train", TrainConfig, *OVERRIDES)
    data = ImageData(read_manifest(config.data), config.data, "RGB", 4, config.seed, False)
    # Scores are equal bit for bit, also those of the smaller last batch.
    model = load_model("out/checkpoints/last.ckpt")
    probs = predict_all(model.network, data.val_dataloader(), "cpu", "32-true").probs
    assert_equal(read_predictions(Path("out/predictions.npz"))[2], probs)
    clean = predict_all(model.network, data.clean_train_dataloader(), "cpu", "32-true")
    expected = score(data.validation.labels, probs)
    assert record.confusion == expected.confusion
    assert record.metrics["val_acc"] == expected.metrics["acc"] == pytest.approx(record.history[-1]["val_acc"])
    assert record.metrics["train_acc"] == score(data.train.labels, clean.probs).metrics["acc"]

    # The same steps in one process, with as many threads: AdamW amplifies differences of gradients that are nearly 0.
    torch.set_num_threads(1)
    single = Classifier(**read_checkpoint("out/checkpoints/last.ckpt")["hyper_parameters"]).train()
    optimisers = single.configure_optimizers()
    optimiser, schedule = optimisers["optimizer"], optimisers["lr_scheduler"]["scheduler"]
    losses = []
    for epoch in range(2):
        for step, loaded in enumerate(data.train_dataloader()._from(epoch, 0)):
            optimiser.zero_grad()
            loss = loss_of_halves(single, loaded, epoch, step)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            losses.append((loss.item(), len(loaded.labels)))
    for name, value in single.network.state_dict().items():
        torch.testing.assert_close(model.network.state_dict()[name], value, rtol=1e-2, atol=1e-3, msg=name)
    mean = sum(loss * count for loss, count in losses[6:]) / 21
    assert record.history[1]["train_loss"] == pytest.approx(mean, rel=1e-3)


def _fit(run_dir: str) -> None:
    train.run(configure("train", TrainConfig, *OVERRIDES, f"run_dir={run_dir}"), False)


def _stopped(step: int, run_dir: str) -> None:
    original = StopCleanly.on_train_batch_end

    def stop(self: StopCleanly, trainer: Any, *args: Any) -> None:
        if trainer.global_step == step and distributed.rank() == 1:
            self.received = signal.SIGTERM
        original(self, trainer, *args)

    with patch.object(StopCleanly, "on_train_batch_end", stop), pytest.raises(Interrupted):
        _fit(run_dir)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_the_resumed_run_equals_an_uninterrupted_one() -> None:
    # New processes for each part: a process that joins a second time may hang on what is left of the first time.
    assert in_two_processes(_fit, "whole") == [0, 0]
    for step in (4, 6):  # within an epoch, and at its last batch
        assert in_two_processes(_stopped, step, f"parts{step}") == [0, 0]
        assert in_two_processes(_fit, f"parts{step}") == [0, 0]
        assert_equal(outcome(Path(f"parts{step}")), outcome(Path("whole")))


def test_objects_are_exchanged_with_gloo_on_gpus_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # With NCCL, which exchanges objects on the GPUs, the other processes would wait forever for one that has failed.
    import torch.distributed as dist

    backends: list[str] = []
    groups: list[Any] = []

    def new_group(backend: str, **options: Any) -> str:
        backends.append(backend)
        return f"group of {backend}"

    for key, value in torchrun_variables(0).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: backends.append(backend))
    monkeypatch.setattr(dist, "new_group", new_group)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda box, src, group=None: groups.append(group))
    monkeypatch.setattr(dist, "all_gather_object", lambda parts, values, group=None: groups.append(group))
    with distributed.joined("cuda"):
        distributed.broadcast("value")
        distributed.gather({0: "value"})
    assert backends == ["nccl", "gloo"]
    assert groups == ["group of gloo"] * 2


def _fails(rank: int | None) -> None:
    def die(self: StopCleanly, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 2 and distributed.rank() == rank:
            raise MemoryError("out of memory")

    with patch.object(StopCleanly, "on_train_batch_end", die):
        train.run(configure("train", TrainConfig, *OVERRIDES, "run_dir=out"), False)


def test_both_processes_end_if_one_fails() -> None:
    assert in_two_processes(_fails, 1) == [1, 1]
    assert read_record(Path("out")).status == "failed"
    for name in ("run.json", "result.json"):
        Path("out", name).unlink()
    assert in_two_processes(_fails, None) == [1, 1]  # rank 0 refuses the folder, and rank 1 ends too


@pytest.mark.parametrize("arguments", [["deepfake_cls.train", "-m", "seed=0,1"], ["deepfake_cls.knn"]])
def test_torchrun_is_refused_for_all_but_one_training(arguments: list[str]) -> None:
    processes = [call(*arguments, check=False, env=torchrun_variables(rank)) for rank in range(2)]
    assert [process.returncode for process in processes] == [1, 1]
    assert processes[0].stderr.startswith("error: torchrun shares one training over several devices")
    assert processes[0].stderr.count("\n") == 1
    assert processes[1].stderr == ""
    assert not Path("runs").exists()
