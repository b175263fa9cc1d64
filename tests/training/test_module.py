"""Losses, random numbers and schedule of the LightningModule, against independent computations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from deepfake_cls.data.batches import Batches, ImageBatch, Pixels, with_channels
from deepfake_cls.data.images import SplitImages
from deepfake_cls.data.store import Store
from deepfake_cls.errors import InputError
from deepfake_cls.training.augment import Pipeline
from deepfake_cls.training.fit import balanced_weights
from tests.builders import batch, classifier


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_a_mixed_batch_is_the_loss_against_soft_labels(smoothing: float) -> None:
    model = classifier(cutmix=1.0, label_smoothing=smoothing).train()
    loaded = batch()
    augmented = model.augmented(loaded, 0, 3)
    cutmix = Pipeline({"cutmix": {"p": 1.0, "alpha": 1.0}}, 5).draw(augmented, 0, 3, 0.0)[0]
    assert 0 < cutmix.weight < 1
    one_hot = F.one_hot(loaded.labels, 3).float()
    soft = cutmix.weight * one_hot + (1 - cutmix.weight) * one_hot[cutmix.partner]
    soft = (1 - smoothing) * soft + smoothing / 3
    # Dropout is 0, so a second pass gives the same logits.
    logits = model.network(augmented.images.permute(0, 3, 1, 2))
    expected = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert model.training_step(loaded, 3).item() == pytest.approx(expected.item(), rel=1e-5)


def test_an_unaugmented_batch_has_the_smoothed_loss() -> None:
    model = classifier(cutmix=0.0, degrees=0.0, flip=0.0).train()
    loaded = batch()
    assert torch.equal(model.augmented(loaded, 0, 0).images, loaded.images)
    logits = model.network(loaded.images.permute(0, 3, 1, 2))
    expected = F.cross_entropy(logits, loaded.labels, label_smoothing=0.1)
    assert model.training_step(loaded, 0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_validation_has_no_augmentation_and_no_smoothing() -> None:
    model = classifier(cutmix=1.0).eval()
    loaded = batch()
    expected = F.cross_entropy(model.network(loaded.images.permute(0, 3, 1, 2)), loaded.labels)
    model.validation_step(loaded, 0)
    assert model.val_loss.compute().item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(model.confusion.compute().sum()) == 6


@pytest.mark.parametrize("stage", ["training", "validation"])
def test_loss_of_an_epoch_is_the_mean_over_images(stage: str) -> None:
    model = classifier(
        cutmix=0.0, degrees=0.0, flip=0.0, label_smoothing=0.0
    ).eval()  # so that batch normalisation is the same for both batches
    loaded = batch()
    for rows in (slice(0, 5), slice(5, 6)):
        part = ImageBatch(loaded.images[rows], loaded.labels[rows], loaded.indices[rows])
        (model.training_step if stage == "training" else model.validation_step)(part, 0)
    expected = F.cross_entropy(model.network(loaded.images.permute(0, 3, 1, 2)), loaded.labels)
    metric = model.train_loss if stage == "training" else model.val_loss
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("fill", "values"), [("mask", {0, 255}), ("constant", {255})])
def test_alpha_of_rotated_corners(fill: str, values: set[int]) -> None:
    model, loaded = classifier(fill_alpha=fill, cutmix=0.0), batch()
    loaded.images[..., 3] = 255
    images = model.augmented(loaded, 0, 0).images
    assert set(images[..., 3].flatten().tolist()) == values
    assert (images[:, 0, 0, :3] == 0).all(dim=-1).any()  # the colour of a corner is always 0


def test_augmentation_depends_only_on_seed_epoch_and_step() -> None:
    loaded = batch()
    one, two = classifier(), classifier()
    torch.rand(7)
    for epoch, step in ((0, 0), (0, 1), (1, 0)):
        assert torch.equal(one.augmented(loaded, epoch, step).images, two.augmented(loaded, epoch, step).images)
    views = [one.augmented(loaded, epoch, step).images for epoch in range(2) for step in range(3)]
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


def test_learning_rate_rises_for_a_tenth_of_the_steps_and_then_falls() -> None:
    optimisers = classifier().configure_optimizers()
    optimiser, schedule = optimisers["optimizer"], optimisers["lr_scheduler"]["scheduler"]
    assert optimisers["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(49):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(1e-2 / 25)  # unlike the paper's "max lr equal to the initial lr"
    assert max(rates) == pytest.approx(1e-2)
    assert rates.index(max(rates)) == 4  # 10 % of 50 steps, counted from 0
    middle = 1e-2 / 2
    assert rates[4 + 22] == pytest.approx(middle, rel=0.05)
    assert rates[-1] < 1e-4
    group = optimiser.param_groups[0]
    assert isinstance(optimiser, torch.optim.AdamW)
    assert group["weight_decay"] == 1e-4


def split(count: int = 10) -> SplitImages:
    images = np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)
    store = Store(images, "f", np.arange(count), ())
    return SplitImages(tuple(map(str, range(count))), np.arange(count), store)


def test_an_epoch_is_a_permutation_from_seed_and_epoch() -> None:
    batches = Batches(Pixels(split(), "RGB"), 4, seed=1)
    epochs = [torch.cat([batch.labels for batch in batches]).tolist() for _ in range(3)]
    assert len(batches) == 3
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = Batches(Pixels(split(), "RGB"), 4, seed=1)
    again.load_state_dict({"epoch": 1, "step": 1})
    assert torch.cat([batch.labels for batch in again]).tolist() == epochs[1][4:]
    other = Batches(Pixels(split(), "RGB"), 4, seed=2)
    assert torch.cat([batch.labels for batch in other]).tolist() != epochs[0]
    plain = Batches(Pixels(split(), "RGB"), 4)
    assert torch.cat([batch.labels for batch in plain]).tolist() == list(range(10))


def test_images_keep_their_labels_and_have_the_configured_channels() -> None:
    for images, labels, *_ in Batches(Pixels(split(), "RGBA"), 4, seed=1):
        assert images.shape[1:] == (2, 2, 4)
        assert images[:, 0, 0, 0].tolist() == [12 * int(label) for label in labels]
        assert (images[..., 3] == 255).all()
    four = torch.arange(16, dtype=torch.uint8).view(1, 2, 2, 4)
    assert torch.equal(with_channels(four, "RGBA"), four)
    assert torch.equal(with_channels(four, "RGB"), four[..., :3])


@pytest.mark.parametrize(("fault", "shape"), [(lambda x: x[:, :2], r"\(6, 2\)"), (lambda x: (x,), "tuple")])
def test_a_network_that_returns_a_wrong_shape_is_named(fault: Callable[[torch.Tensor], object], shape: str) -> None:
    model = classifier()
    model.network.register_forward_hook(lambda _module, _inputs, output: fault(output))
    with pytest.raises(InputError, match=rf"model.name=resnet: forward returned {shape}; expected \(6, 3\)"):
        model.training_step(batch(), 0)


def test_a_batch_of_one_image_with_maps_of_one_pixel_is_refused() -> None:
    model = classifier("RGB", augment={}, model={"name": "texturenet", "args": {"statistics": []}})
    images = torch.zeros((1, 8, 8, 3), dtype=torch.uint8)
    with pytest.raises(InputError, match="batch_size: a batch has one image, and its feature maps have one pixel"):
        model.training_step(ImageBatch(images, torch.zeros(1, dtype=torch.int64), np.zeros(1, dtype=np.int64)), 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_classes_have_the_loss_of_torch(smoothing: float) -> None:
    classes = [2.0, 0.5, 0.8]
    model = classifier(label_smoothing=smoothing)
    model.class_weights = torch.tensor(classes)
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 3, generator=rng), torch.rand(6, 3, generator=rng).softmax(dim=1)
    oracle = torch.nn.CrossEntropyLoss(weight=torch.tensor(classes), label_smoothing=smoothing)
    assert model.loss(logits, targets).item() == pytest.approx(oracle(logits, targets).item(), rel=1e-6)
    smoothed = targets * (1 - smoothing) + smoothing / 3
    by_hand = -(smoothed * torch.tensor(classes) * logits.log_softmax(dim=1)).sum() / 6
    assert model.loss(logits, targets).item() == pytest.approx(by_hand.item(), rel=1e-6)
    # For labels torch divides by the sum of the weights instead.
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    weighted = model.loss(logits, F.one_hot(labels, 3)).item() * 6 / torch.tensor(classes)[labels].sum().item()
    if smoothing == 0:
        assert weighted == pytest.approx(oracle(logits, labels).item(), rel=1e-6)


def test_balanced_weights_have_the_mean_1_over_the_training_images() -> None:
    labels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    found = balanced_weights(labels, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert found == pytest.approx(expected.tolist())
    assert np.array(found)[labels].mean() == pytest.approx(1)
