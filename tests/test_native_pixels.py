"""From a folder of images of several sizes to answers: training on crops, evaluate, predict, KNN, statistics."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deepfake_cls import evaluate, knn, predict, statistics, train
from deepfake_cls.checkpoints import load_model, read_checkpoint
from deepfake_cls.config import EvaluateConfig, FolderConfig, KnnConfig, PredictConfig, StatisticsConfig, TrainConfig
from deepfake_cls.data import read_manifest
from deepfake_cls.data.batches import Pixels
from deepfake_cls.data.decode import decode
from deepfake_cls.data.images import open_images
from deepfake_cls.errors import IncompleteError, InputError
from deepfake_cls.inference import logits_of, pooled
from deepfake_cls.records import read_predictions, read_record
from deepfake_cls.training.image_features import prepare
from tests.conftest import SMALL_NET, configure, stopped_after
from tests.test_train import assert_equal, outcome

SIDE = 32
SIZES = ((256, 384), (1024, 640), (300, 300), (512, 1024))  # heights and widths
CLASSES = ("checkerboard", "plain", "stripes")
NET = [*SMALL_NET, "model=texturenet", "model.args.statistics=[derivatives]", "channels=RGB", "augment=best"]


def image_of(label: int, index: int) -> NDArray[np.uint8]:
    """Smooth content with weak noise, and the trace of a class in native pixels, which resizing would remove."""
    height, width = SIZES[index % len(SIZES)]
    rng = np.random.default_rng([label, index])
    small = Image.fromarray(rng.integers(60, 190, (4, 4, 3), np.uint8))
    image = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)).astype(np.int16)
    y, x = np.ogrid[:height, :width]
    trace = {0: (y + x) % 2 * 12, 1: 0, 2: (x % 2 + 0 * y) * 12}[label]
    return np.asarray(np.clip(image + np.asarray(trace)[..., None], 0, 255), np.uint8)


def write_tree(root: Path, counts: dict[str, int]) -> None:
    for split, count in counts.items():
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = image_of(label, index + 100 * len(split))
                Image.fromarray(image).save(root / split / name / f"{index}.png", compress_level=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder, {"train": 8, "validation": 4})
    return folder


def data(root: Path, *overrides: str) -> list[str]:
    return ["data=folder", f"data.root={root}", f"data.cache={root / 'cache'}", *overrides]


def fit(root: Path, run_dir: Path | str, *overrides: str) -> None:
    arguments = [*NET, *data(root, f"data.crop={SIDE}"), f"run_dir={run_dir}", *overrides]
    train.run(configure("train", TrainConfig, *arguments), False)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training."""
    folder = tmp_path_factory.mktemp("run") / "out"
    fit(root, folder, "epochs=12", "data.reencode=webp:100", "tta=none")
    return folder


QUIET = ["trainer.progress=false", "trainer.threads=1"]


def evaluated(root: Path, trained: Path, *overrides: str) -> Path:
    folder = Path("_".join(["score", *overrides]).replace("=", "_"))
    arguments = [*QUIET, f"checkpoint={trained}/checkpoints/last.ckpt", *data(root), f'run_dir="{folder}"']
    evaluate.run(configure("evaluate", EvaluateConfig, *arguments, *overrides), False)
    return folder


def predicted(trained: Path, *overrides: str, paths: tuple[Path, ...] = ()) -> list[dict[str, str]]:
    arguments = [*QUIET, f"checkpoint={trained}/checkpoints/last.ckpt", "output=out.csv", "probabilities=true"]
    config = configure("predict", PredictConfig, *arguments, *overrides)
    config.paths = [*map(str, paths)]
    predict.run(config, False)
    return table()


def table() -> list[dict[str, str]]:
    with Path("out.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def scored_by_hand(trained: Path, image: NDArray[np.uint8], crops: int = 4) -> list[float]:
    """Mean probabilities over the corners, with the mean of the crops' image features; apart from the readers."""
    network: Any = load_model(trained / "checkpoints/last.ckpt").network
    bottom, right = image.shape[0] - SIDE, image.shape[1] - SIDE
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    if crops == 1:
        corners = [(round(bottom / 2), round(right / 2))]
    cut = torch.from_numpy(np.stack([image[y : y + SIDE, x : x + SIDE] for y, x in corners])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = network.image_features(cut).mean(dim=0, keepdim=True).expand(len(corners), -1)
        probs: list[float] = network(cut, features).softmax(dim=1).mean(dim=0).tolist()
    return probs


def test_training_counts_images_and_learns_the_traces(root: Path, trained: Path) -> None:
    record = read_record(trained)
    assert record.data["sizes"] == {"train": 24, "validation": 12}
    assert record.data["size"] == [SIDE, SIDE]
    assert np.sum(record.confusion) == 12
    assert record.metrics["val_acc"] > 0.8
    ids, labels, probs = read_predictions(trained / "predictions.npz")
    logits = read_predictions(trained / "predictions.npz", "logits")[2]
    assert len(ids) == len(labels) == len(probs) == 12
    np.testing.assert_allclose(np.exp(logits), probs, rtol=1e-4)  # the logarithm of the mean probabilities
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert read_predictions(trained / "predictions.npz", "features")[2].shape == (12, 128)
    assert record.history[-1]["val_acc"] == pytest.approx(record.metrics["val_acc"])
    for position in (0, 5, 11):
        image = decode(root / "validation" / ids[position], reencode="webp:100")[0]
        np.testing.assert_allclose(probs[position], scored_by_hand(trained, image), atol=1e-5)


def test_the_features_of_an_image_are_the_mean_over_its_crops(root: Path, trained: Path) -> None:
    shapes = {np.load(file).shape for file in (root / "cache").rglob("image_features-*.npy")}
    assert {shape[0] for shape in shapes} == {12, 24}
    network: Any = load_model(trained / "checkpoints/last.ckpt").network
    image = decode(root / "train" / CLASSES[0] / "0.png", reencode="webp:100")[0]
    cut = np.stack([image[:SIDE, :SIDE], image[:SIDE, -SIDE:], image[-SIDE:, :SIDE], image[-SIDE:, -SIDE:]])
    expected = network.image_features(torch.from_numpy(cut).permute(0, 3, 1, 2)).mean(dim=0)
    found = [np.load(file)[0] for file in (root / "cache").rglob("image_features-*.npy")]
    assert any(np.allclose(features, expected, rtol=1e-5) for features in found)


def test_features_of_other_crops_are_computed_again(root: Path, trained: Path) -> None:
    network: Any = load_model(trained / "checkpoints/last.ckpt").network
    config = FolderConfig(root=str(root), cache=str(root / "cache"), crop=SIDE)
    features = []
    for count in (4, 1, 4):
        source = replace(config, crops=count)
        images = [open_images(read_manifest(source), name, source, False) for name in ("train", "validation")]
        splits = [Pixels(split, "RGB") for split in images]
        prepare(network, {}, *splits, fit=False, force=False)
        assert splits[1].image_features is not None
        features.append(splits[1].image_features)
    assert torch.equal(features[0], features[2])
    assert not torch.allclose(features[0], features[1])


def test_evaluate_uses_the_crops_of_the_training_without_being_told(
    root: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ours, theirs = read_record(evaluated(root, trained)), read_record(trained)
    assert ours.metrics["val_acc"] == theirs.metrics["val_acc"]
    assert "Images are re-encoded as in the training: data.reencode=webp:100" in caplog.text
    expected = read_predictions(trained / "predictions.npz")[2]
    np.testing.assert_allclose(read_predictions(Path("score/predictions.npz"))[2], expected, atol=1e-5)
    of_train = read_record(evaluated(root, trained, "split=train"))
    assert of_train.metrics["train_acc"] == theirs.metrics["train_acc"]
    ids, _, probs = read_predictions(evaluated(root, trained, "data.crops=1", "tta=flip") / "predictions.npz")
    image = decode(root / "validation" / ids[0], reencode="webp:100")[0]
    both = [scored_by_hand(trained, view, crops=1) for view in (image, image[:, ::-1])]
    if (image.shape[1] - SIDE) % 2 == 0:  # the centre crop of a mirror image is the mirror image of the centre crop
        np.testing.assert_allclose(probs[0], np.mean(both, axis=0), atol=1e-5)


def test_predict_labels_images_of_any_size_of_at_least_one_crop(trained: Path) -> None:
    images = {"wide.png": image_of(0, 3)[:SIDE], "small.png": image_of(0, 0)[:20, :500], "large.png": image_of(2, 1)}
    for name, image in images.items():
        Image.fromarray(image).save(name)
    with pytest.raises(IncompleteError, match=r"small.png is 20×384 \(height×width\); the network was trained on"):
        predicted(trained, paths=tuple(Path(name) for name in images))
    rows = {row["image_id"]: row for row in table()}
    assert rows["small.png"]["label"] == ""
    for name in ("wide.png", "large.png"):
        image = decode(name, reencode="webp:100")[0]
        probs = [float(rows[name][f"p_{label}"]) for label in CLASSES]
        np.testing.assert_allclose(probs, scored_by_hand(trained, image), atol=1e-5)


def test_predict_extends_small_images_if_the_training_did(
    root: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = read_checkpoint(trained / "checkpoints/last.ckpt")
    checkpoint["hyper_parameters"] |= {"crops": {"side": SIDE, "count": 1, "small": "pad"}, "reencode": None}
    Path("padding/checkpoints").mkdir(parents=True)
    torch.save(checkpoint, "padding/checkpoints/last.ckpt")
    image = image_of(0, 0)[:20, :SIDE]
    for name, pixels in (("small.png", image), ("extended.png", np.pad(image, ((0, 12), (0, 0), (0, 0)), "reflect"))):
        Image.fromarray(pixels).save(name)
    small, extended = predicted(Path("padding"), paths=(Path("small.png"), Path("extended.png")))
    assert {**small, "image_id": ""} == {**extended, "image_id": ""}
    evaluated(root, Path("padding"), "data.reencode=jpeg:50")
    assert "data.reencode=jpeg:50, but the model was trained without it." in caplog.text


def test_predict_labels_a_split_with_the_crops_of_the_training(root: Path, trained: Path) -> None:
    rows = predicted(trained, *data(root), "split=validation", "batch_size=3")  # less than the crops of one image
    expected = read_predictions(trained / "predictions.npz")[2]
    np.testing.assert_allclose([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.crop=64"], "data.crop=64: the model was trained on crops of 32×32 native pixels; omit this key."),
        (["data.size=[40,40]"], "data.size=[40,40]: the model was trained on crops of 32×32 native pixels; omit"),
        (["data.resize=true"], "data.resize=true: the model was trained on crops of 32×32 native pixels; omit"),
        (["data.reencode=jpeg:90"], "data.reencode=jpeg:90: the model was trained with data.reencode=webp:100; omit"),
    ],
)
def test_keys_that_contradict_the_training_are_refused(
    root: Path, trained: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        evaluated(root, trained, *overrides)
    assert message in str(caught.value)
    with pytest.raises(InputError) as caught:
        predicted(trained, *data(root), "split=validation", *overrides)
    assert message in str(caught.value)
    with pytest.raises(InputError, match="resize: the model was trained on crops of 32 native pixels"):
        predicted(trained, "resize=true", paths=(root,))


def test_a_model_of_whole_images_refuses_crops(root: Path, trained: Path) -> None:
    checkpoint = read_checkpoint(trained / "checkpoints/last.ckpt")
    for name in ("crops", "reencode"):  # as in a checkpoint from before these keys
        del checkpoint["hyper_parameters"][name]
    Path("old/checkpoints").mkdir(parents=True)
    torch.save(checkpoint, "old/checkpoints/last.ckpt")
    assert load_model("old/checkpoints/last.ckpt").crops is None
    with pytest.raises(InputError, match="data.crop=32: the model was trained on whole images; omit this key."):
        evaluated(root, Path("old"), "data.crop=32")
    Image.fromarray(image_of(0, 0)[:SIDE, :SIDE]).save("small.png")
    assert predicted(Path("old"), paths=(Path("small.png"),))[0]["label"] in CLASSES


def test_a_resumed_run_equals_an_uninterrupted_one(root: Path) -> None:
    fit(root, "whole", "augment=robust")
    with stopped_after(3):
        fit(root, "parts", "augment=robust")
    fit(root, "parts", "augment=robust")
    assert_equal(outcome(Path("parts")), outcome(Path("whole")))


def test_knn_and_statistics_use_the_centre_crop(root: Path) -> None:
    arguments = [*data(root, f"data.crop={SIDE}"), "trainer.progress=false"]
    knn.run(configure("knn", KnnConfig, *arguments, "k=[1]", "run_dir=knn"), False)
    statistics.run(configure("statistics", StatisticsConfig, *arguments, "run_dir=statistics"), False)
    splits = []
    for split, count in (("train", 8), ("validation", 4)):
        cut = []
        for name in CLASSES:
            for index in range(count):
                image = np.asarray(Image.open(root / split / name / f"{index}.png"))
                y, x = ((length - SIDE) // 2 for length in image.shape[:2])
                cut.append(image[y : y + SIDE, x : x + SIDE].astype(float).ravel())
        splits.append(np.array(cut))
    nearest = ((splits[1][:, None] - splits[0]) ** 2).sum(axis=2).argmin(axis=1) // 8
    assert read_predictions(Path("knn/predictions.npz"))[2].argmax(axis=1).tolist() == nearest.tolist()
    assert read_record(Path("statistics")).metrics["val_acc"] > 0.6


def test_probabilities_are_averaged_and_not_logits() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 4
    mean = pooled(logits, 3)
    torch.testing.assert_close(mean.softmax(dim=1), logits.softmax(dim=1).view(2, 3, 5).mean(dim=1))
    torch.testing.assert_close(mean.exp().sum(dim=1), torch.ones(2))
    assert pooled(logits, 1) is logits
    extreme = pooled(torch.tensor([[300.0, 0.0], [0.0, 300.0]]), 2)
    torch.testing.assert_close(extreme, torch.full((1, 2), math.log(0.5)))
    images = torch.zeros((4, 1, 1, 2), dtype=torch.uint8)
    assert logits_of(torch.nn.Flatten(), images, "32-true", None, 2).shape == (2, 2)


def test_bf16_changes_the_logits_and_not_their_average() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(ToFloat(), torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5)).eval()
    images = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8)
    exact, mixed = (logits_of(network, images, precision, None, 3) for precision in ("32-true", "bf16-mixed"))
    each = torch.cat([logits_of(network, image[None], "bf16-mixed") for image in images])
    assert not torch.equal(exact, mixed)  # the product was rounded to bf16
    assert mixed.dtype == torch.float32
    expected = each.softmax(dim=1).view(2, 3, 5).mean(dim=1)
    torch.testing.assert_close(mixed.softmax(dim=1), expected, atol=1e-6, rtol=1e-5)  # far below bf16's 4e-3
    torch.testing.assert_close(mixed.exp().sum(dim=1), torch.ones(2))


class ToFloat(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 255
