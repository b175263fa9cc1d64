"""Numbers that only a new ``RESULT_VERSION`` may change.

If a test fails, a configuration no longer gives its old results: raise ``RESULT_VERSION`` and say why in the commit.
Random numbers are equal on every machine; losses of float64 steps are equal to 1e-9.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from deepfake_cls.config import SyntheticConfig
from deepfake_cls.data.batches import ImageBatch
from deepfake_cls.data.datamodule import ImageData
from deepfake_cls.data.sources import read_manifest
from deepfake_cls.training.module import Classifier

WEIGHTS = {"RGB": "f03023745725e582", "RGBA": "11947bcbb4c520e3"}
PIXELS = {"RGB": "819174047da2fbc9", "RGBA": "0fa539d093a6965e"}
LOSSES = {
    "RGB": [
        1.1099517547570958,
        1.0819070736639853,
        1.0701386119296932,
        1.041991045539968,
        1.069623917840004,
        0.9590782034954246,
    ],
    "RGBA": [
        1.0843307383515806,
        1.0750133303259302,
        1.0261964228210307,
        0.9286607338053916,
        1.058471299509988,
        0.9280243490931948,
    ],
}
ORDER = "f1684dd938195f2f"
FINGERPRINT = "f1b9ece0fc8a9c5e"


def digest(*arrays: Tensor | np.ndarray) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(torch.as_tensor(array).detach()).tobytes())
    return sha.hexdigest()[:16]


def classifier(channels: str) -> Classifier:
    return Classifier(
        classes=["a", "b", "c"],
        size=[20, 20],
        channels=channels,
        model={"name": "resnet", "args": {}},
        width=8,
        dropout=0.3,
        lr=1e-2,
        epochs=2,
        steps=6,
        seed=5,
        augment={
            "flip": {"p": 0.5},
            "rotation": {"degrees": 10.0, "fill_alpha": "mask"},
            "cutmix": {"p": 0.5, "alpha": 1.0},
        },
        recipe={"label_smoothing": 0.1, "weight_decay": 1e-4, "warmup": 0.1},
    )


def batch(channels: str) -> ImageBatch:
    shape = (6, 20, 20, len(channels))
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageBatch(images, torch.tensor([0, 1, 2, 0, 1, 2]), np.arange(6))


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_initial_weights(channels: str) -> None:
    assert digest(*(value for _, value in classifier(channels).network.named_parameters())) == WEIGHTS[channels]


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_augmented_pixels(channels: str) -> None:
    model = classifier(channels)
    images = [model.augmented(batch(channels), epoch, step).images for epoch in range(2) for step in range(4)]
    assert digest(*images) == PIXELS[channels]


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_losses_of_a_few_steps(channels: str) -> None:
    model = classifier(channels).double().train()
    optimisers = model.configure_optimizers()
    optimiser, schedule = optimisers["optimizer"], optimisers["lr_scheduler"]["scheduler"]
    losses = []
    for step in range(6):
        optimiser.zero_grad()
        loss = model.training_step(batch(channels), step)
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    assert losses == pytest.approx(LOSSES[channels], rel=1e-9)


def test_order_and_pixels_of_the_embedded_data() -> None:
    config = SyntheticConfig(train_size=40, validation_size=20, test_size=10, workers=1)
    data = ImageData(read_manifest(config), config, "RGB", 16, 7, False)
    batches = list(data.train_dataloader()._from(0, 0)) + list(data.train_dataloader()._from(1, 0))
    assert digest(*(batch.labels for batch in batches)) == ORDER
    assert data.train.store.fingerprint[:16] == FINGERPRINT
