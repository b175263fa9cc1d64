"""The CUDA path without a GPU: fake tensors on ``cuda`` raise an error where the CPU would wait for the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)

from deepfake_cls.data.batches import ImageBatch
from deepfake_cls.inference import logits_of
from deepfake_cls.models import resnet
from deepfake_cls.training import augment, dropout, module, pixels
from deepfake_cls.training.module import Classifier
from tests.builders import classifier

CUDA = torch.device("cuda", 0)


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """A mode in which tensors on ``cuda`` have a shape and no values; random numbers of augmentations are real."""
    mode = FakeTensorMode()

    def to_device(tensor: Tensor, device: torch.device) -> Tensor:
        return (tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)).to(device)

    def draw(*args: Any) -> Any:
        with unset_fake_temporarily():
            return original(*args)

    original = augment.Pipeline.draw
    monkeypatch.setattr(augment.Pipeline, "draw", draw)
    for user in (augment, module, dropout, pixels):
        monkeypatch.setattr(user, "to_device", to_device)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    with mode:
        yield mode


def on_cuda(model: Classifier) -> Classifier:
    """The model with all of its tensors on ``cuda``; called within the mode."""
    for layer in model.modules():
        for tensors in (layer._parameters, layer._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
                    trained = isinstance(tensor, torch.nn.Parameter)
                    tensors[name] = torch.nn.Parameter(fake) if trained else fake  # type: ignore[assignment]
    for metric in (model.train_loss, model.val_loss, model.confusion):
        for name, state in metric._defaults.items():
            assert isinstance(state, Tensor)
            setattr(metric, name, torch.empty(state.shape, dtype=state.dtype, device=CUDA))
        metric._device = CUDA
    return model


def a_batch() -> ImageBatch:
    images = torch.empty((6, 20, 20, 4), dtype=torch.uint8, device=CUDA)
    return ImageBatch(images, torch.empty(6, dtype=torch.int64, device=CUDA), np.arange(6))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("recipe", [{"cutmix": 1.0}, {"cutmix": 0.0, "degrees": 0.0}])
def test_training_validation_and_prediction_never_wait_for_the_gpu(
    bf16: bool, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dtypes = classifier(dropout=0.3, **recipe), set[torch.dtype]()
    last = [layer for layer in model.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.register_forward_hook(lambda _m, _i, logits: dtypes.add(logits.dtype))
    with fake_cuda(monkeypatch):
        batch = a_batch()
        on_cuda(model)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            assert model.train().training_step(batch, 0).device == CUDA
            # torchmetrics uses bincount, which waits, unless algorithms have to be deterministic.
            torch.use_deterministic_algorithms(True)
            try:
                model.eval().validation_step(batch, 0)
                assert model.val_loss.compute().device == CUDA
            finally:
                torch.use_deterministic_algorithms(False)
        logits = logits_of(model.network, batch.images, "bf16-mixed" if bf16 else "32-true")
        assert (logits.device, logits.dtype, logits.shape) == (CUDA, torch.float32, (6, 3))
    assert dtypes == {torch.bfloat16 if bf16 else torch.float32}


@pytest.mark.parametrize("bf16", [False, True])
def test_the_best_arm_never_waits_for_the_gpu(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    moves = {"alternating_flip": {}, "shift": {"pixels": 6}, "cutmix": {"p": 1.0, "alpha": 1.0, "until": 0.8}}
    model = classifier(augment=moves, model={"name": "texturenet", "args": {}}, dropout=0.3, decay_all=False)
    with fake_cuda(monkeypatch):
        batch = a_batch()._replace(image_features=torch.empty((6, 989), device=CUDA))
        on_cuda(model)
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            assert model.train().training_step(batch, 0).device == CUDA
        logits = logits_of(model.network.eval(), batch.images, "32-true", batch.image_features)
        assert (logits.device, logits.dtype, logits.shape) == (CUDA, torch.float32, (6, 3))


@pytest.mark.parametrize("fault", [lambda x: x * float(x.mean()), lambda x: x + torch.nonzero(x).sum(), Tensor.cpu])
def test_a_wait_for_the_gpu_is_detected(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = resnet.ResidualNet.forward
    model = classifier()
    with fake_cuda(monkeypatch):
        on_cuda(model)
        with (
            patch.object(resnet.ResidualNet, "forward", lambda self, x: fault(forward(self, x))),
            pytest.raises((DataDependentOutputException, RuntimeError)),
        ):
            model.training_step(a_batch(), 0)


def test_clocks_are_read_after_waiting_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = classifier(), list[str]()

    def clock() -> float:
        calls.append("clock")
        return float(len(calls))

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"wait for {device}"))
    monkeypatch.setattr(Classifier, "device", CUDA)
    model.on_train_epoch_start()
    for step in range(3):
        model.on_train_batch_end(None, None, step)  # only the first step waits
    assert calls == ["clock", "wait for cuda:0", "clock"]
    model._images_done = 10
    assert model.images_per_second() == 10 / 4
    assert calls[3:] == ["wait for cuda:0", "clock"]
