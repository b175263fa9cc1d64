"""Statistics of batch normalisation that are computed after a training, with the weights that are scored.

The running statistics at the end of a training are those of its last twenty or so batches (momentum 0.1), many of them
mixed by CutMix, and of weights that still changed. They move the accuracy of the last epoch by up to a few points.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from deepfake_cls.data.batches import Batches, Pixels
from deepfake_cls.inference import logits_of
from deepfake_cls.randomness import to_device
from deepfake_cls.training.augment import Batch
from deepfake_cls.training.module import Classifier

IMAGES = 2_500  # two estimates from that many images differ by 0.2 points of accuracy (experiments/LOG.md)


def layers(network: nn.Module) -> list[_BatchNorm]:
    """The layers of a network that have running statistics of batch normalisation."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def recompute(model: Classifier, pixels: Pixels, batch_size: int, precision: str, augmented: bool) -> None:
    """Replace the running statistics of all layers by means over batches of training images, without dropout.

    Args:
        model: In evaluation mode, on its device. It stays in evaluation mode.
        pixels: The training images; a fixed random subset of ``IMAGES`` of them is used.
        batch_size: That of the training.
        precision: ``32-true`` or ``bf16-mixed``.
        augmented: Augment the images as in the training, but without augmentations that change targets.
    """
    found = layers(model.network)
    momenta = [layer.momentum for layer in found]
    for layer in found:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    try:
        for images, image_features in _batches(model, pixels, batch_size, augmented):
            logits_of(model.network, images, precision, image_features)
    finally:
        for layer, momentum in zip(found, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()


def _batches(
    model: Classifier, pixels: Pixels, batch_size: int, augmented: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images and image features; random numbers are those of the epoch after the last one."""
    batches = Batches(pixels, batch_size, model.seed, limit=IMAGES)
    batches.epoch = model.epochs
    for step, loaded in enumerate(batches):
        if len(loaded.labels) < 2:  # one image has no variance
            continue
        if not augmented:
            yield loaded.images, loaded.image_features
            continue
        # One target for each image, so that any mixing changes a target.
        targets = to_device(torch.eye(len(loaded.labels), dtype=torch.float64), loaded.images.device)
        batch = Batch(loaded.images, targets, torch.from_numpy(loaded.indices), loaded.image_features)
        drawn = model.pipeline.draw(batch, model.epochs, step, 1.0)
        batch = model.pipeline.apply(batch, drawn, mix=False)
        yield batch.images, batch.image_features
