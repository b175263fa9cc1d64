"""Image features of a network: computed once for each image, standardised, mixed by CutMix."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepfake_cls import evaluate, train
from deepfake_cls.checkpoints import load_model
from deepfake_cls.config import EvaluateConfig, TrainConfig
from deepfake_cls.data.batches import ImageBatch
from deepfake_cls.models import network
from deepfake_cls.records import read_predictions, read_record
from tests.builders import classifier
from tests.conftest import SMALL_DATA, SMALL_NET, configure, stopped_after
from tests.test_train import assert_equal, outcome

OVERRIDES = [*SMALL_DATA, *SMALL_NET, "data.image_size=32", "data.cache=cache", "model.name=statistics"]
computed: list[int] = []  # number of images in each call of image_features


@network("statistics")
class Statistics(nn.Module):
    """A network on means and standard deviations of the channels."""

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, num_classes: int, hidden: int = 8, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.zeros(2 * in_channels))
        self.register_buffer("std", torch.ones(2 * in_channels))
        self.body = nn.Linear(2 * in_channels, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def image_features(self, images: Tensor) -> Tensor:
        computed.append(len(images))
        values = self.scale * images.float()
        return torch.cat([values.mean(dim=(2, 3)), values.std(dim=(2, 3))], dim=1)

    def fit_image_features(self, features: Tensor) -> None:
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0).clamp(min=1e-3))

    def forward(self, images: Tensor, image_features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body((image_features - self.mean) / self.std).relu())
        return logits


@pytest.fixture(autouse=True)
def reset_counter() -> None:
    computed.clear()


def fit(*overrides: str) -> None:
    train.run(configure("train", TrainConfig, *OVERRIDES, *overrides), False)


def test_features_are_computed_once_for_all_trainings() -> None:
    fit("run_dir=first", "tta=none", "epochs=1")
    assert sum(computed) == 40 + 20
    assert len(list(Path("cache").rglob("image_features-*.npy"))) == 2
    fit("run_dir=second", "tta=none", "epochs=1", "seed=1", "lr=0.1")
    assert sum(computed) == 40 + 20
    fit("run_dir=flip", "epochs=1", "seed=1")
    assert sum(computed) == 40 + 20 + 20  # of the mirror images
    fit("run_dir=second", "tta=none", "epochs=1", "seed=1", "lr=0.1", "force=true")
    assert sum(computed) == 2 * (40 + 20) + 20  # force=true ignores the cache
    for other in ("channels=RGB", "model.args.scale=2", "data.seed=1"):
        computed.clear()
        fit(other, "tta=none", "epochs=1")
        assert sum(computed) == 40 + 20, other


def npy(features: np.ndarray[tuple[int, ...], np.dtype[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, features)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [b"", b"\x93NUMPY", b"no array", npy(np.zeros((3, 8), np.float32)), npy(np.zeros((40, 8)))],
    ids=["cut", "header", "text", "too few images", "float64"],
)
def test_damaged_features_are_computed_again(damage: bytes) -> None:
    options = ("tta=none", "epochs=1", "force=true", "run_dir=out")
    fit(*options)
    files = [*Path("cache").rglob("image_features-*.npy")]
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(damage or whole[file][:-8])
    fit("tta=none", "epochs=1", "seed=1")
    assert {file: file.read_bytes() for file in files} == whole


def test_features_of_another_result_version_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("tta=none", "epochs=1")
    computed.clear()
    monkeypatch.setattr("deepfake_cls.training.image_features.RESULT_VERSION", 99)
    fit("tta=none", "epochs=1", "seed=1")
    assert sum(computed) == 40 + 20


def test_buffers_are_fitted_on_the_training_images() -> None:
    fit("run_dir=out", "epochs=1", "channels=RGB")
    model = load_model("out/checkpoints/last.ckpt")
    assert isinstance(model.network, Statistics)
    store = next(file for file in Path("cache").rglob("images.u8") if file.stat().st_size == 40 * 32 * 32 * 3)
    images = np.fromfile(store, np.uint8).reshape(40, 32 * 32, 3).astype(np.float64)
    features = np.concatenate([images.mean(axis=1), images.std(axis=1, ddof=1)], axis=1)
    np.testing.assert_allclose(model.network.mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.network.std, features.std(axis=0, ddof=1), rtol=1e-4)


def test_cutmix_mixes_features_in_proportion_to_pixels() -> None:
    count = 6
    model = classifier("RGB", augment={"cutmix": {"p": 1.0, "alpha": 1.0}})
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 20, 20, 3).contiguous()
    mixed = 0
    for step in range(5):
        loaded = ImageBatch(images, torch.arange(count) % 3, np.arange(count), None, torch.eye(count))
        augmented = model.augmented(loaded, 0, step)
        shares = [torch.bincount(image.flatten().long(), minlength=count) / image.numel() for image in augmented.images]
        assert augmented.image_features is not None
        torch.testing.assert_close(augmented.image_features.float(), torch.stack(shares))
        mixed += int((augmented.image_features.max(dim=1).values < 1).sum())
    assert mixed > 5


def test_a_checkpoint_alone_repeats_the_scores_of_training() -> None:
    fit("run_dir=out", "epochs=4")
    record = read_record(Path("out"))
    overrides = [*SMALL_DATA, "data.image_size=32", "data.cache=cache", "trainer.threads=1", "trainer.progress=false"]
    overrides += ["checkpoint=out/checkpoints/last.ckpt", "batch_size=64"]
    for tta, name, metric in (("none", "probs", "val_acc"), ("flip", "probs_flip", "val_acc_flip")):
        evaluate.run(configure("evaluate", EvaluateConfig, *overrides, f"tta={tta}", f"run_dir={tta}"), False)
        assert read_record(Path(tta)).metrics["val_acc"] == record.metrics[metric]
        expected = read_predictions(Path("out/predictions.npz"), name)[2]
        np.testing.assert_array_equal(read_predictions(Path(tta) / "predictions.npz")[2], expected)
    assert record.metrics["val_acc"] == pytest.approx(record.history[-1]["val_acc"])
    assert np.ptp(read_predictions(Path("out/predictions.npz"))[2], axis=0).max() > 0.1  # images have different scores


def test_a_resumed_run_equals_an_uninterrupted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("run_dir=whole")
    with stopped_after(4):
        fit("run_dir=parts")

    def refit(*_: object) -> None:
        raise AssertionError("the buffers of a resumed run come from its checkpoint")

    monkeypatch.setattr(Statistics, "fit_image_features", refit)
    fit("run_dir=parts")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))
