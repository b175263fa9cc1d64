"""What each process of a training reads and trains on, compared with reading complete batches; ranks are faked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from deepfake_cls import distributed, train
from deepfake_cls.config import TrainConfig
from deepfake_cls.data.batches import Batches, ImageBatch, Pixels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.store import Store
from deepfake_cls.run_folders import Run
from deepfake_cls.training.augment import Batch, CutMix, augmentation
from deepfake_cls.training.module import Classifier
from tests.builders import classifier
from tests.conftest import SMALL_DATA, SMALL_NET, configure
from tests.test_distributed import torchrun_variables

PAPER = {
    "flip": {"p": 0.5},
    "rotation": {"degrees": 10.0, "fill_alpha": "mask"},
    "cutmix": {"p": 1.0, "alpha": 1.0},
}
COUNT, BATCH = 45, 16  # the last batch has 13 images


@augmentation("cutmix twice")
class CutMixTwice(CutMix):
    """A second CutMix, so that an image has up to four sources."""


@augmentation("brightest")
@dataclass(frozen=True)
class Brightest:
    """An augmentation without ``select``: each image depends on the largest value of a partner."""

    def draw(self, rng: torch.Generator, batch: Batch, progress: float) -> Tensor:
        return torch.randperm(len(batch), generator=rng)

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        peaks = batch.images.flatten(1).amax(dim=1)[drawn].view(-1, 1, 1, 1)
        return replace(batch, images=torch.maximum(batch.images // 2, peaks // 3))


class CountingImages:
    """The images of a store; it counts the rows that are read."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images, self.base, self.read = images, None, 0

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.read += len(rows)
        return self.images[rows]


def pixels() -> tuple[Pixels, CountingImages]:
    images = CountingImages(np.random.default_rng(0).integers(0, 256, (COUNT, 20, 20, 4), np.uint8))
    store = Store(images, "f", np.arange(COUNT), ())  # type: ignore[arg-type]
    source = Pixels(SplitImages(tuple(map(str, range(COUNT))), np.arange(COUNT) % 3, store), "RGBA")
    source.image_features = torch.rand(COUNT, 5, generator=torch.Generator().manual_seed(0))
    return source, images


@contextmanager
def as_rank(rank: int, size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for key, value in torchrun_variables(rank, size).items():
            patched.setenv(key, value)
        yield


def batches(model: Classifier | None) -> tuple[list[ImageBatch], list[int]]:
    """The batches of an epoch, and the number of rows read for each; with a model, only the rows that it needs."""
    source, images = pixels()
    loaded: list[ImageBatch] = []
    read: list[int] = []
    for batch in Batches(source, BATCH, seed=3, needed=None if model is None else model.needed)._from(0, 0):
        loaded.append(batch)
        read.append(images.read - sum(read))
    return loaded, read


def gradients(model: Classifier, batch: ImageBatch, step: int) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = model.training_step(batch._replace(image_features=None), step)  # this network has none
    torch.autograd.backward(loss)
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


AUGMENTS: list[dict[str, Any]] = [
    PAPER,
    {"cutmix": PAPER["cutmix"], "cutmix twice": PAPER["cutmix"], "flip": PAPER["flip"]},
    {**PAPER, "brightest": {}},
    {"alternating_flip": {}, "shift": {"pixels": 6}, "cutmix": {"p": 1.0, "alpha": 1.0, "until": 0.8}},
    {},
]
NAMES = ["paper", "mixed twice", "without select", "best", "none"]


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("augment", AUGMENTS, ids=NAMES)
def test_shares_of_all_ranks_are_the_batch_of_one_process(augment: dict[str, Any], size: int) -> None:
    complete, _ = batches(None)
    single = [classifier(augment=augment).augmented(batch, 0, step) for step, batch in enumerate(complete)]
    parts: list[list[Batch]] = []
    for rank in range(size):
        with as_rank(rank, size):
            model = classifier(augment=augment)
            parts.append([model.augmented(batch, 0, step) for step, batch in enumerate(batches(model)[0])])
    for step, expected in enumerate(single):
        for name in ("images", "targets", "indices", "image_features"):
            joined = torch.cat([getattr(part[step], name) for part in parts])
            assert torch.equal(joined, getattr(expected, name)), (step, name)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_rank_reads_its_images_and_their_partners(size: int) -> None:
    for rank in range(size):
        with as_rank(rank, size):
            _, read = batches(classifier(augment=PAPER))
            for count, total in zip(read, (16, 16, 13), strict=True):
                assert count <= min(2 * -(-total // size), total)
            assert sum(read) < COUNT or size == 2
            _, read = batches(classifier(augment={**PAPER, "cutmix": None}))
            assert read == [total // size + (rank < total % size) for total in (16, 16, 13)]
            _, read = batches(classifier(augment={**PAPER, "brightest": {}}))
            assert read == [16, 16, 13]


@pytest.mark.parametrize("augment", AUGMENTS, ids=NAMES)
def test_losses_and_gradients_equal_those_of_a_rank_that_reads_complete_batches(augment: dict[str, Any]) -> None:
    for rank in range(2):
        with as_rank(rank, 2):
            model, other = (classifier(augment=augment, dropout=0.3).train() for _ in range(2))
            for step, (part, complete) in enumerate(zip(batches(model)[0], batches(None)[0], strict=True)):
                loss, actual = gradients(model, part, step)
                expected_loss, expected = gradients(other, complete, step)
                assert loss == expected_loss
                assert actual.keys() == expected.keys()
                assert all(torch.equal(actual[name], expected[name]) for name in actual)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_training_reads_the_rows_that_its_rank_needs(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ImageBatch] = []

    def fit(trainer: Any, model: Classifier, datamodule: Any, **_: Any) -> None:
        loaded.extend(datamodule.train_dataloader())
        raise StoppedError

    monkeypatch.setattr(rank_zero_only, "rank", rank)  # restored after the test: Lightning sets it globally
    monkeypatch.setattr("lightning.Trainer.fit", fit)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # the Trainer sets it; restored for the next test
    monkeypatch.setattr(distributed, "joined", lambda _: nullcontext())
    monkeypatch.setattr(distributed, "broadcast", lambda run: run or Run("cnn", Path("out"), "identity"))
    overrides = [*SMALL_DATA, *SMALL_NET, "data.image_size=16", "run_dir=out", "augment.cutmix=null"]
    with as_rank(rank, 2), pytest.raises(StoppedError):
        train.run(configure("train", TrainConfig, *overrides), False)
    assert [(len(batch.images), len(batch.labels)) for batch in loaded] == [(8, 16), (8, 16), (4, 8)]
